// odx stat: what a mounted odxfs is and has done.
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "base/print.hpp"
#include "command.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

struct Counter {
  const char* key;   // in JSON
  const char* text;  // for people
  std::uint64_t odx_stat::*value;
  bool bytes;
};

constexpr Counter kCounters[] = {
    {"file_bytes_max", "largest file", &odx_stat::file_bytes_max, true},
    {"token_ttl_default_ms", "default TTL (ms)", &odx_stat::token_ttl_default_ms, false},
    {"token_ttl_max_ms", "maximum TTL (ms)", &odx_stat::token_ttl_max_ms, false},
    {"tokens_max", "most tokens", &odx_stat::tokens_max, false},
    {"tokens_max_per_user", "most tokens of a user", &odx_stat::tokens_max_per_user, false},
    {"pinned_bytes_max", "most data in tokens", &odx_stat::pinned_bytes_max, true},
    {"pinned_bytes_max_per_user", "most of it of a user", &odx_stat::pinned_bytes_max_per_user,
     true},
    {"total_bytes", "size", &odx_stat::total_bytes, true},
    {"free_bytes", "free", &odx_stat::free_bytes, true},
    {"pending_bytes", "freed, not yet reusable", &odx_stat::pending_bytes, true},
    {"reclaim_pending", "subtrees to reclaim", &odx_stat::reclaim_pending, false},
    {"tokens_live", "tokens live", &odx_stat::tokens_live, false},
    {"tokens_live_peak", "most tokens at a time", &odx_stat::tokens_live_peak, false},
    {"pinned_bytes", "data in tokens", &odx_stat::pinned_bytes, true},
    {"pinned_bytes_peak", "most data at a time", &odx_stat::pinned_bytes_peak, true},
    {"tokens_created", "tokens made", &odx_stat::tokens_created, false},
    {"tokens_redeemed", "offload writes", &odx_stat::tokens_redeemed, false},
    {"tokens_expired", "tokens expired", &odx_stat::tokens_expired, false},
    {"tokens_dropped", "tokens dropped", &odx_stat::tokens_dropped, false},
    {"offload_bytes", "written by offload", &odx_stat::offload_bytes, true},
    {"offload_bytes_shared", "of it by sharing", &odx_stat::offload_bytes_shared, true},
    {"clone_calls", "copy_file_range calls", &odx_stat::clone_calls, false},
    {"clone_bytes_shared", "shared by copy_file_range", &odx_stat::clone_bytes_shared, true},
    {"requests", "requests served", &odx_stat::requests, false},
    {"device_bytes_read", "read from the device", &odx_stat::device_bytes_read, true},
    {"device_bytes_written", "written to the device", &odx_stat::device_bytes_written, true},
    {"journal_bytes_written", "written to the journal", &odx_stat::journal_bytes_written, true},
    {"journal_flushes", "journal flushes", &odx_stat::journal_flushes, false},
    {"checkpoints", "checkpoints", &odx_stat::checkpoints, false},
    {"checksum_errors", "checksum errors", &odx_stat::checksum_errors, false},
};

struct Feature {
  std::uint64_t bit;
  const char* name;
};

constexpr Feature kFeatures[] = {
    {ODX_FEATURE_OFFLOAD, "offload"},
    {ODX_FEATURE_EXTEND, "extend"},
    {ODX_FEATURE_USER_TOKENS, "user_tokens"},
    {ODX_FEATURE_READ_ONLY, "read_only"},
};

std::vector<std::string> features_of(const struct odx_stat& stat) {
  std::vector<std::string> names;
  for (const Feature& feature : kFeatures) {
    if ((stat.features & feature.bit) != 0) {
      names.emplace_back(feature.name);
    }
  }
  return names;
}

// The names in offload.h, as JSON likes them.
std::string lower(std::string name) {
  std::ranges::transform(name, name.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  });
  return name;
}

template <std::size_t N>
nlohmann::ordered_json by_name(const std::uint64_t (&counts)[N],
                               const char* (*name)(std::uint32_t)) {
  auto json = nlohmann::ordered_json::object();
  for (std::uint32_t i = 0; i < N; ++i) {
    if (counts[i] != 0) {
      json[lower(name(i))] = counts[i];
    }
  }
  return json;
}

std::string limit_text(const Counter& counter, std::uint64_t value) {
  return value == UINT64_MAX ? "no limit"
         : counter.bytes     ? size_text(value)
                             : fmt::format("{}", value);
}

template <std::size_t N>
std::string text_of(const char (&field)[N]) {
  return {field, ::strnlen(field, N)};
}

void print_json(std::ostream& out, const struct odx_stat& stat) {
  nlohmann::ordered_json json;
  json["uuid"] = uuid_text(stat.uuid);
  json["label"] = text_of(stat.label);
  json["program"] = text_of(stat.program);
  json["features"] = features_of(stat);
  json["sector_bytes"] = stat.sector_bytes;
  json["block_bytes"] = stat.block_bytes;
  for (const Counter& counter : kCounters) {
    const std::uint64_t value = stat.*counter.value;
    auto& field = json[counter.key];  // null: no limit
    if (value != UINT64_MAX) {
      field = value;
    }
  }
  json["refused"] = by_name(stat.refused, odx_reason_name);
  json["fallback_bytes"] = by_name(stat.fallback_bytes, odx_copy_note_name);
  // A label is whatever bytes its maker chose.
  out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

void print_text(std::ostream& out, const struct odx_stat& stat) {
  const auto row = [&](const char* name, const std::string& value) {
    print(out, "{:<28}{}\n", name, value);
  };
  row("uuid", uuid_text(stat.uuid));
  row("label", text_of(stat.label));
  row("program", "odxfs " + text_of(stat.program));
  row("features", fmt::format("{}", fmt::join(features_of(stat), ", ")));
  row("sector", size_text(stat.sector_bytes));
  row("block", size_text(stat.block_bytes));
  for (const Counter& counter : kCounters) {
    row(counter.text, limit_text(counter, stat.*counter.value));
  }
  for (std::uint32_t reason = 0; reason < std::size(stat.refused); ++reason) {
    if (stat.refused[reason] != 0) {
      print(out, "refused {} times: {}\n", stat.refused[reason], odx_reason_text(reason));
    }
  }
  for (std::uint32_t note = 0; note < std::size(stat.fallback_bytes); ++note) {
    if (stat.fallback_bytes[note] != 0) {
      print(out, "{} copied in another way: {}\n", size_text(stat.fallback_bytes[note]),
            odx_copy_note_text(note));
    }
  }
}

}  // namespace

int run_stat(const Arguments& args, Streams& io) {
  CommandLine line("stat [--json] [MOUNTPOINT]",
                   "Tells what a mounted odxfs is and what it has done since it was mounted.\n"
                   "MOUNTPOINT may be any file or directory on it (default: .).");
  line.add()("json", "print one JSON object, all sizes in bytes");
  line.operands(0, 1);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }

  const std::string path = line.operands().empty() ? "." : line.operands()[0];
  const auto file = open_file(path, O_RDONLY | O_NONBLOCK);
  if (!file) {
    complain(io, path, file.error().message());
    return kFailed;
  }
  struct odx_stat stat;
  if (const int error = odx_statistics(file->get(), &stat); error != 0) {
    complain(io, path, why_failed(-error));
    return kFailed;
  }
  if (line.given("json")) {
    print_json(io.out, stat);
  } else {
    print_text(io.out, stat);
  }
  return kDone;
}

}  // namespace odx::cli
