// Fixed-width integers to and from bytes. Values are little-endian; keys are big-endian so that
// their byte order is their numeric order.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace odx {

static_assert(std::endian::native == std::endian::little, "big-endian hosts are not supported");

template <std::unsigned_integral T>
void put_le(std::string& out, T value) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof value);
  out.append(raw, sizeof raw);
}

template <std::unsigned_integral T>
void put_be(std::string& out, T value) {
  for (int shift = (sizeof(T) - 1) * 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xFF));
  }
}

template <std::unsigned_integral T>
[[nodiscard]] T load_le(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <std::unsigned_integral T>
[[nodiscard]] T load_be(const void* at) {
  const auto* bytes = static_cast<const unsigned char*>(at);
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value << 8 | bytes[i]);
  }
  return value;
}

// Reads a value front to back. Running off the end is remembered, not undefined: callers read
// everything and then ask finish().
class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : rest_(bytes) {}

  template <std::unsigned_integral T>
  T le() {
    const std::string_view raw = bytes(sizeof(T));
    return raw.size() == sizeof(T) ? load_le<T>(raw.data()) : T{0};
  }

  // The next `count` bytes, or an empty view (and a failed decoder) if fewer are left.
  std::string_view bytes(std::size_t count) {
    if (count > rest_.size()) {
      failed_ = true;
      rest_ = {};
      return {};
    }
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  [[nodiscard]] std::size_t remaining() const { return rest_.size(); }
  [[nodiscard]] bool failed() const { return failed_; }

  // Success only if every read succeeded and nothing is left over.
  [[nodiscard]] Result<void> finish(const char* what) const {
    if (failed_ || !rest_.empty()) {
      return corrupt(std::string("malformed ") + what);
    }
    return {};
  }

 private:
  std::string_view rest_;
  bool failed_ = false;
};

}  // namespace odx
