// Rename: the operation with the most rules, in the order in which they are judged.
#include <fmt/core.h>

#include "store/inode/names.hpp"
#include "store/inode/names_steps.hpp"

namespace odx {

namespace {

// Whether `dir` is `ancestor` or lies below it. `dir` must not be removed.
Result<bool> is_within(Mutation& m, InodeNo dir, InodeNo ancestor) {
  // A damaged store may hold a loop of parents. Comparing with a mark that jumps ahead at every
  // power of two notices one without a limit on the depth.
  InodeNo mark = dir;
  std::uint64_t steps = 0;
  std::uint64_t next_mark = 1;
  while (dir != ancestor) {
    if (dir == kRootInode) {
      return false;
    }
    dir = ODX_TRY(get_directory(m, dir)).parent;
    if (dir == mark) {
      return corrupt(fmt::format("directory {} is its own ancestor", dir.value()));
    }
    if (++steps == next_mark) {
      mark = dir;
      next_mark *= 2;
    }
  }
  return true;
}

// The rules for a destination that exists and is to be replaced.
Result<void> check_replace(const Inode& source, const Inode& target) {
  if (source.is_directory() && !target.is_directory()) {
    return fail(ENOTDIR);
  }
  if (!source.is_directory() && target.is_directory()) {
    return fail(EISDIR);
  }
  if (target.is_directory() && target.entry_count != 0) {
    return fail(ENOTEMPTY);
  }
  return {};
}

// EINVAL if a directory would come to lie in itself.
Result<void> check_no_loop(Mutation& m, const Inode& moved, InodeNo to_dir) {
  if (moved.is_directory() && ODX_TRY(is_within(m, to_dir, moved.ino))) {
    return fail(EINVAL, "a directory cannot move into itself");
  }
  return {};
}

// The inode lies in `dir` from now on.
Result<void> arrive(Mutation& m, InodeNo ino, InodeNo dir) {
  Inode inode = ODX_TRY(m.inode(ino));
  if (inode.is_directory()) {
    inode.parent = dir;
  }
  inode.ctime_ns = m.now_ns();
  m.put(std::move(inode));
  return {};
}

Result<void> exchange(Mutation& m, InodeNo from_dir, const DirectoryEntry& from, InodeNo to_dir,
                      const DirectoryEntry& to) {
  const Inode source = ODX_TRY(get_named(m, from_dir, from));
  const Inode target = ODX_TRY(get_named(m, to_dir, to));
  if (from_dir != to_dir) {
    ODX_TRY(check_no_loop(m, source, to_dir));
    ODX_TRY(check_no_loop(m, target, from_dir));
    if (source.is_directory() && !target.is_directory()) {
      ODX_TRY(check_room(ODX_TRY(m.inode(to_dir)), source.mode));
    }
    if (target.is_directory() && !source.is_directory()) {
      ODX_TRY(check_room(ODX_TRY(m.inode(from_dir)), target.mode));
    }
  }
  replace_entry(m.kv(), from_dir, from, target.ino, target.mode);
  replace_entry(m.kv(), to_dir, to, source.ino, source.mode);
  ODX_TRY(arrive(m, source.ino, to_dir));
  ODX_TRY(arrive(m, target.ino, from_dir));
  const int directories = (source.is_directory() ? 1 : 0) - (target.is_directory() ? 1 : 0);
  ODX_TRY(count_entries(m, from_dir, 0, -directories));
  ODX_TRY(count_entries(m, to_dir, 0, directories));
  return {};
}

}  // namespace

Result<InodePtr> Names::rename(InodeNo from_dir, std::string_view from, InodeNo to_dir,
                               std::string_view to, RenameMode mode, const NewInode* whiteout) {
  if (whiteout != nullptr && (mode == RenameMode::kExchange || S_ISDIR(whiteout->mode))) {
    return fail(EINVAL);
  }
  ODX_TRY(check_name(from));
  ODX_TRY(check_name(to));
  if (is_dots(from) || is_dots(to)) {
    return fail(EBUSY);
  }
  Mutation m = ODX_TRY(Mutation::begin(core_));
  const Uuid& store = core_.super.uuid;
  const Inode origin = ODX_TRY(get_directory(m, from_dir));
  const Inode destination = ODX_TRY(get_directory(m, to_dir));
  const std::optional<DirectoryEntry> source_entry =
      ODX_TRY(find_entry(m.kv(), store, from_dir, from));
  if (!source_entry) {
    return fail(ENOENT);
  }
  ODX_TRY(check_room(destination, 0));
  const std::optional<DirectoryEntry> target_entry = ODX_TRY(find_entry(m.kv(), store, to_dir, to));
  if (target_entry && mode == RenameMode::kNoReplace) {
    return fail(EEXIST);
  }
  if (!target_entry && mode == RenameMode::kExchange) {
    return fail(ENOENT);
  }
  if (target_entry && target_entry->ino == source_entry->ino) {
    return InodePtr{};  // two names of one inode: POSIX wants both to stay
  }
  if (mode == RenameMode::kExchange) {
    ODX_TRY(exchange(m, from_dir, *source_entry, to_dir, *target_entry));
    ODX_TRY(m.commit());
    return InodePtr{};
  }

  const Inode source = ODX_TRY(get_named(m, from_dir, *source_entry));
  if (from_dir != to_dir) {
    ODX_TRY(check_no_loop(m, source, to_dir));
  }
  if (target_entry) {
    ODX_TRY(check_replace(source, ODX_TRY(get_named(m, to_dir, *target_entry))));
  } else if (from_dir != to_dir) {
    ODX_TRY(check_room(destination, source.mode));
  }

  if (whiteout != nullptr) {
    Inode left = ODX_TRY(make_inode(m, *whiteout, &origin));
    replace_entry(m.kv(), from_dir, *source_entry, left.ino, left.mode);
    m.put(std::move(left));
  } else {
    remove_entry(m.kv(), from_dir, *source_entry);
  }
  InodePtr replaced;
  if (target_entry) {
    replace_entry(m.kv(), to_dir, *target_entry, source.ino, source.mode);
    replaced = ODX_TRY(lose_name(m, target_entry->ino));
  } else {
    ODX_TRY(add_entry(m.kv(), store, to_dir, to, source.ino, source.mode));
  }
  ODX_TRY(arrive(m, source.ino, to_dir));
  const int directories = source.is_directory() ? 1 : 0;
  ODX_TRY(count_entries(m, from_dir, whiteout != nullptr ? 0 : -1, -directories));
  ODX_TRY(count_entries(m, to_dir, replaced ? 0 : 1, replaced ? 0 : directories));
  ODX_TRY(m.commit());
  return replaced;
}

}  // namespace odx
