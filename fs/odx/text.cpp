#include "text.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace odx::cli {

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc{} || end != text.end()) {
    return std::nullopt;
  }
  return value;
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc{}) {
    return std::nullopt;
  }
  const std::string_view suffix(end, text.end());
  if (suffix.empty()) {
    return value;
  }
  constexpr std::string_view kLetters = "KMGTPE";
  const char letter = static_cast<char>(suffix[0] & ~0x20);  // upper case
  const std::size_t power = kLetters.find(letter);
  if (power == std::string_view::npos || (suffix.size() != 1 && suffix.substr(1) != "iB")) {
    return std::nullopt;
  }
  const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
  if (value > UINT64_MAX >> shift) {
    return std::nullopt;
  }
  return value << shift;
}

std::string size_text(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) {
    return fmt::format("{} B", bytes);
  }
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string duration_text(std::uint64_t seconds) {
  if (seconds < 3600) {
    return fmt::format("{}:{:02}", seconds / 60, seconds % 60);
  }
  return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::uint8_t byte : bytes) {
    text += fmt::format("{:02x}", byte);
  }
  return text;
}

bool parse_hex(std::string_view text, std::span<std::uint8_t> bytes) {
  if (text.size() != bytes.size() * 2) {
    return false;
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::string_view pair = text.substr(i * 2, 2);
    const auto [end, error] = std::from_chars(pair.begin(), pair.end(), bytes[i], 16);
    if (error != std::errc{} || end != pair.end()) {
      return false;
    }
  }
  return true;
}

std::string uuid_text(std::span<const std::uint8_t, 16> uuid) {
  const std::string digits = hex(uuid);
  const std::string_view all(digits);
  return fmt::format("{}-{}-{}-{}-{}", all.substr(0, 8), all.substr(8, 4), all.substr(12, 4),
                     all.substr(16, 4), all.substr(20));
}

void add_outcome(nlohmann::ordered_json& json, int error, const odx_result& result) {
  json["errno"] = error;
  json["status"] = odx_status_name(result.status);
  json["reason"] = odx_reason_name(result.reason);
}

std::string progress_line(std::uint64_t done, std::uint64_t total, double elapsed_seconds,
                          std::size_t width) {
  done = std::min(done, total);
  const double part = total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
  std::string numbers = fmt::format(" {} of {}", size_text(done), size_text(total));
  const double rate = elapsed_seconds > 0 ? static_cast<double>(done) / elapsed_seconds : 0;
  if (rate > 0 && elapsed_seconds >= 0.5) {
    const double left = static_cast<double>(total - done) / rate;
    numbers += fmt::format(", {}/s", size_text(static_cast<std::uint64_t>(rate)));
    if (left < 1e6) {
      numbers += fmt::format(", {} left", duration_text(static_cast<std::uint64_t>(left + 0.5)));
    }
  }
  std::string line = fmt::format("{:3}%", static_cast<unsigned>(part * 100));
  constexpr std::size_t kMostBar = 30;
  constexpr std::size_t kLeastBar = 5;
  const std::size_t used = line.size() + numbers.size() + 3;  // " [" and "]"
  const std::size_t bar = used < width ? std::min(width - used, kMostBar) : 0;
  if (bar >= kLeastBar) {
    const auto filled = static_cast<std::size_t>(part * static_cast<double>(bar));
    line += fmt::format(" [{}{}]", std::string(filled, '#'), std::string(bar - filled, ' '));
  }
  line += numbers;
  return line.substr(0, width);
}

}  // namespace odx::cli
