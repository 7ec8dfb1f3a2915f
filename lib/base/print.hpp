// Formatted output to a stream. fmt/ostream.h does the same, and makes every file that includes it
// compile fmt's whole formatter again.
#pragma once

#include <fmt/core.h>

#include <ostream>

namespace odx {

template <class... T>
void print(std::ostream& out, fmt::format_string<T...> format, T&&... arguments) {
  out << fmt::vformat(format, fmt::make_format_args(arguments...));
}

}  // namespace odx
