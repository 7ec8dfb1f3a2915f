// MKNOD, MKDIR, SYMLINK, CREATE, TMPFILE, LINK, UNLINK, RMDIR, RENAME.
#include <fcntl.h>
#include <linux/fs.h>
#include <spdlog/spdlog.h>

#include "acl.hpp"
#include "attributes.hpp"
#include "operations.hpp"

namespace odx::daemon {

namespace {

Result<std::optional<Acl>> default_acl(Filesystem& fs, InodeNo dir) {
  const Result<std::string> stored = fs.store.names().xattr(dir, kDefaultAcl);
  if (!stored) {
    if (stored.error().errno_value() == ENODATA) {
      return std::nullopt;
    }
    return std::unexpected(stored.error());
  }
  return Acl::decode(*stored);
}

Result<InodePtr> make(Filesystem& fs, InodeNo dir, std::string_view name, const NewInode& what) {
  return name.empty() ? fs.store.names().create_unnamed(what, dir)
                      : fs.store.names().create(dir, name, what);
}

// Gives a new inode its access lists, and only then the permissions for others than its owner.
Result<InodePtr> dress(Filesystem& fs, const Inode& inode, const Acl& inherited,
                       const Acl& access) {
  Names& names = fs.store.names();
  if (inode.is_directory()) {
    ODX_TRY(names.set_xattr(inode.ino, kDefaultAcl, inherited.encode(), Names::XattrMode::kAny));
  }
  if (!access.is_trivial()) {
    ODX_TRY(names.set_xattr(inode.ino, kAccessAcl, access.encode(), Names::XattrMode::kAny));
  }
  AttrChange change;
  change.mode = (inode.mode & 07000U) | access.permissions();
  return names.change(inode.ino, change);
}

NewInode new_inode(fuse_req_t req, std::uint32_t mode) {
  const fuse_ctx* caller = ::fuse_req_ctx(req);
  NewInode what;
  what.mode = mode;
  what.uid = caller->uid;
  what.gid = caller->gid;
  return what;
}

void mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  serve(req, "mknod", InodeNo(parent), [&]() -> Result<void> {
    Filesystem& fs = filesystem_of(req);
    NewInode what = new_inode(req, mode);
    what.rdev = static_cast<std::uint32_t>(rdev);
    const InodePtr inode =
        ODX_TRY(create_inode(fs, InodeNo(parent), name, what, ::fuse_req_ctx(req)->umask));
    reply_entry(fs, req, *inode);
    return {};
  });
}

void mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  mknod(req, parent, name, (mode & 07777U) | S_IFDIR, 0);
}

void symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  serve(req, "symlink", InodeNo(parent), [&]() -> Result<void> {
    Filesystem& fs = filesystem_of(req);
    NewInode what = new_inode(req, S_IFLNK | 0777);
    what.symlink_target = target;
    const InodePtr inode = ODX_TRY(fs.store.names().create(InodeNo(parent), name, what));
    reply_entry(fs, req, *inode);
    return {};
  });
}

// Somebody may have made the file since the kernel looked (through NFS, say).
Result<InodePtr> open_existing(Filesystem& fs, InodeNo dir, std::string_view name, int flags) {
  InodePtr inode = ODX_TRY(fs.store.names().lookup(dir, name));
  if ((flags & O_EXCL) != 0 || !inode->is_regular()) {
    return fail(EEXIST);
  }
  if ((flags & O_TRUNC) != 0) {
    inode = ODX_TRY(fs.store.files().truncate(inode->ino, 0));
  }
  return inode;
}

void create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* file) {
  serve(req, "create", InodeNo(parent), [&]() -> Result<void> {
    Filesystem& fs = filesystem_of(req);
    Result<InodePtr> inode =
        create_inode(fs, InodeNo(parent), name, new_inode(req, mode), ::fuse_req_ctx(req)->umask);
    if (!inode && inode.error().errno_value() == EEXIST) {
      inode = open_existing(fs, InodeNo(parent), name, file->flags);
    }
    if (!inode) {
      return std::unexpected(inode.error());
    }
    const InodeNo ino = (*inode)->ino;
    const auto flags = static_cast<std::uint32_t>(file->flags);
    fs.inodes.add_lookups(ino);
    const CreatedAndOpened out{to_entry(**inode), count_open(fs, ino, flags)};
    if (!reply_struct(req, out)) {
      fs.released(ino, opens_for_writing(flags));
      fs.forget(ino, 1);
    }
    return {};
  });
}

void link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char* new_name) {
  serve(req, "link", InodeNo(ino), [&]() -> Result<void> {
    Filesystem& fs = filesystem_of(req);
    const InodePtr inode =
        ODX_TRY(fs.store.names().link(InodeNo(ino), InodeNo(new_parent), new_name));
    reply_entry(fs, req, *inode);
    return {};
  });
}

void unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  serve(req, "unlink", InodeNo(parent), [&]() -> Result<void> {
    Filesystem& fs = filesystem_of(req);
    const InodePtr inode = ODX_TRY(fs.store.names().unlink(InodeNo(parent), name));
    fs.lost_name(*inode);
    ::fuse_reply_err(req, 0);
    return {};
  });
}

void rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  serve(req, "rmdir", InodeNo(parent), [&]() -> Result<void> {
    Filesystem& fs = filesystem_of(req);
    const InodePtr inode = ODX_TRY(fs.store.names().rmdir(InodeNo(parent), name));
    fs.lost_name(*inode);
    ::fuse_reply_err(req, 0);
    return {};
  });
}

void rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned int flags) {
  serve(req, "rename", InodeNo(parent), [&]() -> Result<void> {
    RenameMode mode = RenameMode::kReplace;
    switch (flags & ~unsigned{RENAME_WHITEOUT}) {
      case 0:
        break;
      case RENAME_NOREPLACE:
        mode = RenameMode::kNoReplace;
        break;
      case RENAME_EXCHANGE:
        mode = RenameMode::kExchange;
        break;
      default:
        return fail(EINVAL);
    }
    Filesystem& fs = filesystem_of(req);
    // What overlayfs takes for "deleted": device 0:0.
    const NewInode whiteout = new_inode(req, S_IFCHR);
    const InodePtr replaced =
        ODX_TRY(fs.store.names().rename(InodeNo(parent), name, InodeNo(new_parent), new_name, mode,
                                        (flags & RENAME_WHITEOUT) != 0 ? &whiteout : nullptr));
    if (replaced != nullptr) {
      fs.lost_name(*replaced);
    }
    ::fuse_reply_err(req, 0);
    return {};
  });
}

}  // namespace

void add_name_operations(fuse_lowlevel_ops& ops) {
  ops.mknod = mknod;
  ops.mkdir = mkdir;
  ops.symlink = symlink;
  ops.create = create;
  ops.link = link;
  ops.unlink = unlink;
  ops.rmdir = rmdir;
  ops.rename = rename;
}

Result<InodePtr> create_inode(Filesystem& fs, InodeNo dir, std::string_view name, NewInode what,
                              std::uint32_t umask) {
  const std::optional<Acl> inherited = ODX_TRY(default_acl(fs, dir));
  if (!inherited) {
    what.mode &= ~(umask & 0777U);
    return make(fs, dir, name, what);
  }
  const Acl access = inherited->inherited(what.mode);
  what.mode &= ~077U;
  const InodePtr inode = ODX_TRY(make(fs, dir, name, what));
  Result<InodePtr> dressed = dress(fs, *inode, *inherited, access);
  if (!dressed) {
    Names& names = fs.store.names();
    const Result<InodePtr> undone = name.empty()            ? Result<InodePtr>(inode)
                                    : inode->is_directory() ? names.rmdir(dir, name)
                                                            : names.unlink(dir, name);
    if (undone) {
      fs.lost_name(**undone);
    }
  }
  return dressed;
}

Result<void> handle_tmpfile(Filesystem& fs, RawRequest& request) {
  const fuse_create_in* in = ODX_TRY(request.argument<fuse_create_in>());
  NewInode what;
  what.mode = (in->mode & 07777U) | S_IFREG;
  what.uid = request.header().uid;
  what.gid = request.header().gid;
  const InodePtr inode = ODX_TRY(create_inode(fs, request.ino(), {}, what, in->umask));
  const InodeNo ino = inode->ino;
  const std::uint32_t flags = in->flags;
  fs.inodes.add_lookups(ino);
  fs.lost_name(*inode);
  const CreatedAndOpened out{to_entry(*inode), count_open(fs, ino, flags)};
  if (!request.reply_struct(out)) {
    fs.released(ino, opens_for_writing(flags));
    fs.forget(ino, 1);
  }
  return {};
}

}  // namespace odx::daemon
