#include "store/meta/sealed_value.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>

#include "base/codec.hpp"
#include "base/crc32c.hpp"

namespace odx {

namespace {

constexpr char kVersion = 1;

// The table that a key belongs to, for people.
std::string table_name(std::string_view key) {
  const auto byte = static_cast<unsigned char>(key.empty() ? 0 : key.front());
  return byte > ' ' && byte < 0x7F ? fmt::format("table {}", key.front())
                                   : fmt::format("table {:#04x}", byte);
}

}  // namespace

void seal_value(std::string_view key, std::string_view value, std::span<char> out) {
  ODX_CHECK(out.size() == value.size() + kSealBytes);
  out[0] = kVersion;
  std::memcpy(out.data() + 1, value.data(), value.size());
  const std::uint32_t crc = crc32c(value, crc32c(key));
  std::memcpy(out.data() + 1 + value.size(), &crc, sizeof crc);
}

Result<std::string_view> unseal_value(std::string_view key, std::string_view sealed) {
  if (sealed.size() < kSealBytes) {
    return corrupt("stored value too short in " + table_name(key));
  }
  const std::string_view value = sealed.substr(1, sealed.size() - kSealBytes);
  if (sealed.front() != kVersion) {
    return corrupt("stored value of an unknown version in " + table_name(key));
  }
  if (load_le<std::uint32_t>(value.data() + value.size()) != crc32c(value, crc32c(key))) {
    return corrupt("stored value fails its checksum in " + table_name(key));
  }
  return value;
}

}  // namespace odx
