// How every fallible function of the project answers: std::expected with an Error that carries an
// errno for the caller, a line of text for the log, and the place where it arose.
//
// Exceptions come only from libraries and are caught at the edge (FUSE dispatch, program mains).
#pragma once

#include <cerrno>
#include <expected>
#include <source_location>
#include <string>
#include <utility>

namespace odx {

class Error {
 public:
  explicit Error(int errno_value, std::string detail = {},
                 std::source_location where = std::source_location::current())
      : errno_(errno_value), detail_(std::move(detail)), where_(where) {}

  // Stored bytes contradict their checksum or format. Users see EIO; it is never retried.
  static Error corruption(std::string detail,
                          std::source_location where = std::source_location::current()) {
    Error e(EIO, std::move(detail), where);
    e.corruption_ = true;
    return e;
  }

  [[nodiscard]] int errno_value() const { return errno_; }
  [[nodiscard]] bool is_corruption() const { return corruption_; }
  [[nodiscard]] const std::string& detail() const { return detail_; }
  [[nodiscard]] const std::source_location& where() const { return where_; }
  // "detail: strerror", or strerror alone when there is no detail.
  [[nodiscard]] std::string message() const;

 private:
  int errno_;
  bool corruption_ = false;
  std::string detail_;
  std::source_location where_;
};

template <class T = void>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> fail(
    int errno_value, std::string detail = {},
    std::source_location where = std::source_location::current()) {
  return std::unexpected(Error(errno_value, std::move(detail), where));
}

[[nodiscard]] inline std::unexpected<Error> corrupt(
    std::string detail, std::source_location where = std::source_location::current()) {
  return std::unexpected(Error::corruption(std::move(detail), where));
}

}  // namespace odx

// Evaluates to the value of a Result, or returns its Error from the enclosing function. May be
// nested; each use names its own variable.
#define ODX_TRY(expression) ODX_TRY_NAMED(ODX_TRY_JOIN(odx_try_, __COUNTER__), expression)
#define ODX_TRY_JOIN(a, b) ODX_TRY_JOIN_AGAIN(a, b)
#define ODX_TRY_JOIN_AGAIN(a, b) a##b
#define ODX_TRY_NAMED(result, expression)                \
  ({                                                     \
    auto&& result = (expression);                        \
    if (!result) {                                       \
      return std::unexpected(std::move(result).error()); \
    }                                                    \
    *std::move(result);                                  \
  })

// A broken invariant of ours (not of input, not of the disk) stops the process: going on would
// spread the damage. Stays on in release builds.
#define ODX_CHECK(condition) \
  ((condition) ? (void)0 : ::odx::check_failed(#condition, std::source_location::current()))

namespace odx {
[[noreturn]] void check_failed(const char* condition, const std::source_location& where);
}
