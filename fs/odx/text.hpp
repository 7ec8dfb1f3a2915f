// Numbers and names to and from text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "odx/odx.h"

namespace odx::cli {

// Decimal digits only; empty if it is anything else or does not fit.
[[nodiscard]] std::optional<std::uint64_t> parse_number(std::string_view text);

// A decimal number of bytes, optionally with a suffix K, M, G, T, P or E (either case, "iB" may
// follow): powers of 1024. Empty if it is anything else or does not fit.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);

// "512 B", "1.5 KiB", "2.0 GiB".
[[nodiscard]] std::string size_text(std::uint64_t bytes);

// "0:07", "12:34", "1:02:03".
[[nodiscard]] std::string duration_text(std::uint64_t seconds);

[[nodiscard]] std::string hex(std::span<const std::uint8_t> bytes);
// Fills `bytes` from exactly two hex digits for each; false if `text` is anything else.
[[nodiscard]] bool parse_hex(std::string_view text, std::span<std::uint8_t> bytes);

// "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
[[nodiscard]] std::string uuid_text(std::span<const std::uint8_t, 16> uuid);

// How a control ended: "errno" (0: well), and of its last call "status" and "reason" by name.
void add_outcome(nlohmann::ordered_json& json, int error, const odx_result& result);

// The bar of a copy in at most `width` columns:
// " 45% [####      ] 1.2 GiB of 2.7 GiB, 350.0 MiB/s, 0:04 left". Nothing of it needs more than one
// line; rate and time come when there is enough to judge by.
[[nodiscard]] std::string progress_line(std::uint64_t done, std::uint64_t total,
                                        double elapsed_seconds, std::size_t width);

}  // namespace odx::cli
