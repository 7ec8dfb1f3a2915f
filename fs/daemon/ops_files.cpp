// READ, WRITE, COPY_FILE_RANGE, OPEN, RELEASE, FSYNC, SYNCFS, FALLOCATE, LSEEK.
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>

#include "attributes.hpp"
#include "operations.hpp"

namespace odx::daemon {

namespace {

constexpr std::int64_t kRelativeAtimeAge = 24 * 3600 * kNsPerSecond;
constexpr std::uint32_t kSetIdBits = S_ISUID | S_ISGID;
// What a 32-bit answer can say, in whole pages.
constexpr std::uint64_t kMaxShortCopy = UINT32_MAX & ~(kBlockBytes - 1);

bool needs_new_access_time(const Filesystem& fs, const Inode& inode, std::int64_t now) {
  if (fs.store.core().read_only) {
    return false;
  }
  switch (fs.options.access_time) {
    case AccessTime::kNever:
      return false;
    case AccessTime::kStrict:
      return true;
    case AccessTime::kRelative:
      break;
  }
  return inode.atime_ns <= inode.mtime_ns || inode.atime_ns <= inode.ctime_ns ||
         now - inode.atime_ns >= kRelativeAtimeAge;
}

// The kernel never does it for FUSE. A failure is none of the reader's business.
void renew_access_time(Filesystem& fs, InodeNo ino) {
  const Result<InodePtr> inode = fs.store.names().get(ino);
  const std::int64_t now = fs.store.core().clock->now_ns();
  if (!inode || !needs_new_access_time(fs, **inode, now)) {
    return;
  }
  AttrChange change;
  change.atime_ns = now;
  change.keep_ctime = true;
  const Result<InodePtr> changed = fs.store.names().change(ino, change);
  if (!changed) {
    (void)errno_of(changed.error(), "access time", ino);
  }
}

// Changes of content that the kernel does not flag for the purpose end set-id bits unless root
// makes them. Before the change: no crash may leave them on foreign content.
Result<void> drop_privileges(Filesystem& fs, InodeNo ino, std::uint32_t uid) {
  const InodePtr inode = ODX_TRY(fs.store.names().get(ino));
  ODX_TRY(drop_capability(fs, *inode));
  if (uid != 0 && (inode->mode & kSetIdBits) != 0) {
    AttrChange change;
    change.drop_set_id = true;
    ODX_TRY(fs.store.names().change(ino, change));
    fs.coherence.attributes_changed(ino);
  }
  return {};
}

void release(fuse_req_t req, fuse_ino_t ino, fuse_file_info* file) {
  filesystem_of(req).released(InodeNo(ino),
                              opens_for_writing(static_cast<std::uint32_t>(file->flags)));
  ::fuse_reply_err(req, 0);
}

void fsync(fuse_req_t req, fuse_ino_t ino, int /*datasync*/, fuse_file_info* /*file*/) {
  serve(req, "fsync", InodeNo(ino), [&]() -> Result<void> {
    ODX_TRY(filesystem_of(req).store.files().sync(InodeNo(ino)));
    ::fuse_reply_err(req, 0);
    return {};
  });
}

struct Allocation {
  Files::AllocateMode mode;
  bool keep_size;
};
Result<Allocation> allocation_of(int mode) {
  using enum Files::AllocateMode;
  switch (mode) {
    case 0:
      return Allocation{kReserve, false};
    case FALLOC_FL_KEEP_SIZE:
      return Allocation{kReserve, true};
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
      return Allocation{kPunchHole, true};
    case FALLOC_FL_ZERO_RANGE:
      return Allocation{kZeroRange, false};
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
      return Allocation{kZeroRange, true};
    case FALLOC_FL_COLLAPSE_RANGE:
      return Allocation{kCollapse, false};
    case FALLOC_FL_INSERT_RANGE:
      return Allocation{kInsert, false};
    default:
      return fail(EOPNOTSUPP);
  }
}

void fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
               fuse_file_info* /*file*/) {
  serve(req, "fallocate", InodeNo(ino), [&]() -> Result<void> {
    Filesystem& fs = filesystem_of(req);
    const Allocation what = ODX_TRY(allocation_of(mode));
    if (offset < 0 || length <= 0) {
      return fail(EINVAL);
    }
    ODX_TRY(drop_privileges(fs, InodeNo(ino), ::fuse_req_ctx(req)->uid));
    ODX_TRY(fs.store.files().allocate(
        InodeNo(ino), what.mode, what.keep_size, FileOffset(static_cast<std::uint64_t>(offset)),
        static_cast<std::uint64_t>(length), how_to_change(fs, false)));
    ::fuse_reply_err(req, 0);
    return {};
  });
}

Result<void> seek(fuse_req_t req, InodeNo ino, off_t offset, int whence) {
  if (offset < 0) {
    return fail(ENXIO);
  }
  const FileOffset from(static_cast<std::uint64_t>(offset));
  Files& files = filesystem_of(req).store.files();
  const FileOffset found = whence == SEEK_DATA ? ODX_TRY(files.seek_data(ino, from))
                                               : ODX_TRY(files.seek_hole(ino, from));
  ::fuse_reply_lseek(req, static_cast<off_t>(found.value()));
  return {};
}

void lseek(fuse_req_t req, fuse_ino_t number, off_t offset, int whence, fuse_file_info* /*file*/) {
  Filesystem& fs = filesystem_of(req);
  const InodeNo ino(number);
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    ::fuse_reply_err(req, EINVAL);
    return;
  }
  serve(req, "lseek", ino, [&]() -> Result<void> {
    if (!fs.coherence.may_be_dirty(ino)) {
      return seek(req, ino, offset, whence);
    }
    const bool taken = fs.seekers.submit([&fs, req, ino, offset, whence] {
      serve(req, "lseek", ino, [&]() -> Result<void> {
        ODX_TRY(fs.coherence.write_back(ino, Coherence::Caller::kSeek));
        return seek(req, ino, offset, whence);
      });
    });
    return taken ? Result<void>() : fail(ENODEV);
  });
}

}  // namespace

void add_file_operations(fuse_lowlevel_ops& ops) {
  // No flush: closing has nothing to do here (the kernel writes dirty pages back all the same), and
  // the ENOSYS that libfuse answers spares every later close a round trip.
  ops.release = release;
  ops.fsync = fsync;
  ops.fallocate = fallocate;
  ops.lseek = lseek;
}

Files::WriteOptions how_to_change(const Filesystem& fs, bool drop_set_id) {
  Files::WriteOptions how;
  how.drop_set_id = drop_set_id;
  how.keep_times = fs.options.writeback;
  return how;
}

fuse_open_out count_open(Filesystem& fs, InodeNo ino, std::uint32_t open_flags) {
  fs.inodes.opened(ino, opens_for_writing(open_flags));
  fuse_open_out out{};
  out.fh = open_flags;
  out.open_flags = FOPEN_KEEP_CACHE;
  return out;
}

Result<void> handle_open(Filesystem& fs, RawRequest& request) {
  const fuse_open_in* in = ODX_TRY(request.argument<fuse_open_in>());
  const InodeNo ino = request.ino();
  const InodePtr inode = ODX_TRY(fs.store.names().get(ino));
  if ((in->flags & O_TRUNC) != 0) {
    ODX_TRY(drop_capability(fs, *inode));
    ODX_TRY(fs.store.files().truncate(
        ino, 0, how_to_change(fs, (in->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0)));
  }
  const std::uint32_t flags = in->flags;
  if (!request.reply_struct(count_open(fs, ino, flags))) {
    fs.released(ino, opens_for_writing(flags));
  }
  return {};
}

Result<void> handle_read(Filesystem& fs, RawRequest& request) {
  const fuse_read_in* in = ODX_TRY(request.argument<fuse_read_in>());
  const std::span<std::byte> room =
      request.scratch().span().first(std::min<std::size_t>(in->size, request.scratch().size()));
  const std::size_t n = ODX_TRY(fs.store.files().read(request.ino(), FileOffset(in->offset), room));
  renew_access_time(fs, request.ino());
  request.reply(room.first(n));
  return {};
}

Result<void> handle_write(Filesystem& fs, RawRequest& request) {
  std::span<const std::byte> data;
  const fuse_write_in* in = ODX_TRY(request.argument<fuse_write_in>(&data));
  if (data.size() < in->size) {
    return fail(EINVAL, "short write request");
  }
  const InodeNo ino = request.ino();
  const Files::WriteOptions how =
      how_to_change(fs, (in->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0);
  const InodePtr before = ODX_TRY(fs.store.names().get(ino));
  ODX_TRY(drop_capability(fs, *before));
  const Result<void> written =
      fs.store.files().write(ino, FileOffset(in->offset), data.first(in->size), how);
  if (!written) {
    if ((in->write_flags & FUSE_WRITE_CACHE) != 0) {
      fs.inodes.write_back_failed(ino, errno_of(written.error(), "write", ino));
    }
    return written;
  }
  if (how.drop_set_id && (before->mode & kSetIdBits) != 0) {
    fs.coherence.attributes_changed(ino);
  }
  fuse_write_out out{};
  out.size = in->size;
  request.reply_struct(out);
  return {};
}

Result<void> handle_copy_file_range(Filesystem& fs, RawRequest& request) {
  const fuse_copy_file_range_in* in = ODX_TRY(request.argument<fuse_copy_file_range_in>());
  if (in->flags != 0) {
    return fail(EINVAL);
  }
  const bool wide = request.header().opcode == abi::kOpCopyFileRange64;
  const InodeNo to(in->nodeid_out);
  ODX_TRY(drop_privileges(fs, to, request.header().uid));
  const Files::Copied copied = ODX_TRY(fs.store.files().copy_range(
      request.ino(), FileOffset(in->off_in), to, FileOffset(in->off_out),
      wide ? in->len : std::min(in->len, kMaxShortCopy), how_to_change(fs, false)));
  if ((in->fh_out & O_DSYNC) != 0 && copied.bytes != 0) {  // count_open() put the flags there
    ODX_TRY(fs.store.files().sync(to));
  }
  if (wide) {
    request.reply_struct(abi::CopyFileRangeOut{copied.bytes});
  } else {
    fuse_write_out out{};
    out.size = static_cast<std::uint32_t>(copied.bytes);
    request.reply_struct(out);
  }
  return {};
}

Result<void> handle_syncfs(Filesystem& fs, RawRequest& request) {
  ODX_TRY(fs.store.names().sync());
  request.reply_empty();
  return {};
}

}  // namespace odx::daemon
