// LOOKUP, FORGET, GETATTR, STATX, READLINK, STATFS.
#include <sys/statvfs.h>

#include "attributes.hpp"
#include "operations.hpp"

namespace odx::daemon {

namespace {

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  serve(req, "lookup", InodeNo(parent), [&]() -> Result<void> {
    Filesystem& fs = filesystem_of(req);
    // "." is the kernel's question for an inode of which it has no more than a file handle. It has
    // none that is in use, so one without a name is only waiting to be forgotten.
    const bool by_handle = std::string_view(name) == ".";
    const Result<InodePtr> inode = by_handle ? fs.store.names().get(InodeNo(parent))
                                             : fs.store.names().lookup(InodeNo(parent), name);
    if (inode && by_handle && (*inode)->nlink == 0) {
      return fail(ESTALE);
    }
    if (inode) {
      reply_entry(fs, req, **inode);
      return {};
    }
    if (inode.error().errno_value() != ENOENT) {
      return std::unexpected(inode.error());
    }
    fuse_entry_out nothing{};  // inode 0: the kernel remembers that there is none
    nothing.entry_valid = kCacheSeconds;
    reply_struct(req, nothing);
    return {};
  });
}

void forget(fuse_req_t req, fuse_ino_t ino, std::uint64_t count) {
  filesystem_of(req).forget(InodeNo(ino), count);
  ::fuse_reply_none(req);
}

void forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  Filesystem& fs = filesystem_of(req);
  for (size_t i = 0; i < count; ++i) {
    fs.forget(InodeNo(forgets[i].ino), forgets[i].nlookup);
  }
  ::fuse_reply_none(req);
}

void getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info* /*file*/) {
  serve(req, "getattr", InodeNo(ino), [&]() -> Result<void> {
    const InodePtr inode = ODX_TRY(filesystem_of(req).store.names().get(InodeNo(ino)));
    fuse_attr_out out{};
    out.attr_valid = kCacheSeconds;
    out.attr = to_fuse_attr(*inode);
    reply_struct(req, out);
    return {};
  });
}

void readlink(fuse_req_t req, fuse_ino_t ino) {
  serve(req, "readlink", InodeNo(ino), [&]() -> Result<void> {
    const InodePtr inode = ODX_TRY(filesystem_of(req).store.names().get(InodeNo(ino)));
    if (!inode->is_symlink()) {
      return fail(EINVAL);
    }
    ::fuse_reply_readlink(req, inode->symlink_target.c_str());
    return {};
  });
}

void statfs(fuse_req_t req, fuse_ino_t ino) {
  serve(req, "statfs", InodeNo(ino), [&]() -> Result<void> {
    const Core::Capacity capacity = filesystem_of(req).store.core().capacity();
    struct statvfs out {};
    out.f_bsize = kBlockBytes;
    out.f_frsize = kBlockBytes;
    out.f_blocks = capacity.total_bytes / kBlockBytes;
    out.f_bfree = capacity.free_bytes / kBlockBytes;
    out.f_bavail = out.f_bfree;
    // Inodes take no room of their own kind; there can be as many as there are blocks, at least.
    out.f_files = out.f_blocks;
    out.f_ffree = out.f_bfree;
    out.f_namemax = kMaxNameBytes;
    ::fuse_reply_statfs(req, &out);
    return {};
  });
}

}  // namespace

void add_lookup_operations(fuse_lowlevel_ops& ops) {
  ops.lookup = lookup;
  ops.forget = forget;
  ops.forget_multi = forget_multi;
  ops.getattr = getattr;
  ops.readlink = readlink;
  ops.statfs = statfs;
}

void reply_entry(Filesystem& fs, fuse_req_t req, const Inode& inode) {
  const InodeNo ino = inode.ino;
  const fuse_entry_out entry = to_entry(inode);
  fs.inodes.add_lookups(ino);
  if (!reply_struct(req, entry)) {
    fs.forget(ino, 1);
  }
}

Result<void> handle_statx(Filesystem& fs, RawRequest& request) {
  const InodePtr inode = ODX_TRY(fs.store.names().get(request.ino()));
  abi::StatxOut out{};
  out.attr_valid = kCacheSeconds;
  out.stat = to_statx(*inode);
  request.reply_struct(out);
  return {};
}

}  // namespace odx::daemon
