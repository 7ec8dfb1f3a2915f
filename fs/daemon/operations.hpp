// The request handlers. Each family fills in its part of libfuse's table; raw requests are served
// from the message itself, by functions that reply as their last step or answer with the error.
#pragma once

#include "filesystem.hpp"
#include "reply.hpp"

namespace odx::daemon {

void add_lookup_operations(fuse_lowlevel_ops& ops);     // lookup, forget, getattr, readlink, statfs
void add_name_operations(fuse_lowlevel_ops& ops);       // everything that makes or moves names
void add_file_operations(fuse_lowlevel_ops& ops);       // release, fsync, fallocate, lseek
void add_directory_operations(fuse_lowlevel_ops& ops);  // listing
void add_xattr_operations(fuse_lowlevel_ops& ops);      // all but setxattr
void add_ioctl_operation(fuse_lowlevel_ops& ops);

// False if libfuse is to serve it.
bool serve_raw(Filesystem& fs, RawRequest& request);

Result<void> handle_read(Filesystem& fs, RawRequest& request);
Result<void> handle_write(Filesystem& fs, RawRequest& request);
Result<void> handle_copy_file_range(Filesystem& fs, RawRequest& request);  // both opcodes
Result<void> handle_open(Filesystem& fs, RawRequest& request);
Result<void> handle_syncfs(Filesystem& fs, RawRequest& request);
Result<void> handle_tmpfile(Filesystem& fs, RawRequest& request);
Result<void> handle_setattr(Filesystem& fs, RawRequest& request);
Result<void> handle_statx(Filesystem& fs, RawRequest& request);
Result<void> handle_setxattr(Filesystem& fs, RawRequest& request);

[[nodiscard]] inline Filesystem& filesystem_of(fuse_req_t req) {
  return *static_cast<Filesystem*>(::fuse_req_userdata(req));
}

// Replies with an inode that the kernel then knows; takes the look-up back if nobody waits for it.
void reply_entry(Filesystem& fs, fuse_req_t req, const Inode& inode);

// The reply to whatever makes a file and opens it.
struct CreatedAndOpened {
  fuse_entry_out entry;
  fuse_open_out open;
};
static_assert(sizeof(CreatedAndOpened) == sizeof(fuse_entry_out) + sizeof(fuse_open_out));

// Counts the open and says what the kernel may do with it. Handles have no state here: `fh` repeats
// the flags of the open, for the access checks of the ioctls. (Pages come back through any handle
// that is open for writing, and are read for writes through handles that are not open for reading.)
[[nodiscard]] fuse_open_out count_open(Filesystem& fs, InodeNo ino, std::uint32_t open_flags);

// For changes of content. In write-back mode the kernel keeps a file's times, for writes around its
// cache too, and sends them when it thinks fit: perhaps before the change itself, and not at all if
// they stay within one of its ticks. A time of ours would come on top of them, or never be seen
// before the next mount and then look like a modification.
[[nodiscard]] Files::WriteOptions how_to_change(const Filesystem& fs, bool drop_set_id);

// File capabilities do not survive a change of content or owner.
Result<void> drop_capability(Filesystem& fs, const Inode& inode);

// The access list that goes with `mode`, if the inode has one, is made to say the same.
Result<void> chmod_acl(Filesystem& fs, const Inode& inode, std::uint32_t mode);

// Makes an inode (in directory `dir` under `name`, or without a name if that is empty) with the
// umask applied, or the directory's default access list inherited instead.
Result<InodePtr> create_inode(Filesystem& fs, InodeNo dir, std::string_view name, NewInode what,
                              std::uint32_t umask);

}  // namespace odx::daemon
