#include "base/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>

namespace odx::log {
namespace {

spdlog::level::level_enum spdlog_level(Level level) {
  switch (level) {
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::critical;
}

}  // namespace

void to_stderr(const std::string& program) {
  auto logger = spdlog::stderr_logger_mt(program);
  logger->set_pattern(program + ": %v");
  spdlog::set_default_logger(logger);
}

void to_syslog(const std::string& program) {
  spdlog::set_default_logger(
      spdlog::syslog_logger_mt(program + "-syslog", program, LOG_PID, LOG_DAEMON));
}

void write(Level level, fmt::string_view format, fmt::format_args arguments) {
  spdlog::log(spdlog_level(level), fmt::vformat(format, arguments));
}

}  // namespace odx::log
