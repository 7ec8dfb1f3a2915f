// Blocks are looked at in the order of their place on the device, as the space map has them in use:
// each of them once, whatever shares it, and without any walk of the metadata.
//
// The store goes on meanwhile, and nothing is held back, so a block that does not match may be one
// that is just being written, or that was freed since. It is a suspect, no more. Suspects are
// looked at again together, at the end of the pass or after a while: those that still do not match
// are compared once more with a state of the metadata that stands still (LiveView). A block that a
// file or a token of that state names does not change, so what does not match there is damaged; and
// the walk that shows so finds all owners. Damage below a tree that waits to be reclaimed is
// nobody's.
//
// What is kept across a crash is the position, or that of the first suspect. Memory: a chunk of
// 1 MiB, a bounded number of suspects, a bounded report; and while owners are searched for, the
// nodes that lead to damage.
//
// Locks. mutex_ is a leaf but for the space map's; no I/O under it, so control() waits for nothing.
#include "store/check/scrub.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <iterator>
#include <utility>

#include "base/log.hpp"
#include "store/check/damage_owners.hpp"
#include "store/check/live_view.hpp"
#include "store/check/report_page.hpp"
#include "store/meta/keys.hpp"
#include "store/mutation.hpp"

namespace odx {

namespace {

using namespace std::chrono_literals;
using check::BadBlock;
using check::BlockVerifier;

constexpr std::uint64_t kMostChunkBlocks = 256;
constexpr std::size_t kMostRuns = 64;  // in a chunk
constexpr std::size_t kMostSuspects = 65536;
constexpr std::size_t kMostLines = 1000;  // of each kind, at a time
constexpr std::size_t kMostLogged = 20;   // lines at a time
constexpr unsigned kMostTroubles = 10;
constexpr auto kNothingToDo = std::chrono::nanoseconds(1h);
constexpr auto kLongestRest = std::chrono::nanoseconds(10s);
constexpr auto kRetryAfter = std::chrono::nanoseconds(5s);
constexpr std::int64_t kMostAccounted = 60 * kNsPerSecond;

bool unlimited(std::uint64_t rate) { return rate == ODX_SCRUB_RATE_UNLIMITED; }

// A quarter of a second's worth.
std::uint64_t chunk_blocks(std::uint64_t rate) {
  return unlimited(rate) ? kMostChunkBlocks
                         : std::clamp<std::uint64_t>(rate / 4 / kBlockBytes, 1, kMostChunkBlocks);
}

// Verifies blocks (ascending) in bounded pieces, unless `stop` is set.
Result<void> verify_blocks(BlockVerifier& verifier, const std::vector<std::uint64_t>& blocks,
                           const std::atomic<bool>& stop, std::vector<BadBlock>& bad) {
  std::vector<BlockRun> runs;
  std::uint64_t gathered = 0;
  for (const std::uint64_t block : blocks) {
    if (!runs.empty() && runs.back().end().value() == block) {
      ++runs.back().count;
    } else {
      runs.push_back({BlockNo(block), 1});
    }
    if (stop) {
      return fail(ECANCELED);
    }
    if (++gathered == kMostChunkBlocks) {
      ODX_TRY(verifier.verify(runs, bad));
      runs.clear();
      gathered = 0;
    }
  }
  return runs.empty() ? Result<void>() : verifier.verify(runs, bad);
}

std::string ranges_text(const check::DamageOwner& owner) {
  std::string text;
  for (const check::DamagedRange& range : owner.ranges) {
    text += fmt::format("{}{} to {}", text.empty() ? "" : ", ", range.offset,
                        range.offset + range.bytes - 1);
  }
  return text + (owner.more_ranges ? ", and more" : "");
}

// One line for each stretch of blocks that are bad in the same way.
void describe_blocks(const std::vector<BadBlock>& bad, std::vector<std::string>& lines) {
  for (std::size_t i = 0; i < bad.size();) {
    std::size_t end = i + 1;
    while (end < bad.size() && bad[end].why == bad[i].why &&
           bad[end].block == bad[end - 1].block + 1) {
      ++end;
    }
    if (lines.size() == kMostLines) {
      lines.push_back("and further blocks");
      return;
    }
    lines.push_back(fmt::format("{}: {}", check::blocks_text(bad[i].block, bad[end - 1].block + 1),
                                check::why_text(bad[i].why)));
    i = end;
  }
}

}  // namespace

struct Scrub::Findings {
  std::uint64_t blocks = 0;
  std::uint64_t mismatches = 0;
  std::uint64_t owners = 0;
  std::vector<std::string> lines;
};

// ---- what people ask for ----

void Scrub::load() {
  const auto read = [&](std::string_view name) {
    return core_.meta->get(keys::long_operation(name));
  };
  const auto raw = read(kScrubOperation);
  const auto record = raw && *raw ? ScrubRecord::decode(**raw) : fail(ENOENT);
  if (!record) {
    if (!raw || *raw) {
      log::warn("where the last scrub stood cannot be read; the next one begins anew");
    }
    return;
  }
  const auto raw_report = read(kScrubReportOperation);
  auto report = raw_report && *raw_report ? ScrubReport::decode(**raw_report) : fail(ENOENT);
  const std::lock_guard lock(mutex_);
  now_ = *record;
  saved_position_ = now_.position * kBlockBytes;
  switch (now_.state) {
    case ScrubRecord::State::kActive:
      state_ = ODX_SCRUB_INTERRUPTED;
      break;
    case ScrubRecord::State::kPaused:
      state_ = ODX_SCRUB_PAUSED;
      break;
    case ScrubRecord::State::kDone:
      state_ = ODX_SCRUB_DONE;
      break;
    case ScrubRecord::State::kCancelled:
      state_ = ODX_SCRUB_CANCELLED;
      break;
  }
  if (report && report->pass == now_.pass) {
    report_ = std::move(report->text);
  }
}

Result<void> Scrub::control(odx_scrub& call, bool own_thread) {
  const auto zero = [](std::uint64_t word) { return word == 0; };
  if (!std::all_of(std::begin(call.reserved), std::end(call.reserved), zero) ||
      (call.operation != ODX_SCRUB_START && call.rate != 0)) {
    return fail(EINVAL);
  }
  {
    const std::lock_guard lock(mutex_);
    if (call.operation == ODX_SCRUB_START && own_thread && !thread_.joinable() && !stopping_) {
      thread_ = std::thread([this] { run(); });
    }
    ODX_TRY(apply(call));
    fill(call);
  }
  bell_.ring();
  return {};
}

Result<void> Scrub::apply(const odx_scrub& call) {
  const bool unfinished = state_ == ODX_SCRUB_RUNNING || state_ == ODX_SCRUB_PAUSED ||
                          state_ == ODX_SCRUB_INTERRUPTED || state_ == ODX_SCRUB_FAILED;
  switch (call.operation) {
    case ODX_SCRUB_STATUS:
      return {};
    case ODX_SCRUB_START:
      if (stopping_) {
        return fail(ESHUTDOWN);
      }
      if (!unfinished) {
        begin_pass();
      }
      if (call.rate != ODX_SCRUB_RATE_KEEP) {
        now_.rate = call.rate;
      }
      change_state(ODX_SCRUB_RUNNING);
      return {};
    case ODX_SCRUB_PAUSE:
    case ODX_SCRUB_CANCEL:
      if (!unfinished) {
        return fail(ENOENT);
      }
      change_state(call.operation == ODX_SCRUB_PAUSE ? ODX_SCRUB_PAUSED : ODX_SCRUB_CANCELLED);
      return {};
    default:
      return fail(EINVAL);
  }
}

void Scrub::begin_pass() {
  ScrubRecord next;
  next.pass = now_.pass + 1;
  next.rate = now_.rate != 0 ? now_.rate : ODX_SCRUB_RATE_DEFAULT;
  next.started_ns = core_.clock->now_ns();
  now_ = next;
  saved_position_ = 0;
  safe_.reset();
  suspect_count_ = 0;
  report_.clear();
  report_full_ = false;
  report_changed_ = true;
}

void Scrub::change_state(odx_scrub_state state) {
  state_ = state;
  error_ = 0;
  now_.changed_ns = core_.clock->now_ns();
  changed_ = true;
}

void Scrub::fill(odx_scrub& call) const {
  const odx_scrub asked = call;
  call = {};
  call.operation = asked.operation;
  call.state = state_;
  call.rate = now_.rate;
  call.pass = now_.pass;
  call.started_ns = now_.started_ns;
  call.changed_ns = now_.changed_ns;
  call.active_ns = now_.active_ns;
  call.done_bytes = now_.done_blocks * kBlockBytes;
  const bool over = state_ == ODX_SCRUB_DONE;
  call.total_bytes =
      call.done_bytes + (over ? 0 : core_.space.used_from(BlockNo(now_.position)) * kBlockBytes);
  call.position = now_.position * kBlockBytes;
  call.saved_position = saved_position_;
  call.damaged_blocks = now_.damaged_blocks;
  call.damaged_owners = now_.damaged_owners;
  call.suspects = suspect_count_;
  call.error = error_;
  call.text_from = asked.text_from;
  call.text_total = report_.size();
  call.text_bytes = check::copy_page(report_, asked.text_from, call.text);
}

// ---- the thread ----

void Scrub::run() {
  while (!stopping_) {
    bell_.wait_for(guarded_step());
  }
}

Scrub::Nanoseconds Scrub::guarded_step() {
  try {
    const Nanoseconds rest = step();
    troubles_ = 0;
    return rest;
  } catch (const std::exception& error) {
    // Out of memory, as a rule. The position moves after the work, so nothing was left out.
    if (++troubles_ < kMostTroubles) {
      log::error("scrub: {}", error.what());
      return 1s;
    }
    troubles_ = 0;
    fail_with(Error(ENOMEM, error.what()));
    return kNothingToDo;
  }
}

void Scrub::end_thread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;  // there is no new thread from here on
  }
  bell_.ring();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Scrub::stop() {
  end_thread();
  try {
    save_if_due(true);
  } catch (const std::exception& error) {
    log::error("the position of the scrub is not kept: {}", error.what());
  }
}

Scrub::Nanoseconds Scrub::step() {
  std::unique_lock lock(mutex_);
  const odx_scrub_state state = state_;
  const std::uint64_t pass = now_.pass;
  const std::uint64_t rate = now_.rate;
  lock.unlock();
  if (pass != pass_) {
    take_up(pass);
  }
  if (state == ODX_SCRUB_RUNNING) {
    return work(rate);
  }
  last_ns_ = 0;
  if (state == ODX_SCRUB_PAUSED && !suspects_.empty()) {
    (void)confirm();  // what cannot be confirmed now is looked at again when it goes on
  }
  save_if_due(true);
  return kNothingToDo;
}

void Scrub::take_up(std::uint64_t pass) {
  suspects_.clear();
  pass_ = pass;
  last_ns_ = 0;
  allowance_ = 0;
}

Scrub::Nanoseconds Scrub::work(std::uint64_t rate) {
  account_time(rate);
  if (allowance_ < 0) {
    save_if_due(false);
    return rest(rate);
  }
  const Result<bool> more = verify_some(chunk_blocks(rate));
  if (!more) {
    fail_with(more.error());
    return kNothingToDo;
  }
  if (!*more) {
    return finish_pass();
  }
  if (confirm_due()) {
    (void)confirm();  // another time, if not now
  }
  save_if_due(false);
  return rest(rate);
}

// Time that has passed allows for reading on; no more than one chunk is saved up.
void Scrub::account_time(std::uint64_t rate) {
  const std::int64_t now = core_.clock->now_ns();
  const std::int64_t passed =
      last_ns_ == 0 ? 0 : std::clamp<std::int64_t>(now - last_ns_, 0, kMostAccounted);
  last_ns_ = now;
  if (unlimited(rate)) {
    allowance_ = 0;
  } else {
    allowance_ = std::min(
        allowance_ + static_cast<double>(passed) / kNsPerSecond * static_cast<double>(rate),
        static_cast<double>(chunk_blocks(rate) * kBlockBytes));
  }
  const std::lock_guard lock(mutex_);
  if (now_.pass == pass_) {
    now_.active_ns += static_cast<std::uint64_t>(passed);
  }
}

Scrub::Nanoseconds Scrub::rest(std::uint64_t rate) const {
  if (unlimited(rate) || allowance_ >= 0) {
    return Nanoseconds(0);
  }
  const double seconds = -allowance_ / static_cast<double>(rate);
  return seconds >= 10 ? kLongestRest
                       : Nanoseconds(static_cast<std::int64_t>(seconds * kNsPerSecond) + 1);
}

// False: there is nothing left to read.
Result<bool> Scrub::verify_some(std::uint64_t most_blocks) {
  std::unique_lock lock(mutex_);
  const Place from{now_.position, now_.done_blocks};
  lock.unlock();

  BlockNo at(from.position);
  std::uint64_t blocks = 0;
  runs_.clear();
  while (blocks < most_blocks && runs_.size() < kMostRuns) {
    const BlockRun run = core_.space.find_used(at, most_blocks - blocks);
    if (run.count == 0) {
      break;
    }
    runs_.push_back(run);
    blocks += run.count;
    at = run.end();
  }
  if (blocks == 0) {
    return false;
  }
  if (!verifier_) {
    verifier_.emplace(*core_.meta, *core_.device);
  }
  bad_.clear();
  ODX_TRY(verifier_->verify(runs_, bad_));
  core_.counters.device_bytes_read.fetch_add(blocks * kBlockBytes, std::memory_order_relaxed);
  allowance_ -= static_cast<double>(blocks * kBlockBytes);

  lock.lock();
  // A pause in between loses nothing; after a cancellation this is nobody's concern.
  if (now_.pass != pass_ || (state_ != ODX_SCRUB_RUNNING && state_ != ODX_SCRUB_PAUSED)) {
    return true;
  }
  if (!bad_.empty() && suspects_.empty()) {
    safe_ = from;
    suspected_ns_ = core_.clock->now_ns();
  }
  for (const BadBlock& bad : bad_) {
    suspects_.push_back(bad.block);
  }
  suspect_count_ = suspects_.size();
  now_.position = at.value();
  now_.done_blocks += blocks;
  now_.changed_ns = core_.clock->now_ns();
  changed_ = true;
  return true;
}

bool Scrub::confirm_due() const {
  if (suspects_.empty()) {
    return false;
  }
  const std::int64_t waited = core_.clock->now_ns() - suspected_ns_;
  return suspects_.size() >= kMostSuspects || waited < 0 ||
         Nanoseconds(waited) >= std::max(options_.confirm_interval, 10 * confirm_took_);
}

Result<void> Scrub::confirm() {
  const auto began = std::chrono::steady_clock::now();
  const Result<Findings> found = look_again();
  confirm_took_ = std::chrono::steady_clock::now() - began;
  suspected_ns_ = core_.clock->now_ns();
  if (!found) {
    if (found.error().errno_value() != ECANCELED) {
      log::warn("scrub: blocks that look damaged cannot be looked at again yet: {}",
                found.error().message());
    }
    return std::unexpected(found.error());
  }
  for (std::size_t i = 0; i < std::min(found->lines.size(), kMostLogged); ++i) {
    log::error("scrub: {}", found->lines[i]);
  }
  core_.counters.checksum_errors.fetch_add(found->mismatches, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  if (now_.pass == pass_) {
    append(*found);
    safe_.reset();
    suspect_count_ = 0;
    changed_ = true;
  }
  suspects_.clear();
  return {};
}

Result<Scrub::Findings> Scrub::look_again() {
  Findings found;
  std::vector<std::uint64_t> blocks;
  std::copy_if(suspects_.begin(), suspects_.end(), std::back_inserter(blocks),
               [&](std::uint64_t block) { return !core_.space.is_free(BlockNo(block)); });
  const auto keep_bad = [&](BlockVerifier& verifier) -> Result<std::vector<BadBlock>> {
    std::vector<BadBlock> bad;
    ODX_TRY(verify_blocks(verifier, blocks, stopping_, bad));
    blocks.clear();
    for (const BadBlock& block : bad) {
      blocks.push_back(block.block);
    }
    return bad;
  };
  BlockVerifier live(*core_.meta, *core_.device);
  ODX_TRY(keep_bad(live));
  if (blocks.empty()) {
    return found;
  }
  const auto view = ODX_TRY(check::LiveView::take(core_, stopping_));
  BlockVerifier frozen(*view, *core_.device);
  std::vector<BadBlock> bad = ODX_TRY(keep_bad(frozen));
  std::vector<std::string> owners;
  const check::DamageTrace trace = ODX_TRY(check::trace_damage(
      *view, blocks, {.owners = kMostLines}, [&](const check::DamageOwner& owner) {
        owners.push_back(fmt::format("{}: damaged bytes {}", owner.text(), ranges_text(owner)));
      }));
  std::vector<BadBlock> unowned;
  const auto owned = [&](const BadBlock& block) {
    return std::binary_search(trace.owned.begin(), trace.owned.end(), block.block);
  };
  std::copy_if(bad.begin(), bad.end(), std::back_inserter(unowned),
               [&](const BadBlock& block) { return !owned(block); });
  if (trace.complete) {
    std::erase_if(bad, [&](const BadBlock& block) { return !owned(block); });
  }
  found.blocks = bad.size();
  found.mismatches =
      static_cast<std::uint64_t>(std::count_if(bad.begin(), bad.end(), [](const BadBlock& block) {
        return block.why == BadBlock::Why::kMismatch;
      }));
  found.owners = trace.owners;
  describe_blocks(bad, found.lines);
  std::move(owners.begin(), owners.end(), std::back_inserter(found.lines));
  if (trace.owners > owners.size()) {
    found.lines.push_back(
        fmt::format("and {} further files and tokens", trace.owners - owners.size()));
  }
  if (!trace.complete && !unowned.empty()) {
    found.lines.push_back(fmt::format(
        "whose {} of these blocks are cannot be told, as metadata is damaged, too: see odx check",
        unowned.size()));
  }
  return found;
}

void Scrub::append(const Findings& found) {
  now_.damaged_blocks += found.blocks;
  now_.damaged_owners += found.owners;
  constexpr std::string_view kFull = "the report is full: further damage is only counted\n";
  for (const std::string& line : found.lines) {
    if (report_full_) {
      return;
    }
    report_full_ = report_.size() + line.size() + 1 > ScrubReport::kMaxBytes - kFull.size();
    report_ += report_full_ ? std::string(kFull) : line + '\n';
    report_changed_ = true;
  }
}

Scrub::Nanoseconds Scrub::finish_pass() {
  if (!suspects_.empty()) {
    const Result<void> confirmed = confirm();
    if (!confirmed) {
      const int error = confirmed.error().errno_value();
      if (error == ECANCELED || error == ENOSPC || error == EAGAIN) {
        save_if_due(false);
        return kRetryAfter;
      }
      fail_with(confirmed.error());
      return kNothingToDo;
    }
  }
  std::unique_lock lock(mutex_);
  if (now_.pass == pass_ && state_ == ODX_SCRUB_RUNNING) {
    change_state(ODX_SCRUB_DONE);
    log::info("scrub: {} blocks read, {} of them damaged", now_.done_blocks, now_.damaged_blocks);
  }
  lock.unlock();
  save_if_due(true);
  return kNothingToDo;
}

void Scrub::fail_with(const Error& error) {
  log::error("the scrub has ended: {}", error.message());
  const std::lock_guard lock(mutex_);
  if (now_.pass == pass_ && state_ == ODX_SCRUB_RUNNING) {
    change_state(ODX_SCRUB_FAILED);
    error_ = error.errno_value();
  }
}

// ---- keeping it ----

void Scrub::save_if_due(bool now) {
  const std::int64_t time = core_.clock->now_ns();
  const bool recent = time >= saved_ns_ && Nanoseconds(time - saved_ns_) < options_.save_interval;
  if (recent && !now) {
    return;
  }
  saved_ns_ = time;
  const Result<void> saved = save();
  if (!saved && !std::exchange(save_failed_, true)) {
    log::warn("the position of the scrub is not kept: {}", saved.error().message());
  }
  save_failed_ = save_failed_ && !saved;
}

Result<void> Scrub::save() {
  std::unique_lock lock(mutex_);
  if (!changed_ || now_.pass == 0 || core_.read_only) {
    return {};
  }
  ScrubRecord record = now_;
  if (safe_) {
    record.position = safe_->position;
    record.done_blocks = safe_->done_blocks;
  }
  record.state = state_ == ODX_SCRUB_PAUSED      ? ScrubRecord::State::kPaused
                 : state_ == ODX_SCRUB_DONE      ? ScrubRecord::State::kDone
                 : state_ == ODX_SCRUB_CANCELLED ? ScrubRecord::State::kCancelled
                                                 : ScrubRecord::State::kActive;
  const bool with_report = report_changed_;
  std::string report;
  if (with_report) {
    report = ScrubReport{now_.pass, report_}.encode();
  }
  changed_ = report_changed_ = false;
  lock.unlock();

  const Result<void> saved = [&]() -> Result<void> {
    Mutation mutation = ODX_TRY(Mutation::begin(core_));
    mutation.kv().put(keys::long_operation(kScrubOperation), record.encode());
    if (with_report) {
      mutation.kv().put(keys::long_operation(kScrubReportOperation), std::move(report));
    }
    ODX_TRY(mutation.commit());
    return {};
  }();
  lock.lock();
  if (!saved) {
    changed_ = true;
    report_changed_ = report_changed_ || with_report;
    return saved;
  }
  if (now_.pass == record.pass) {
    saved_position_ = record.position * kBlockBytes;
  }
  return {};
}

}  // namespace odx
