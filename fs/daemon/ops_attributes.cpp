// SETATTR and SETXATTR (both raw: libfuse 3.14 drops a flag of the one, and does not know the
// longer form of the other), and the other xattr requests.
//
// FUSE_HANDLE_KILLPRIV_V2 makes it our duty that a file loses its set-id bits and its capability
// when its content or owner changes: by chown always, by truncation and writes when the kernel
// flags that the caller lacks CAP_FSETID; the capability always.
#include <sys/xattr.h>

#include "acl.hpp"
#include "attributes.hpp"
#include "operations.hpp"

namespace odx::daemon {

namespace {

constexpr std::string_view kCapability = "security.capability";
// Those of xattr(7) but for "system.", which is no free space.
constexpr std::string_view kNamespaces[] = {"user.", "trusted.", "security."};
constexpr std::string_view kSystem = "system.";
constexpr std::string_view kTrusted = "trusted.";

Result<void> none_is_fine(Result<void> result) {
  if (!result && result.error().errno_value() == ENODATA) {
    return {};
  }
  return result;
}

// The kernel caches what it is told of access lists together with the mode, so this is one change
// to it, though two transactions to the store.
Result<void> set_access_acl(Filesystem& fs, const Inode& inode, std::string_view value,
                            Names::XattrMode mode, bool drop_set_group_id) {
  const std::optional<Acl> acl = Acl::decode(value);
  if (!acl) {
    return fail(EINVAL);
  }
  Names& names = fs.store.names();
  if (acl->is_trivial()) {
    ODX_TRY(none_is_fine(names.remove_xattr(inode.ino, kAccessAcl)));
  } else {
    ODX_TRY(names.set_xattr(inode.ino, kAccessAcl, value, mode));
  }
  AttrChange change;
  change.mode = (inode.mode & (drop_set_group_id ? 05000U : 07000U)) | acl->permissions();
  ODX_TRY(names.change(inode.ino, change));
  return {};
}

Result<void> set_xattr(Filesystem& fs, InodeNo ino, std::string_view name, std::string_view value,
                       std::uint32_t flags, bool drop_set_group_id) {
  const Names::XattrMode mode = (flags & XATTR_CREATE) != 0    ? Names::XattrMode::kCreate
                                : (flags & XATTR_REPLACE) != 0 ? Names::XattrMode::kReplace
                                                               : Names::XattrMode::kAny;
  if (name.starts_with(kSystem)) {
    const InodePtr inode = ODX_TRY(fs.store.names().get(ino));
    if (name == kAccessAcl && !inode->is_symlink()) {
      return set_access_acl(fs, *inode, value, mode, drop_set_group_id);
    }
    if (name != kDefaultAcl || inode->is_symlink()) {
      return fail(EOPNOTSUPP);
    }
    if (!inode->is_directory()) {
      return fail(EACCES);
    }
    if (!Acl::decode(value)) {
      return fail(EINVAL);
    }
  } else if (std::ranges::none_of(kNamespaces, [name](std::string_view known) {
               return name.starts_with(known) && name.size() > known.size();
             })) {
    return fail(EOPNOTSUPP);
  }
  return fs.store.names().set_xattr(ino, name, value, mode);
}

AttrChange change_of(const fuse_setattr_in& in, const Inode& inode, std::int64_t now) {
  AttrChange change;
  if ((in.valid & FATTR_MODE) != 0) {
    change.mode = in.mode & 07777U;
  }
  if ((in.valid & FATTR_UID) != 0) {
    change.uid = in.uid;
  }
  if ((in.valid & FATTR_GID) != 0) {
    change.gid = in.gid;
  }
  change.drop_set_id =
      (change.uid || change.gid || (in.valid & FATTR_KILL_SUIDGID) != 0) && !inode.is_directory();
  if ((in.valid & FATTR_ATIME) != 0) {
    change.atime_ns = (in.valid & FATTR_ATIME_NOW) != 0 ? now : to_ns(in.atime, in.atimensec);
  }
  if ((in.valid & FATTR_MTIME) != 0) {
    change.mtime_ns = (in.valid & FATTR_MTIME_NOW) != 0 ? now : to_ns(in.mtime, in.mtimensec);
  }
  if ((in.valid & FATTR_CTIME) != 0) {
    change.ctime_ns = to_ns(in.ctime, in.ctimensec);
  }
  return change;
}

// Replies to a request for a value of which the caller may want to know the length only.
void reply_sized(fuse_req_t req, const std::string& value, size_t room) {
  if (room == 0) {
    ::fuse_reply_xattr(req, value.size());
  } else if (value.size() > room) {
    ::fuse_reply_err(req, ERANGE);
  } else {
    ::fuse_reply_buf(req, value.data(), value.size());
  }
}

void getxattr(fuse_req_t req, fuse_ino_t ino, const char* name, size_t size) {
  serve(req, "getxattr", InodeNo(ino), [&]() -> Result<void> {
    const std::string value = ODX_TRY(filesystem_of(req).store.names().xattr(InodeNo(ino), name));
    reply_sized(req, value, size);
    return {};
  });
}

void listxattr(fuse_req_t req, fuse_ino_t ino, size_t size) {
  serve(req, "listxattr", InodeNo(ino), [&]() -> Result<void> {
    const std::vector<std::string> names =
        ODX_TRY(filesystem_of(req).store.names().list_xattrs(InodeNo(ino)));
    const bool is_root = ::fuse_req_ctx(req)->uid == 0;
    std::string list;
    for (const std::string& name : names) {
      if (is_root || !name.starts_with(kTrusted)) {
        list.append(name).push_back('\0');
      }
    }
    if (list.size() > XATTR_LIST_MAX) {
      return fail(E2BIG);
    }
    reply_sized(req, list, size);
    return {};
  });
}

void removexattr(fuse_req_t req, fuse_ino_t ino, const char* name) {
  serve(req, "removexattr", InodeNo(ino), [&]() -> Result<void> {
    ODX_TRY(filesystem_of(req).store.names().remove_xattr(InodeNo(ino), name));
    ::fuse_reply_err(req, 0);
    return {};
  });
}

}  // namespace

void add_xattr_operations(fuse_lowlevel_ops& ops) {
  ops.getxattr = getxattr;
  ops.listxattr = listxattr;
  ops.removexattr = removexattr;
}

Result<void> drop_capability(Filesystem& fs, const Inode& inode) {
  if (inode.xattr_count == 0 || !inode.is_regular() ||
      !fs.store.names().xattr(inode.ino, kCapability)) {
    return {};
  }
  return none_is_fine(fs.store.names().remove_xattr(inode.ino, kCapability));
}

Result<void> chmod_acl(Filesystem& fs, const Inode& inode, std::uint32_t mode) {
  if (inode.xattr_count == 0 || inode.is_symlink()) {
    return {};
  }
  Names& names = fs.store.names();
  const Result<std::string> stored = names.xattr(inode.ino, kAccessAcl);
  if (!stored) {
    return stored.error().errno_value() == ENODATA ? Result<void>{}
                                                   : std::unexpected(stored.error());
  }
  const std::optional<Acl> acl = Acl::decode(*stored);
  if (!acl) {
    return corrupt("malformed access list");
  }
  return names.set_xattr(inode.ino, kAccessAcl, acl->with_permissions(mode).encode(),
                         Names::XattrMode::kAny);
}

Result<void> handle_setattr(Filesystem& fs, RawRequest& request) {
  const fuse_setattr_in in = *ODX_TRY(request.argument<fuse_setattr_in>());
  const InodeNo ino = request.ino();
  InodePtr inode = ODX_TRY(fs.store.names().get(ino));
  if ((in.valid & (FATTR_SIZE | FATTR_UID | FATTR_GID)) != 0) {
    ODX_TRY(drop_capability(fs, *inode));
  }
  if ((in.valid & FATTR_SIZE) != 0) {
    inode = ODX_TRY(fs.store.files().truncate(
        ino, in.size, how_to_change(fs, (in.valid & FATTR_KILL_SUIDGID) != 0)));
  }
  if ((in.valid & FATTR_MODE) != 0) {
    ODX_TRY(chmod_acl(fs, *inode, in.mode));
  }
  const AttrChange change = change_of(in, *inode, fs.store.core().clock->now_ns());
  constexpr std::uint32_t kInode = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_ATIME | FATTR_MTIME |
                                   FATTR_CTIME | FATTR_KILL_SUIDGID;
  if ((in.valid & kInode) != 0) {
    inode = ODX_TRY(fs.store.names().change(ino, change));
  }
  fuse_attr_out out{};
  out.attr_valid = kCacheSeconds;
  out.attr = to_fuse_attr(*inode);
  request.reply_struct(out);
  return {};
}

Result<void> handle_setxattr(Filesystem& fs, RawRequest& request) {
  const std::size_t head =
      fs.long_setxattr ? sizeof(fuse_setxattr_in) : std::size_t{FUSE_COMPAT_SETXATTR_IN_SIZE};
  if (request.body().size() < head) {
    return fail(EINVAL, "short request");
  }
  fuse_setxattr_in in{};
  std::memcpy(&in, request.body().data(), head);
  const std::span<const std::byte> rest = request.body().subspan(head);
  const std::string_view text(reinterpret_cast<const char*>(rest.data()), rest.size());
  const std::size_t end = text.find('\0');
  if (end == std::string_view::npos || text.size() - end - 1 < in.size) {
    return fail(EINVAL, "short request");
  }
  ODX_TRY(set_xattr(fs, request.ino(), text.substr(0, end), text.substr(end + 1, in.size), in.flags,
                    (in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0));
  request.reply_empty();
  return {};
}

}  // namespace odx::daemon
