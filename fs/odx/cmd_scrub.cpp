// odx scrub: has every block of a mounted store read and compared with its checksum. The daemon
// does it, whoever watches or not.
#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "base/print.hpp"
#include "command.hpp"
#include "progress.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

using namespace std::chrono_literals;

// As odx check.
enum ScrubExitCode : int {
  kNoDamage = 0,
  kDamage = 4,
  kNotScrubbed = 8,
  kScrubUsage = 16,
  kStopped = 32,
};

constexpr const char* kStates[] = {"never run", "running",   "paused", "interrupted",
                                   "done",      "cancelled", "failed"};

const char* state_name(std::uint32_t state) {
  return state < std::size(kStates) ? kStates[state] : "?";
}

class Scrubber {
 public:
  Scrubber(int mount, std::string path, Streams& io)
      : mount_(mount), path_(std::move(path)), io_(io) {}

  // Asks, and keeps the answer. False: it was refused, and that was told.
  bool ask(odx_scrub_operation operation, std::uint64_t rate = 0) {
    odx_scrub call{};
    call.operation = operation;
    call.rate = rate;
    call.text_from = report_.size();
    if (const int error = odx_scrub_control(mount_, &call); error != 0) {
      complain(io_, path_,
               error == -EPERM    ? "only root and the owner of the mount may scrub it"
               : error == -ENOENT ? "there is no scrub that goes on"
               : error == -ESHUTDOWN
                   ? "its metadata is damaged, so the blocks in use are not known: see odx check"
                   : why_failed(-error));
      return false;
    }
    if (call.pass != now_.pass && call.text_from != 0) {
      report_.clear();  // another pass, another report
      now_ = call;
      return ask(ODX_SCRUB_STATUS);
    }
    now_ = call;
    report_.append(call.text, call.text_bytes);
    return true;
  }
  // All of the report so far.
  bool fetch() {
    while (report_.size() < now_.text_total) {
      if (!ask(ODX_SCRUB_STATUS) || now_.text_bytes == 0) {
        return false;
      }
    }
    return true;
  }

  // Until it has ended, one way or another. False: it cannot be asked any more.
  bool watch() {
    Progress bar(io_.err);
    for (auto pause = 1ms; now_.state == ODX_SCRUB_RUNNING;
         pause = std::min(pause * 2, std::chrono::milliseconds(200))) {
      std::this_thread::sleep_for(pause);
      if (!ask(ODX_SCRUB_STATUS)) {
        return false;
      }
      bar.set_total(now_.total_bytes);
      bar.update(now_.done_bytes, active_seconds());
    }
    return true;
  }

  [[nodiscard]] const odx_scrub& now() const { return now_; }
  [[nodiscard]] int exit_code(bool watched) const {
    if (now_.state == ODX_SCRUB_FAILED) {
      return kNotScrubbed;
    }
    if (watched && now_.state != ODX_SCRUB_DONE) {
      return kStopped;
    }
    return now_.damaged_blocks != 0 ? kDamage : kNoDamage;
  }

  void print_json() const {
    nlohmann::ordered_json json;
    json["mount"] = path_;
    json["state"] = state_name(now_.state);
    json["pass"] = now_.pass;
    json["rate"] = now_.rate;
    if (now_.rate == ODX_SCRUB_RATE_UNLIMITED) {
      json["rate"] = nullptr;
    }
    json["started_ns"] = now_.started_ns;
    json["changed_ns"] = now_.changed_ns;
    json["active_seconds"] = active_seconds();
    json["done_bytes"] = now_.done_bytes;
    json["total_bytes"] = now_.total_bytes;
    json["percent"] = percent();
    json["bytes_per_second"] = speed();
    json["seconds_left"] = seconds_left();
    json["position"] = now_.position;
    json["saved_position"] = now_.saved_position;
    json["damaged_blocks"] = now_.damaged_blocks;
    json["damaged_owners"] = now_.damaged_owners;
    json["suspects"] = now_.suspects;
    json["errno"] = now_.error;
    json["problems"] = lines();
    // Names are whatever bytes their makers chose.
    io_.out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  }

  void print_text() const {
    io_.out << report_;
    print(io_.out, "{}: scrub {}", path_, state_name(now_.state));
    if (now_.state == ODX_SCRUB_FAILED) {
      print(io_.out, " ({})", Error(now_.error).message());
    }
    if (now_.state == ODX_SCRUB_NEVER) {
      print(io_.out, "\n");
      return;
    }
    print(io_.out, "; {:.1f}%, {} of {}", percent(), size_text(now_.done_bytes),
          size_text(now_.total_bytes));
    if (now_.state == ODX_SCRUB_RUNNING) {
      print(io_.out, ", {}/s, {} left", size_text(static_cast<std::uint64_t>(speed())),
            duration_text(static_cast<std::uint64_t>(seconds_left())));
    } else {
      print(io_.out, " in {}", duration_text(static_cast<std::uint64_t>(active_seconds())));
    }
    if (now_.damaged_blocks == 0) {
      print(io_.out, "; no damage{}\n", now_.state == ODX_SCRUB_DONE ? "" : " so far");
    } else {
      print(io_.out, "; {} DAMAGED BLOCKS in {} files and tokens\n", now_.damaged_blocks,
            now_.damaged_owners);
    }
  }

 private:
  [[nodiscard]] double active_seconds() const { return static_cast<double>(now_.active_ns) / 1e9; }
  [[nodiscard]] double percent() const {
    if (now_.total_bytes == 0) {
      return now_.state == ODX_SCRUB_DONE ? 100 : 0;
    }
    return 100 * static_cast<double>(now_.done_bytes) / static_cast<double>(now_.total_bytes);
  }
  [[nodiscard]] double speed() const {
    return now_.active_ns == 0 ? 0 : static_cast<double>(now_.done_bytes) / active_seconds();
  }
  [[nodiscard]] double seconds_left() const {
    const double left = static_cast<double>(now_.total_bytes - now_.done_bytes);
    return speed() > 0 ? std::min(left / speed(), 1e9) : 0;
  }
  [[nodiscard]] std::vector<std::string> lines() const {
    std::vector<std::string> found;
    for (std::size_t at = 0; at < report_.size();) {
      const std::size_t end = std::min(report_.find('\n', at), report_.size());
      found.push_back(report_.substr(at, end - at));
      at = end + 1;
    }
    return found;
  }

  int mount_;
  std::string path_;
  Streams& io_;
  odx_scrub now_{};
  std::string report_;
};

}  // namespace

int run_scrub(const Arguments& args, Streams& io) {
  CommandLine line(
      "scrub [--rate BYTES] [--background | --status | --pause | --cancel] [--json] MOUNTPOINT",
      "Reads every block in use of a mounted store once, compares it with its checksum, and names\n"
      "the files and tokens that damaged blocks belong to. The daemon does it: ending this "
      "command\n"
      "does not end the scrub. After a pause, an unmount or a crash, another start goes on.\n"
      "Exit codes: 0 no damage, 4 damage found, 8 not scrubbed, 16 wrong usage, 32 stopped.");
  line.size_option("rate", "BYTES", "read at most so much a second, from now on; 0: no limit");
  line.add()("background,b", "start it, and do not wait for its end");
  line.add()("status", "tell how far it is and what it has found");
  line.add()("pause", "stop for now");
  line.add()("cancel", "stop; the next start begins anew");
  line.add()("json", "print one JSON object");
  line.operands(1, 1);
  if (const auto code = line.parse(args, io)) {
    return *code == kUsage ? kScrubUsage : *code;
  }
  const auto modes = {line.given("background"), line.given("status"), line.given("pause"),
                      line.given("cancel")};
  const bool start = !line.given("status") && !line.given("pause") && !line.given("cancel");
  if (std::count(modes.begin(), modes.end(), true) > 1 || (!start && line.size("rate"))) {
    print(io.err, "odx: these options do not go together (see odx scrub --help)\n");
    return kScrubUsage;
  }

  const std::string& path = line.operands()[0];
  const auto file = open_file(path, O_RDONLY | O_NONBLOCK);
  if (!file) {
    complain(io, path, file.error().message());
    return kNotScrubbed;
  }
  Scrubber scrub(file->get(), path, io);
  const std::uint64_t rate = line.size("rate").value_or(ODX_SCRUB_RATE_KEEP);
  const odx_scrub_operation operation = line.given("status")   ? ODX_SCRUB_STATUS
                                        : line.given("pause")  ? ODX_SCRUB_PAUSE
                                        : line.given("cancel") ? ODX_SCRUB_CANCEL
                                                               : ODX_SCRUB_START;
  if (!scrub.ask(operation, line.size("rate") && rate == 0 ? ODX_SCRUB_RATE_UNLIMITED : rate)) {
    return kNotScrubbed;
  }
  const bool watch = start && !line.given("background");
  if ((watch && !scrub.watch()) || !scrub.fetch()) {
    return kNotScrubbed;
  }
  if (line.given("json")) {
    scrub.print_json();
  } else {
    scrub.print_text();
  }
  return scrub.exit_code(watch);
}

}  // namespace odx::cli
