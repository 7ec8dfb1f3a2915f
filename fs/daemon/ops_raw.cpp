// Which requests are served from the message itself.
#include "operations.hpp"

namespace odx::daemon {

namespace {

struct RawOperation {
  Result<void> (*handle)(Filesystem&, RawRequest&);
  std::string_view name;
};

RawOperation raw_operation(std::uint32_t opcode) {
  switch (opcode) {
    case FUSE_READ:
      return {handle_read, "read"};
    case FUSE_WRITE:
      return {handle_write, "write"};
    case FUSE_OPEN:
      return {handle_open, "open"};
    case FUSE_SETATTR:
      return {handle_setattr, "setattr"};
    case FUSE_SETXATTR:
      return {handle_setxattr, "setxattr"};
    case FUSE_COPY_FILE_RANGE:
    case abi::kOpCopyFileRange64:
      return {handle_copy_file_range, "copy_file_range"};
    case FUSE_SYNCFS:
      return {handle_syncfs, "syncfs"};
    case FUSE_TMPFILE:
      return {handle_tmpfile, "tmpfile"};
    case abi::kOpStatx:
      return {handle_statx, "statx"};
    default:
      return {nullptr, {}};
  }
}

}  // namespace

bool serve_raw(Filesystem& fs, RawRequest& request) {
  const RawOperation operation = raw_operation(request.header().opcode);
  if (operation.handle == nullptr) {
    return false;
  }
  const Result<void> done = guarded([&] { return operation.handle(fs, request); });
  if (!done) {
    request.reply_error(errno_of(done.error(), operation.name, request.ino()));
  }
  return true;
}

}  // namespace odx::daemon
