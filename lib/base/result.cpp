#include "base/result.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace odx {

std::string Error::message() const {
  const char* text = ::strerrordesc_np(errno_);
  std::string reason = text != nullptr ? text : "unknown error";
  if (detail_.empty()) {
    return reason;
  }
  return corruption_ ? detail_ : detail_ + ": " + reason;
}

void check_failed(const char* condition, const std::source_location& where) {
  std::fprintf(stderr, "odxfs: invariant broken: %s at %s:%u\n", condition, where.file_name(),
               where.line());
  std::abort();
}

}  // namespace odx
