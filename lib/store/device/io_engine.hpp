// How reads, writes and flushes reach the kernel: in batches, by io_uring or by plain system calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.hpp"
#include "store/device/segment_device.hpp"

namespace odx {

// One transfer between memory and a file. Length at most 1 GiB. Descriptor and buffer belong to
// the caller and must stay until run() returns.
struct IoRequest {
  enum class Kind { kRead, kWrite };

  int fd = -1;
  Kind kind = Kind::kRead;
  std::uint64_t offset = 0;
  std::byte* buffer = nullptr;  // only read from when the kind is kWrite
  std::size_t length = 0;

  static IoRequest read(int fd, std::uint64_t offset, std::byte* into, std::size_t length) {
    return {fd, Kind::kRead, offset, into, length};
  }
  static IoRequest write(int fd, std::uint64_t offset, const std::byte* from, std::size_t length) {
    return {fd, Kind::kWrite, offset, const_cast<std::byte*>(from), length};
  }
};

// All calls may be made from any thread at once. When a call returns, with or without an error,
// the kernel no longer uses anything that was handed in.
class IoEngine {
 public:
  virtual ~IoEngine() = default;

  // Returns when all requests are done, whole: the rest of a short transfer is asked for again.
  // The first error that is seen is returned; requests not yet begun are then left out. EIO for a
  // read past the end of the file.
  virtual Result<void> run(std::span<const IoRequest> requests) = 0;

  // fdatasync on each descriptor. All are tried; the first error is returned.
  virtual Result<void> sync(std::span<const int> fds) = 0;

  // What it is: kSync may be the answer where kUring was asked for.
  [[nodiscard]] virtual IoEngineKind kind() const = 0;
};

// A single request is cheaper by a plain system call (README.md has the numbers).
inline constexpr std::size_t kLeastForRing = 2;

// Falls back to kSync where the kernel or a sandbox refuses io_uring. A kUring engine uses plain
// system calls for batches of fewer than `least_for_ring` requests.
std::unique_ptr<IoEngine> make_io_engine(IoEngineKind wanted,
                                         std::size_t least_for_ring = kLeastForRing);

}  // namespace odx
