#include "copy_xattrs.hpp"

#include <linux/limits.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>

namespace odx::cli {

namespace {

// Calls `read(buffer, size)` with as much room as it takes. Nothing: it fails, see errno.
template <class Read>
std::optional<std::string> read_whole(const Read& read) {
  std::string buffer(256, '\0');
  for (;;) {
    const ssize_t n = read(buffer.data(), buffer.size());
    if (n >= 0) {
      buffer.resize(static_cast<std::size_t>(n));
      return buffer;
    }
    if (errno != ERANGE || buffer.size() > XATTR_SIZE_MAX) {
      return std::nullopt;
    }
    buffer.resize(buffer.size() * 4);
  }
}

bool cannot_be_had(int error) {
  return error == EOPNOTSUPP || error == EPERM || error == EACCES || error == ENODATA ||
         error == ENOSYS;
}

}  // namespace

Result<void> copy_xattrs(int from, int to) {
  const auto names =
      read_whole([&](char* at, std::size_t size) { return ::flistxattr(from, at, size); });
  if (!names) {
    return cannot_be_had(errno) ? Result<void>{} : fail(errno);
  }
  for (const char* name = names->c_str(); name < names->c_str() + names->size();
       name += std::strlen(name) + 1) {
    const auto value =
        read_whole([&](char* at, std::size_t size) { return ::fgetxattr(from, name, at, size); });
    if ((!value || ::fsetxattr(to, name, value->data(), value->size(), 0) != 0) &&
        !cannot_be_had(errno)) {
      return fail(errno);
    }
  }
  return {};
}

}  // namespace odx::cli
