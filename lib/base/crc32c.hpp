// CRC-32C (Castagnoli), by ISA-L.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace odx {

// Continues from `seed`, so that crc32c(b, n, crc32c(a, m)) is the sum of a followed by b.
[[nodiscard]] std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t seed = 0);
[[nodiscard]] inline std::uint32_t crc32c(std::string_view data, std::uint32_t seed = 0) {
  return crc32c(data.data(), data.size(), seed);
}

}  // namespace odx
