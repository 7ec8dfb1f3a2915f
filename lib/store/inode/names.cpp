// Names: the tree of directories, as records of the tables I (inodes), D (entries), X (extended
// attributes) and Z (orphans).
//
// What holds after every transaction:
//   - a directory has exactly one name, except the root (none) and removed ones; `parent` says in
//     which directory; following `parent` from any directory that is not removed ends at the root
//   - a directory's nlink is 2 plus the directories in it; 0 once it is removed, and then it is
//     empty and stays so; entry_count is the number of its entries
//   - any other inode's nlink is the number of its names
//   - nlink is 0 exactly if the inode has a Z record; its content lives until reap()
//   - entries repeat the type of the inode that they lead to; inode numbers are never used again
//
// Each operation is one Mutation, whose lock makes its checks and its changes one step. Look-ups
// and listings take no lock: they read the committed state and look again where two reads may have
// straddled a transaction.
#include "store/inode/names.hpp"

#include <fmt/core.h>

#include "store/inode/names_steps.hpp"
#include "store/meta/keys.hpp"

namespace odx {

namespace {

constexpr std::size_t kMaxTargetBytes = 4095;

Result<void> check_new_inode(const NewInode& what) {
  switch (what.mode & S_IFMT) {
    case S_IFLNK:
      if (what.symlink_target.empty()) {
        return fail(ENOENT);
      }
      if (what.symlink_target.size() > kMaxTargetBytes) {
        return fail(ENAMETOOLONG);
      }
      if (what.symlink_target.find('\0') != std::string::npos) {
        return fail(EINVAL);
      }
      return {};
    case S_IFREG:
    case S_IFDIR:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      return what.symlink_target.empty() ? Result<void>{} : fail(EINVAL);
    default:
      return fail(EINVAL);
  }
}

}  // namespace

Result<Inode> make_inode(Mutation& m, const NewInode& what, const Inode* dir) {
  ODX_TRY(check_new_inode(what));
  Inode inode;
  inode.ino = InodeNo(ODX_TRY(m.next_number(keys::kInodeCounter)));
  inode.mode = what.mode & (S_IFMT | 07777U);
  inode.uid = what.uid;
  inode.gid = what.gid;
  inode.nlink = 1;
  if (S_ISCHR(what.mode) || S_ISBLK(what.mode)) {
    inode.rdev = what.rdev;
  }
  inode.atime_ns = inode.mtime_ns = inode.ctime_ns = inode.btime_ns = m.now_ns();
  inode.symlink_target = what.symlink_target;
  if (dir != nullptr && (dir->mode & S_ISGID) != 0) {
    inode.gid = dir->gid;
    inode.mode |= inode.is_directory() ? S_ISGID : 0U;
  }
  return inode;
}

InodePtr put_back(Mutation& m, Inode inode) {
  InodePtr answer = std::make_shared<const Inode>(inode);
  m.put(std::move(inode));
  return answer;
}

Result<Inode> get_directory(Mutation& m, InodeNo dir) {
  Inode inode = ODX_TRY(m.inode(dir));
  if (!inode.is_directory()) {
    return fail(ENOTDIR);
  }
  return inode;
}

Result<Inode> get_named(Mutation& m, InodeNo dir, const DirectoryEntry& entry) {
  Result<Inode> inode = m.inode(entry.ino);
  if (!inode && inode.error().errno_value() == ENOENT) {
    return corrupt(fmt::format("entry \"{}\" of directory {} leads to missing inode {}", entry.name,
                               dir.value(), entry.ino.value()));
  }
  return inode;
}

Result<void> check_room(const Inode& dir, std::uint32_t mode) {
  if (dir.nlink == 0) {
    return fail(ENOENT, "the directory is removed");
  }
  if (S_ISDIR(mode) && dir.nlink >= kMaxLinks) {
    return fail(EMLINK);
  }
  return {};
}

Result<InodePtr> count_entries(Mutation& m, InodeNo dir, int entries, int directories) {
  Inode inode = ODX_TRY(m.inode(dir));
  if ((entries < 0 && inode.entry_count == 0) || (directories < 0 && inode.nlink <= 2)) {
    return corrupt(fmt::format("directory {} has more entries than it counts", dir.value()));
  }
  inode.entry_count += static_cast<std::uint64_t>(entries);
  inode.nlink += static_cast<std::uint32_t>(directories);
  inode.mtime_ns = inode.ctime_ns = m.now_ns();
  return put_back(m, std::move(inode));
}

Result<InodePtr> Names::lookup(InodeNo dir, std::string_view name) {
  ODX_TRY(check_name(name));
  const InodePtr directory = ODX_TRY(core_.inode(dir));
  if (!directory->is_directory()) {
    return fail(ENOTDIR);
  }
  if (is_dots(name)) {
    return name == "." ? directory : core_.inode(directory->parent);
  }
  InodeNo missing;
  for (;;) {
    const std::optional<DirectoryEntry> entry =
        ODX_TRY(find_entry(*core_.meta, core_.super.uuid, dir, name));
    if (!entry) {
      return fail(ENOENT);
    }
    Result<InodePtr> inode = core_.inode(entry->ino);
    if (inode || inode.error().errno_value() != ENOENT) {
      return inode;
    }
    // Freed after the entry was read? Then the entry is gone by now, or leads elsewhere.
    if (entry->ino == missing) {
      return corrupt(fmt::format("entry \"{}\" of directory {} leads to missing inode {}", name,
                                 dir.value(), missing.value()));
    }
    missing = entry->ino;
  }
}

Result<InodePtr> Names::create(InodeNo dir, std::string_view name, const NewInode& what) {
  ODX_TRY(check_name(name));
  ODX_TRY(check_new_inode(what));
  Mutation m = ODX_TRY(Mutation::begin(core_));
  const Inode directory = ODX_TRY(get_directory(m, dir));
  if (is_dots(name) || ODX_TRY(find_entry(m.kv(), core_.super.uuid, dir, name))) {
    return fail(EEXIST);
  }
  ODX_TRY(check_room(directory, what.mode));

  Inode inode = ODX_TRY(make_inode(m, what, &directory));
  if (inode.is_directory()) {
    inode.nlink = 2;
    inode.parent = dir;
  }
  ODX_TRY(add_entry(m.kv(), core_.super.uuid, dir, name, inode.ino, inode.mode));
  ODX_TRY(count_entries(m, dir, 1, inode.is_directory() ? 1 : 0));
  InodePtr answer = put_back(m, std::move(inode));
  ODX_TRY(m.commit());
  return answer;
}

Result<InodePtr> Names::create_unnamed(const NewInode& what, std::optional<InodeNo> dir) {
  if (!S_ISREG(what.mode)) {
    return fail(EINVAL);
  }
  Mutation m = ODX_TRY(Mutation::begin(core_));
  const std::optional<Inode> parent =
      dir ? std::optional(ODX_TRY(get_directory(m, *dir))) : std::nullopt;
  Inode inode = ODX_TRY(make_inode(m, what, parent ? &*parent : nullptr));
  inode.nlink = 0;
  put_orphan(m, inode.ino, OrphanKind::kUnnamed);
  InodePtr answer = put_back(m, std::move(inode));
  ODX_TRY(m.commit());
  return answer;
}

Result<InodePtr> Names::link(InodeNo ino, InodeNo dir, std::string_view name) {
  ODX_TRY(check_name(name));
  Mutation m = ODX_TRY(Mutation::begin(core_));
  const Inode directory = ODX_TRY(get_directory(m, dir));
  Inode inode = ODX_TRY(m.inode(ino));
  if (is_dots(name) || ODX_TRY(find_entry(m.kv(), core_.super.uuid, dir, name))) {
    return fail(EEXIST);
  }
  ODX_TRY(check_room(directory, 0));
  if (inode.is_directory()) {
    return fail(EPERM);
  }
  if (inode.nlink >= kMaxLinks) {
    return fail(EMLINK);
  }
  if (inode.nlink == 0) {
    const std::optional<std::string> orphan = ODX_TRY(m.kv().get(keys::orphan(ino)));
    if (!orphan) {
      return corrupt(fmt::format("inode {} has neither a name nor an orphan record", ino.value()));
    }
    if (ODX_TRY(decode_orphan(*orphan)) != OrphanKind::kUnnamed) {
      return fail(ENOENT, "the last name of the inode is removed");
    }
    m.kv().erase(keys::orphan(ino));
  }
  ODX_TRY(add_entry(m.kv(), core_.super.uuid, dir, name, ino, inode.mode));
  ODX_TRY(count_entries(m, dir, 1, 0));
  ++inode.nlink;
  inode.ctime_ns = m.now_ns();
  InodePtr answer = put_back(m, std::move(inode));
  ODX_TRY(m.commit());
  return answer;
}

Result<std::vector<DirectoryEntry>> Names::list(InodeNo dir, std::uint64_t cookie,
                                                std::size_t limit) {
  const InodePtr directory = ODX_TRY(core_.inode(dir));
  if (!directory->is_directory()) {
    return fail(ENOTDIR);
  }
  return list_entries(*core_.meta, dir, cookie, limit);
}

Result<InodePtr> Names::change(InodeNo ino, const AttrChange& what) {
  Mutation m = ODX_TRY(Mutation::begin(core_));
  const Inode before = ODX_TRY(m.inode(ino));
  Inode inode = before;
  if (what.mode) {
    inode.mode = (inode.mode & S_IFMT) | (*what.mode & 07777U);
  }
  if (what.drop_set_id && !inode.is_directory()) {
    inode.mode &= ~(S_ISUID | ((inode.mode & S_IXGRP) != 0 ? S_ISGID : 0U));
  }
  inode.uid = what.uid.value_or(inode.uid);
  inode.gid = what.gid.value_or(inode.gid);
  inode.atime_ns = what.atime_ns.value_or(inode.atime_ns);
  inode.mtime_ns = what.mtime_ns.value_or(inode.mtime_ns);
  // Setting something to what it was is a change too; dropping bits that are not there is none.
  const bool changed = what.mode || what.uid || what.gid || what.atime_ns || what.mtime_ns ||
                       inode.mode != before.mode;
  if (!changed && !what.ctime_ns) {
    return std::make_shared<const Inode>(before);
  }
  if (!what.keep_ctime) {
    inode.ctime_ns = what.ctime_ns.value_or(m.now_ns());
  }
  InodePtr answer = put_back(m, std::move(inode));
  ODX_TRY(m.commit());
  return answer;
}

Result<void> Names::sync() { return core_.meta->wait_durable(core_.meta->committed()); }

}  // namespace odx
