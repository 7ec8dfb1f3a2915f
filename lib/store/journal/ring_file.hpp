// The file under the ring journal: durable writes and plain reads of whole blocks, by O_DIRECT
// where the host allows it and through the page cache where it does not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/aligned_buffer.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace odx {

class RingFile {
 public:
  // Creates the file with `bytes` zeros, durable on return. EEXIST if there is one.
  static Result<void> create(const std::string& path, std::uint64_t bytes);
  static Result<RingFile> open(const std::string& path, bool read_only);

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] bool direct() const { return direct_; }

  // `into`, `from` and `offset` are aligned to, and whole numbers of, blocks inside the file.
  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const;
  // Durable on return.
  Result<void> write(std::uint64_t offset, std::span<const std::byte> from) const;
  // Makes durable what an earlier process wrote and did not live to see durable.
  Result<void> sync() const;

 private:
  RingFile(Fd fd, std::uint64_t bytes, bool direct)
      : fd_(std::move(fd)), bytes_(bytes), direct_(direct) {}

  Fd fd_;
  std::uint64_t bytes_;
  bool direct_;
};

// Reads runs of blocks of a RingFile front to back without one system call for each.
class RingReader {
 public:
  explicit RingReader(const RingFile& file) : file_(file) {}

  // The `bytes` at `offset`, whole blocks inside the ring. Valid until the next call.
  Result<std::span<const std::byte>> view(std::uint64_t offset, std::uint64_t bytes);

 private:
  const RingFile& file_;
  AlignedBuffer window_;
  std::uint64_t begin_ = 0;  // window_ holds [begin_, end_) of the ring
  std::uint64_t end_ = 0;
};

}  // namespace odx
