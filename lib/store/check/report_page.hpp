// A long text handed out in pieces.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace odx::check {

// Copies what fits of `text` from byte `from` on. Answers how much.
template <std::size_t N>
std::uint32_t copy_page(std::string_view text, std::uint64_t from, char (&page)[N]) {
  const std::string_view rest = text.substr(std::min<std::uint64_t>(from, text.size()));
  return static_cast<std::uint32_t>(rest.copy(page, N));
}

}  // namespace odx::check
