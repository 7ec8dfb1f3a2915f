#include "check_report.hpp"

#include <fmt/core.h>

#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>
#include <ostream>

#include "base/print.hpp"
#include "online_check.hpp"
#include "progress.hpp"
#include "store/check/repair.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

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
    {"segments", &CheckReport::segments},
    {"blocks", &CheckReport::blocks},
    {"used_blocks", &CheckReport::used_blocks},
    {"data_bytes", &CheckReport::data_bytes},
    {"verified_blocks", &CheckReport::verified_blocks},
    {"replayed_batches", &CheckReport::replayed_batches},
};

using Json = nlohmann::ordered_json;

Json as_json(const std::string& store, const CheckReport& report) {
  Json json;
  json["store"] = store;
  json["clean"] = report.clean();
  for (const Count& count : kCounts) {
    json[count.key] = report.*count.value;
  }
  json["problem_count"] = report.problem_count;
  json["problems"] = report.problems;
  return json;
}

void print_json(std::ostream& out, const Json& json) {
  // Names are whatever bytes their makers chose.
  out << json.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
}

void print_problems(std::ostream& out, const CheckReport& report) {
  for (const std::string& problem : report.problems) {
    print(out, "{}\n", problem);
  }
  if (report.problem_count > report.problems.size()) {
    print(out, "and {} more\n", report.problem_count - report.problems.size());
  }
}

void print_verdict(std::ostream& out, const std::string& store, const CheckReport& report,
                   bool data) {
  std::string verdict = "clean";
  if (!report.clean()) {
    verdict =
        report.problem_count == 1 ? "1 PROBLEM" : fmt::format("{} PROBLEMS", report.problem_count);
  }
  print(out, "{}: {}; {} inodes, {} tokens, {} extents, {} of data in {} of blocks{}{}\n", store,
        verdict, report.inodes, report.tokens, report.extents, size_text(report.data_bytes),
        size_text(report.used_blocks * kBlockBytes),
        data ? fmt::format(", {} verified", size_text(report.verified_blocks * kBlockBytes)) : "",
        report.replayed_batches == 0
            ? ""
            : fmt::format("; {} batches replayed from the journal", report.replayed_batches));
}

// On a terminal: what is being looked at, and a bar while that is data.
class CheckProgress {
 public:
  explicit CheckProgress(std::ostream& stream) : stream_(stream), bar_(stream) {}

  void operator()(std::string_view what, std::uint64_t done, std::uint64_t total) {
    if (!bar_.shown()) {
      return;
    }
    if (what == "data") {
      clear_line();
      bar_.set_total(total * kBlockBytes);
      bar_.update(done * kBlockBytes);
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (done != 0 && now - last_ < std::chrono::milliseconds(100)) {
      return;
    }
    last_ = now;
    const std::string of = total == 0 ? "" : fmt::format(" of {}", total);
    stream_ << fmt::format("\rchecking {}: {}{}\x1b[K", what, done, of) << std::flush;
    drawn_ = true;
  }
  void clear() {
    clear_line();
    bar_.clear();
  }

 private:
  void clear_line() {
    if (drawn_) {
      stream_ << "\r\x1b[K" << std::flush;
      drawn_ = false;
    }
  }

  std::ostream& stream_;
  Progress bar_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

int not_checked(const CheckRequest& request, Streams& io, const std::string& why) {
  print(io.err, "{}: {}: {}\n", request.program, request.store, why);
  return kNotChecked;
}

int not_checked(const CheckRequest& request, Streams& io, const Error& error) {
  if (error.errno_value() == ECANCELED) {
    not_checked(request, io, plain_text(error));
    return kCancelled;
  }
  if (error.errno_value() == EBUSY && !request.examine) {
    if (const auto mount = mount_point_of(request.store)) {
      return not_checked(request, io, fmt::format("is mounted at {0}; run odx check {0}", *mount));
    }
  }
  return not_checked(request, io, error.message());
}

int check(const CheckRequest& request, const CheckOptions& options, CheckProgress& progress,
          Streams& io) {
  const Result<CheckReport> report =
      request.examine ? request.examine(options) : check_store(request.store, options);
  progress.clear();
  if (!report) {
    return not_checked(request, io, report.error());
  }
  if (request.json) {
    print_check_json(io.out, request.store, *report);
  } else {
    print_check(io.out, request.store, *report, request.data);
  }
  return report->clean() ? kClean : kProblemsLeft;
}

int repair(const CheckRequest& request, const CheckOptions& options, CheckProgress& progress,
           Streams& io) {
  const Result<RepairReport> report =
      repair_store(request.store, {options, request.drop_journal_tail});
  progress.clear();
  if (!report) {
    return not_checked(request, io, report.error());
  }
  if (request.json) {
    Json json = as_json(request.store, report->after);
    json["found_count"] = report->before.problem_count;
    json["found"] = report->before.problems;
    json["repairs"] = report->repairs;
    print_json(io.out, json);
  } else {
    print_problems(io.out, report->before);
    for (const std::string& line : report->repairs) {
      print(io.out, "repaired: {}\n", line);
    }
    if (!report->after.clean() && !report->repairs.empty()) {
      print(io.out, "What is left:\n");
      print_problems(io.out, report->after);
    } else if (report->before.clean()) {
      print_problems(io.out, report->after);
    }
    print_verdict(io.out, request.store, report->after, request.data);
  }
  if (!report->after.clean()) {
    return kProblemsLeft;
  }
  return report->repairs.empty() ? kClean : kRepaired;
}

}  // namespace

void print_check(std::ostream& out, const std::string& store, const CheckReport& report,
                 bool data) {
  print_problems(out, report);
  print_verdict(out, store, report, data);
}

void print_check_json(std::ostream& out, const std::string& store, const CheckReport& report) {
  print_json(out, as_json(store, report));
}

int check_and_report(const CheckRequest& request, Streams& io) {
  try {
    CheckProgress progress(io.err);
    CheckOptions options;
    options.data = request.data;
    options.progress = [&](std::string_view what, std::uint64_t done, std::uint64_t total) {
      progress(what, done, total);
    };
    const int code = request.repair ? repair(request, options, progress, io)
                                    : check(request, options, progress, io);
    if (!io.out.flush()) {
      return not_checked(request, io, "the report could not be written");
    }
    return code;
  } catch (const std::exception& error) {
    return not_checked(request, io, error.what());
  }
}

}  // namespace odx::cli
