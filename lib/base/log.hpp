// The log of the daemon and the store: lines for the administrator, on stderr or in syslog. Any
// thread may write at any time; where it goes is chosen once, before there are threads.
//
// Only log.cpp sees spdlog and instantiates its formatting: that costs seconds for every file that
// does.
#pragma once

#include <fmt/core.h>

#include <string>

namespace odx::log {

// Lines "PROGRAM: text" on stderr.
void to_stderr(const std::string& program);

void to_syslog(const std::string& program);

enum class Level { kInfo, kWarning, kError };

void write(Level level, fmt::string_view format, fmt::format_args arguments);

template <class... T>
void info(fmt::format_string<T...> format, T&&... arguments) {
  write(Level::kInfo, format, fmt::make_format_args(arguments...));
}

template <class... T>
void warn(fmt::format_string<T...> format, T&&... arguments) {
  write(Level::kWarning, format, fmt::make_format_args(arguments...));
}

template <class... T>
void error(fmt::format_string<T...> format, T&&... arguments) {
  write(Level::kError, format, fmt::make_format_args(arguments...));
}

}  // namespace odx::log
