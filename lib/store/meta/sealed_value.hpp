// How a value lies in LMDB: under a version byte and a checksum salted with its key, because LMDB
// has no checksums of its own. The table is in store/FORMAT.md.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace odx {

inline constexpr std::size_t kSealBytes = 5;

// Fills `out`, value.size() + kSealBytes long.
void seal_value(std::string_view key, std::string_view value, std::span<char> out);

// The value inside, a part of `sealed`; corruption if it is not what was stored under `key`.
Result<std::string_view> unseal_value(std::string_view key, std::string_view sealed);

}  // namespace odx
