// Losing names, and what becomes of an inode that has none left.
//
// An orphan keeps everything but its name until nobody uses it: the daemon says so by reap(), and
// after a crash or an unmount reap_all_orphans() does. What takes long to free is freed in steps
// of one transaction each; the Z record goes in the last one, so a crash in between only means
// that the next mount goes on.
#include <fmt/core.h>

#include <algorithm>

#include "base/log.hpp"
#include "store/inode/names.hpp"
#include "store/inode/names_steps.hpp"
#include "store/meta/keys.hpp"

namespace odx {

namespace {

constexpr std::size_t kXattrsPerStep = 32;  // values are read too: 2 MiB at most
constexpr std::size_t kOrphansPerScan = 256;

// Frees the inode, or a part of its attributes. True: nothing is left to do.
Result<bool> reap_step(Mutation& m, InodeNo ino) {
  if (!ODX_TRY(m.kv().get(keys::orphan(ino)))) {
    return true;  // it got a name, or somebody else was faster
  }
  Inode inode = ODX_TRY(m.inode(ino));
  if (inode.nlink != 0) {
    return corrupt(fmt::format("inode {} is an orphan but has links", ino.value()));
  }
  if (inode.xattr_count != 0) {
    const std::vector<KeyValue> xattrs = ODX_TRY(m.kv().scan(
        keys::xattr(ino, {}), keys::xattr(InodeNo(ino.value() + 1), {}), kXattrsPerStep));
    for (const KeyValue& xattr : xattrs) {
      m.kv().erase(xattr.key);
    }
    if (xattrs.size() == kXattrsPerStep) {
      inode.xattr_count -= std::min(inode.xattr_count, xattrs.size());
      m.put(std::move(inode));
      return false;
    }
  }
  ODX_TRY(m.trees().drop(std::move(inode.tree)));
  m.erase_inode(ino);
  m.kv().erase(keys::orphan(ino));
  return true;
}

// What unlink() and rmdir() do once they have agreed to the inode.
Result<InodePtr> remove_name(Mutation& m, InodeNo dir, const DirectoryEntry& entry) {
  remove_entry(m.kv(), dir, entry);
  InodePtr removed = ODX_TRY(lose_name(m, entry.ino));
  ODX_TRY(count_entries(m, dir, -1, removed->is_directory() ? -1 : 0));
  ODX_TRY(m.commit());
  return removed;
}

}  // namespace

void put_orphan(Mutation& m, InodeNo ino, OrphanKind kind) {
  m.kv().put(keys::orphan(ino), std::string(1, static_cast<char>(kind)));
}

Result<OrphanKind> decode_orphan(std::string_view value) {
  if (value.size() != 1 || static_cast<unsigned char>(value[0]) > 1) {
    return corrupt("malformed orphan record");
  }
  return static_cast<OrphanKind>(value[0]);
}

Result<InodePtr> lose_name(Mutation& m, InodeNo ino) {
  Inode inode = ODX_TRY(m.inode(ino));
  if (inode.nlink == 0) {
    return corrupt(fmt::format("inode {} has a name but no links", ino.value()));
  }
  inode.nlink = inode.is_directory() ? 0 : inode.nlink - 1;
  inode.ctime_ns = m.now_ns();
  if (inode.nlink == 0) {
    put_orphan(m, ino, OrphanKind::kRemoved);
  }
  return put_back(m, std::move(inode));
}

Result<InodePtr> Names::unlink(InodeNo dir, std::string_view name) {
  ODX_TRY(check_name(name));
  if (is_dots(name)) {
    return fail(EISDIR);
  }
  Mutation m = ODX_TRY(Mutation::begin(core_));
  ODX_TRY(get_directory(m, dir));
  const std::optional<DirectoryEntry> entry =
      ODX_TRY(find_entry(m.kv(), core_.super.uuid, dir, name));
  if (!entry) {
    return fail(ENOENT);
  }
  const Inode inode = ODX_TRY(get_named(m, dir, *entry));
  if (inode.is_directory()) {
    return fail(EISDIR);
  }
  return remove_name(m, dir, *entry);
}

Result<InodePtr> Names::rmdir(InodeNo dir, std::string_view name) {
  ODX_TRY(check_name(name));
  if (is_dots(name)) {
    return fail(name == "." ? EINVAL : ENOTEMPTY);
  }
  Mutation m = ODX_TRY(Mutation::begin(core_));
  ODX_TRY(get_directory(m, dir));
  const std::optional<DirectoryEntry> entry =
      ODX_TRY(find_entry(m.kv(), core_.super.uuid, dir, name));
  if (!entry) {
    return fail(ENOENT);
  }
  const Inode inode = ODX_TRY(get_named(m, dir, *entry));
  if (!inode.is_directory()) {
    return fail(ENOTDIR);
  }
  if (inode.entry_count != 0) {
    return fail(ENOTEMPTY);
  }
  return remove_name(m, dir, *entry);
}

Result<void> Names::reap(InodeNo ino) {
  // Most inodes that the kernel forgets have names; they need no transaction.
  const Result<InodePtr> inode = core_.inode(ino);
  if (!inode) {
    return inode.error().errno_value() == ENOENT ? Result<void>{} : std::unexpected(inode.error());
  }
  if ((*inode)->nlink != 0) {
    return {};
  }
  for (bool done = false; !done;) {
    Mutation m = ODX_TRY(Mutation::begin(core_));
    done = ODX_TRY(reap_step(m, ino));
    ODX_TRY(m.commit());
  }
  return {};
}

Result<void> Names::reap_all_orphans() {
  std::string from = keys::table_begin(keys::kOrphan);
  for (;;) {
    const std::vector<KeyValue> orphans =
        ODX_TRY(core_.meta->scan(from, keys::table_end(keys::kOrphan), kOrphansPerScan));
    for (const KeyValue& orphan : orphans) {
      const InodeNo ino(keys::number_of(orphan.key));
      const Result<void> reaped = reap(ino);
      if (!reaped && !reaped.error().is_corruption()) {
        return reaped;
      }
      if (!reaped) {  // one damaged record is no reason to refuse the whole store
        log::error("orphan inode {} stays: {}", ino.value(), reaped.error().message());
      }
    }
    if (orphans.size() < kOrphansPerScan) {
      return {};
    }
    from = orphans.back().key + '\0';
  }
}

}  // namespace odx
