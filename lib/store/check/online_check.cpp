// The checkers want a state that does not change. A LiveView is one: everything as of the end of
// some transaction, with the blocks that it names kept from reuse. Writers go on: what they pay is
// one checkpoint, and freed space that comes back later (if they need it, the check ends at once).
#include "store/check/online_check.hpp"

#include <algorithm>
#include <exception>
#include <iterator>
#include <utility>

#include "base/log.hpp"
#include "store/check/live_view.hpp"
#include "store/check/report_page.hpp"

namespace odx {

namespace {
constexpr std::size_t kMostLogged = 20;
}  // namespace

Result<void> OnlineCheck::control(odx_check& call) {
  const auto zero = [](std::uint64_t word) { return word == 0; };
  const std::uint32_t flags = call.operation == ODX_CHECK_START ? ODX_CHECK_DATA : 0;
  if (!std::all_of(std::begin(call.reserved), std::end(call.reserved), zero) ||
      call.reserved0 != 0 || (call.flags & ~flags) != 0) {
    return fail(EINVAL);
  }
  const std::lock_guard lock(mutex_);
  switch (call.operation) {
    case ODX_CHECK_STATUS:
      break;
    case ODX_CHECK_START:
      ODX_TRY(start(call.flags));
      break;
    case ODX_CHECK_CANCEL:
      if (state_ != ODX_CHECK_RUNNING) {
        return fail(ENOENT);
      }
      cancelled_ = true;
      break;
    default:
      return fail(EINVAL);
  }
  fill(call);
  return {};
}

Result<void> OnlineCheck::start(std::uint32_t flags) {
  if (stopping_) {
    return fail(ESHUTDOWN);
  }
  if (state_ == ODX_CHECK_RUNNING) {
    return fail(EBUSY, "a check is running");
  }
  if (thread_.joinable()) {
    thread_.join();  // it has said so with its last breath
  }
  cancelled_ = false;
  thread_ = std::thread([this, data = (flags & ODX_CHECK_DATA) != 0] { run(data); });
  ++job_;
  flags_ = flags;
  state_ = ODX_CHECK_RUNNING;
  error_ = 0;
  phase_.clear();
  phase_done_ = phase_total_ = 0;
  counts_ = {};
  text_.clear();
  return {};
}

void OnlineCheck::fill(odx_check& call) const {
  const odx_check asked = call;
  call = {};
  call.operation = asked.operation;
  call.flags = flags_;
  call.job = job_;
  call.state = state_;
  call.error = error_;
  phase_.copy(call.phase, sizeof call.phase - 1);
  call.phase_done = phase_done_;
  call.phase_total = phase_total_;
  call.problems = counts_.problem_count;
  call.inodes = counts_.inodes;
  call.directories = counts_.directories;
  call.entries = counts_.entries;
  call.xattrs = counts_.xattrs;
  call.orphans = counts_.orphans;
  call.tokens = counts_.tokens;
  call.nodes = counts_.nodes;
  call.queued = counts_.queued;
  call.extents = counts_.extents;
  call.blocks = counts_.blocks;
  call.used_blocks = counts_.used_blocks;
  call.data_bytes = counts_.data_bytes;
  call.verified_blocks = counts_.verified_blocks;
  call.text_from = asked.text_from;
  call.text_total = text_.size();
  call.text_bytes = check::copy_page(text_, asked.text_from, call.text);
}

void OnlineCheck::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    cancelled_ = true;
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void OnlineCheck::show_progress(std::string_view what, std::uint64_t done, std::uint64_t total) {
  const std::lock_guard lock(mutex_);
  phase_ = what;
  phase_done_ = done;
  phase_total_ = total;
}

Result<CheckReport> OnlineCheck::check(bool data) {
  CheckOptions options;
  options.data = data;
  options.progress = [this](std::string_view what, std::uint64_t done, std::uint64_t total) {
    show_progress(what, done, total);
  };
  const auto view = ODX_TRY(check::LiveView::take(core_, cancelled_));
  // What the state names is on segments that were there before it.
  const std::uint64_t blocks = core_.device->blocks();
  CheckReport report =
      ODX_TRY(check_state({*view, core_.super.uuid, blocks, core_.device.get()}, options));
  if (core_.meta->stats().replay_end == JournalEnd::kDamaged) {
    ++report.problem_count;
    report.problems.insert(report.problems.begin(),
                           "the journal is damaged: changes that were acknowledged are lost");
  }
  return report;
}

void OnlineCheck::run(bool data) {
  Result<CheckReport> report = fail(EAGAIN);
  constexpr int kMostAttempts = 5;
  std::string text;
  try {
    // EAGAIN: the metadata could not be kept as it was, which is rare.
    for (int i = 0; i < kMostAttempts && !report && report.error().errno_value() == EAGAIN; ++i) {
      report = check(data);
    }
    if (report) {
      const std::vector<std::string> problems = std::exchange(report->problems, {});
      for (std::size_t i = 0; i < std::min(problems.size(), kMostLogged); ++i) {
        log::error("check: {}", problems[i]);
      }
      for (const std::string& problem : problems) {
        text += problem + '\n';
      }
    } else {
      text = report.error().message() + '\n';
    }
  } catch (const std::exception& error) {
    report = fail(ENOMEM);
    text.clear();
  }
  const std::lock_guard lock(mutex_);
  if (report) {
    counts_ = std::move(*report);
    state_ = ODX_CHECK_DONE;
  } else {
    state_ = cancelled_ ? ODX_CHECK_CANCELLED : ODX_CHECK_FAILED;
    error_ = cancelled_ ? 0 : report.error().errno_value();
  }
  text_ = std::move(text);
}

}  // namespace odx
