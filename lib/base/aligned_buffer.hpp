// Page-aligned memory for direct I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "base/types.hpp"

namespace odx {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Contents are undefined. `bytes` is rounded up to whole blocks.
  explicit AlignedBuffer(std::size_t bytes)
      : bytes_(round_up(bytes, kBlockBytes)),
        data_(static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, bytes_))) {
    if (data_ == nullptr && bytes_ != 0) {
      throw std::bad_alloc();
    }
  }

  [[nodiscard]] std::byte* data() { return data_.get(); }
  [[nodiscard]] const std::byte* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return bytes_; }
  [[nodiscard]] std::span<std::byte> span() { return {data_.get(), bytes_}; }

  // Makes room for at least `bytes`; what was inside is lost if it has to grow.
  void ensure(std::size_t bytes) {
    if (bytes > bytes_) {
      *this = AlignedBuffer(bytes);
    }
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::size_t bytes_ = 0;
  std::unique_ptr<std::byte, Free> data_;
};

}  // namespace odx
