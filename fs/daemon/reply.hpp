// How requests are answered: by libfuse for most, raw for those that libfuse 3.14 does not know,
// drops a field of, or would be too slow for.
#pragma once

#include "fuse_lowlevel.hpp"

#include <exception>
#include <span>
#include <string_view>

#include "base/aligned_buffer.hpp"
#include "base/result.hpp"
#include "base/types.hpp"
#include "fuse_abi.hpp"

namespace odx::daemon {

// The device that this thread's replies go to. The kernel looks a reply's request up among those
// that were read from the very descriptor the reply is written to, so whoever answers later, on
// another thread, takes the descriptor along.
class ReplyDevice {
 public:
  [[nodiscard]] static int current() { return fd_; }
  static void use(int fd) { fd_ = fd; }

 private:
  static thread_local int fd_;
};

// The errno to answer with. Logs what a person should know of: corruption and failing I/O. Never
// ENOSYS, from which the kernel would learn never to ask again.
[[nodiscard]] int errno_of(const Error& error, std::string_view operation, InodeNo ino);

// As Result, but what libraries throw becomes EIO (or ENOMEM).
[[nodiscard]] Error error_of(const std::exception& exception);

template <class Body>
[[nodiscard]] Result<void> guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const std::exception& e) {
    return std::unexpected(error_of(e));
  }
}

// Serves a request of libfuse's: `body` replies as its last step and answers with success, or
// answers with the error to reply with.
template <class Body>
void serve(fuse_req_t req, std::string_view operation, InodeNo ino, Body&& body) noexcept {
  const Result<void> done = guarded(body);
  if (!done) {
    ::fuse_reply_err(req, errno_of(done.error(), operation, ino));
  }
}

template <class T>
bool reply_struct(fuse_req_t req, const T& value) {
  return ::fuse_reply_buf(req, reinterpret_cast<const char*>(&value), sizeof value) == 0;
}

// A request as it came from the device. Answered exactly once, on the thread that received it.
class RawRequest {
 public:
  // `message` is the whole request, header included; `scratch` takes the data of READ replies.
  RawRequest(std::span<const std::byte> message, AlignedBuffer& scratch)
      : message_(message), scratch_(scratch) {}

  [[nodiscard]] const fuse_in_header& header() const {
    return *reinterpret_cast<const fuse_in_header*>(message_.data());
  }
  [[nodiscard]] InodeNo ino() const { return InodeNo(header().nodeid); }
  [[nodiscard]] std::span<const std::byte> body() const {
    return message_.subspan(sizeof(fuse_in_header));
  }
  // The structure that the body starts with; what follows it is put in `rest`. EINVAL if the body
  // is too short.
  template <class T>
  Result<const T*> argument(std::span<const std::byte>* rest = nullptr) const {
    if (body().size() < sizeof(T)) {
      return fail(EINVAL, "short request");
    }
    if (rest != nullptr) {
      *rest = body().subspan(sizeof(T));
    }
    return reinterpret_cast<const T*>(body().data());
  }
  [[nodiscard]] AlignedBuffer& scratch() { return scratch_; }

  // False if the kernel did not take the answer: nobody waits for it any more.
  bool reply(std::span<const std::byte> data);
  bool reply_empty() { return reply({}); }
  template <class T>
  bool reply_struct(const T& value) {
    return reply(std::as_bytes(std::span(&value, 1)));
  }
  void reply_error(int errno_value);

 private:
  bool send(int error, std::span<const std::byte> data);
  std::span<const std::byte> message_;
  AlignedBuffer& scratch_;
};

}  // namespace odx::daemon
