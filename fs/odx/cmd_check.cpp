// odx check: recounts everything in a store, by itself or (if it is mounted) by its daemon.
#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <ostream>

#include "base/print.hpp"
#include "command.hpp"
#include "online_check.hpp"
#include "progress.hpp"
#include "store/check/check.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

// As of fsck(8), which callers of a check know.
enum CheckExitCode : int {
  kClean = 0,
  kProblemsLeft = 4,
  kNotChecked = 8,
  kCheckUsage = 16,
  kCancelled = 32
};

struct Count {
  const char* key;
  std::uint64_t CheckReport::*value;
};

constexpr Count kCounts[] = {
    {"inodes", &CheckReport::inodes},
    {"directories", &CheckReport::directories},
    {"entries", &CheckReport::entries},
    {"xattrs", &CheckReport::xattrs},
    {"orphans", &CheckReport::orphans},
    {"tokens", &CheckReport::tokens},
    {"nodes", &CheckReport::nodes},
    {"queued", &CheckReport::queued},
    {"extents", &CheckReport::extents},
    {"blocks", &CheckReport::blocks},
    {"used_blocks", &CheckReport::used_blocks},
    {"data_bytes", &CheckReport::data_bytes},
    {"verified_blocks", &CheckReport::verified_blocks},
};

void print_json(std::ostream& out, const std::string& store, const CheckReport& report) {
  nlohmann::ordered_json json;
  json["store"] = store;
  json["clean"] = report.clean();
  for (const Count& count : kCounts) {
    json[count.key] = report.*count.value;
  }
  json["problem_count"] = report.problem_count;
  json["problems"] = report.problems;
  // Names are whatever bytes their makers chose.
  out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

void print_text(std::ostream& out, const std::string& store, const CheckReport& report, bool data) {
  for (const std::string& problem : report.problems) {
    print(out, "{}\n", problem);
  }
  if (report.problem_count > report.problems.size()) {
    print(out, "and {} more\n", report.problem_count - report.problems.size());
  }
  std::string verdict = "clean";
  if (!report.clean()) {
    verdict =
        report.problem_count == 1 ? "1 PROBLEM" : fmt::format("{} PROBLEMS", report.problem_count);
  }
  print(out, "{}: {}; {} inodes, {} tokens, {} extents, {} of data in {} of blocks{}\n", store,
        verdict, report.inodes, report.tokens, report.extents, size_text(report.data_bytes),
        size_text(report.used_blocks * kBlockBytes),
        data ? fmt::format(", {} verified", size_text(report.verified_blocks * kBlockBytes)) : "");
}

}  // namespace

int run_check(const Arguments& args, Streams& io) {
  CommandLine line(
      "check [--data] [--json] [--cancel] STORE | MOUNTPOINT",
      "Recounts everything that a store counts and names each difference; nothing is\n"
      "changed. A store that is mounted is checked by its mount point, as it is at one\n"
      "moment, while it is used.\n"
      "Exit codes: 0 clean, 4 problems found, 8 not checked, 16 wrong usage,\n"
      "32 cancelled.");
  line.add()("data", "also read every block in use and compare it with its checksum");
  line.add()("json", "print one JSON object");
  line.add()("cancel", "of a mount: end the check that runs, if there is one, and make this one");
  line.operands(1, 1);
  if (const auto code = line.parse(args, io)) {
    return *code == kUsage ? kCheckUsage : *code;
  }

  const std::string& store = line.operands()[0];
  CheckOptions options;
  options.data = line.given("data");
  Progress bar(io.err);
  options.progress = [&](std::string_view what, std::uint64_t done, std::uint64_t total) {
    if (what == "data") {
      bar.set_total(total * kBlockBytes);
      bar.update(done * kBlockBytes);
    }
  };
  const std::optional<Fd> mount = open_if_mounted(store);
  const Result<CheckReport> report =
      mount ? check_mounted(mount->get(), options, line.given("cancel"))
            : check_store(store, options);
  bar.clear();
  if (!report) {
    const int error = report.error().errno_value();
    const auto mounted_at = !mount && error == EBUSY ? mount_point_of(store) : std::nullopt;
    complain(io, store,
             mounted_at ? fmt::format("is mounted at {0}; run odx check {0}", *mounted_at)
             : mount    ? plain_text(report.error())
                        : report.error().message());
    return mount && error == ECANCELED ? kCancelled : kNotChecked;
  }
  if (line.given("json")) {
    print_json(io.out, store, *report);
  } else {
    print_text(io.out, store, *report, options.data);
  }
  return report->clean() ? kClean : kProblemsLeft;
}

}  // namespace odx::cli
