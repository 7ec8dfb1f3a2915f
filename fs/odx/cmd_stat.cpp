// odx stat: what a mounted odxfs is and has done.
#include <fcntl.h>
#include <fmt/core.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <ostream>

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
    {"total_bytes", "size", &odx_stat::total_bytes, true},
    {"free_bytes", "free", &odx_stat::free_bytes, true},
    {"pending_bytes", "freed, not yet reusable", &odx_stat::pending_bytes, true},
    {"tokens_live", "tokens live", &odx_stat::tokens_live, false},
    {"token_ttl_default_ms", "default TTL (ms)", &odx_stat::token_ttl_default_ms, false},
    {"token_ttl_max_ms", "maximum TTL (ms)", &odx_stat::token_ttl_max_ms, false},
    {"tokens_created", "tokens made", &odx_stat::tokens_created, false},
    {"tokens_redeemed", "offload writes", &odx_stat::tokens_redeemed, false},
    {"tokens_expired", "tokens expired", &odx_stat::tokens_expired, false},
    {"tokens_rejected", "tokens rejected", &odx_stat::tokens_rejected, false},
    {"offload_bytes_shared", "shared by offload", &odx_stat::offload_bytes_shared, true},
    {"clone_calls", "copy_file_range calls", &odx_stat::clone_calls, false},
    {"clone_bytes_shared", "shared by copy_file_range", &odx_stat::clone_bytes_shared, true},
    {"device_bytes_read", "read from the device", &odx_stat::device_bytes_read, true},
    {"device_bytes_written", "written to the device", &odx_stat::device_bytes_written, true},
    {"journal_bytes_written", "written to the journal", &odx_stat::journal_bytes_written, true},
    {"journal_flushes", "journal flushes", &odx_stat::journal_flushes, false},
    {"checkpoints", "checkpoints", &odx_stat::checkpoints, false},
    {"checksum_errors", "checksum errors", &odx_stat::checksum_errors, false},
    {"reclaim_pending", "subtrees to reclaim", &odx_stat::reclaim_pending, false},
    {"requests", "requests served", &odx_stat::requests, false},
};

std::string label_of(const struct odx_stat& stat) {
  return {stat.label, ::strnlen(stat.label, sizeof stat.label)};
}

void print_json(std::ostream& out, const struct odx_stat& stat) {
  nlohmann::ordered_json json;
  json["uuid"] = uuid_text(stat.uuid);
  json["label"] = label_of(stat);
  json["sector_bytes"] = stat.sector_bytes;
  json["block_bytes"] = stat.block_bytes;
  for (const Counter& counter : kCounters) {
    json[counter.key] = stat.*counter.value;
  }
  // A label is whatever bytes its maker chose.
  out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

void print_text(std::ostream& out, const struct odx_stat& stat) {
  const auto row = [&](const char* name, const std::string& value) {
    print(out, "{:<28}{}\n", name, value);
  };
  row("uuid", uuid_text(stat.uuid));
  row("label", label_of(stat));
  row("sector", size_text(stat.sector_bytes));
  row("block", size_text(stat.block_bytes));
  for (const Counter& counter : kCounters) {
    const std::uint64_t value = stat.*counter.value;
    row(counter.text, counter.bytes ? size_text(value) : fmt::format("{}", value));
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
