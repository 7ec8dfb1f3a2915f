#include "reply.hpp"

#include <sys/uio.h>

#include <new>
#include <system_error>

#include "base/log.hpp"

namespace odx::daemon {

thread_local int ReplyDevice::fd_ = -1;

int errno_of(const Error& error, std::string_view operation, InodeNo ino) {
  int value = error.errno_value();
  if (value == ENOSYS) {
    value = EOPNOTSUPP;
  }
  if (value <= 0 || value >= 1000) {  // the kernel takes nothing else
    value = EIO;
  }
  if (value == EIO) {
    try {
      log::error("{} of inode {}: {} ({}:{})", operation, ino.value(), error.message(),
                 error.where().file_name(), error.where().line());
    } catch (const std::bad_alloc&) {
      // The caller gets the error all the same.
    }
  }
  return value;
}

Error error_of(const std::exception& exception) {
  if (dynamic_cast<const std::bad_alloc*>(&exception) != nullptr) {
    return Error(ENOMEM);
  }
  try {
    if (const auto* error = dynamic_cast<const std::system_error*>(&exception)) {
      return Error(error->code().value(), "cannot start a thread");  // what else throws these
    }
    return Error(EIO, exception.what());
  } catch (const std::bad_alloc&) {
    return Error(EIO);
  }
}

bool RawRequest::reply(std::span<const std::byte> data) { return send(0, data); }

void RawRequest::reply_error(int errno_value) { send(-errno_value, {}); }

bool RawRequest::send(int error, std::span<const std::byte> data) {
  fuse_out_header out{};
  out.len = static_cast<std::uint32_t>(sizeof out + data.size());
  out.error = error;
  out.unique = header().unique;
  iovec parts[2] = {{&out, sizeof out}, {const_cast<std::byte*>(data.data()), data.size()}};
  return ::writev(ReplyDevice::current(), parts, data.empty() ? 1 : 2) >= 0;
}

}  // namespace odx::daemon
