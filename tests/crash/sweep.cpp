// The sweep.
//
// A workload runs once, on a real store, with every write and sync written down. The crashes are
// made from that log afterwards: for each place in it, what a disk may then hold is put into a
// folder, opened as after any power cut, and compared with the history of the model. It must be
// exactly the state after some operation that had begun, and none older than the last one that was
// known to be durable. Places: each sync, just before and just after it and in the middle of synced
// writes; and random writes between. Some of the recoveries are recorded too and cut short in the
// same way, after a power cut as after the mere death of the process: once a recovered store has
// shown a state it must never show another.
//
// The store runs without its own thread, and without its timer but for every fifth workload, so
// that a seed decides all.
#include "sweep.hpp"

#include <fmt/core.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "memory.hpp"
#include "store/check/check.hpp"

namespace odx::crash {

namespace {

constexpr std::size_t kOpsPerWorkload = 48;

std::mt19937_64 seeded_random(1);

void fill_random(void* into, size_t bytes) {
  auto* out = static_cast<unsigned char*>(into);
  for (size_t i = 0; i < bytes; ++i) {
    out[i] = static_cast<unsigned char>(seeded_random() >> 32);
  }
}

template <class T>
T must(Result<T> result) {
  if (!result) {
    throw std::runtime_error("while making a store: " + result.error().message());
  }
  if constexpr (!std::is_void_v<T>) {
    return *std::move(result);
  }
}

std::string problems_of(const CheckReport& report) {
  std::string out = fmt::format("check found {} problems\n", report.problem_count);
  for (std::size_t i = 0; i < std::min<std::size_t>(report.problems.size(), 8); ++i) {
    out += "    " + report.problems[i] + "\n";
  }
  return out;
}

}  // namespace

void use_seeded_random() {
  static randombytes_implementation source{};
  source.implementation_name = [] { return "seeded"; };
  source.random = []() -> std::uint32_t {
    return static_cast<std::uint32_t>(seeded_random() >> 32);
  };
  source.buf = [](void* const into, const size_t bytes) { fill_random(into, bytes); };
  randombytes_set_implementation(&source);
}

Sweep::Sweep(const std::string& root, Lie lie) : root_(root), lie_(lie) {
  make_bases();
  image_.emplace(root_ + "/image");
}

void seed_random(std::uint64_t seed) { seeded_random.seed(seed); }

Base Sweep::make_base_of(const std::string& name, const std::vector<Op>& ops) {
  seed_random(4711);
  const std::string dir = root_ + "/base";
  std::filesystem::remove_all(dir);
  FormatOptions format;
  format.limit_bytes = 16ULL << 20;
  format.journal_bytes = 1ULL << 20;
  must(Store::format(dir, format));
  State state;
  state.model.nodes[kRootInode.value()] = Node{S_IFDIR | 0755, 2, {}, {}, {}, 0};
  auto store = must(Store::open(dir, open_options(clock_)));
  Runner runner(*store, state, nullptr);
  for (const Op& op : ops) {
    must(runner.run(op));
  }
  state = runner.state();
  must(store->close());
  store.reset();
  for (auto& [ino, node] : state.model.nodes) {
    node.changed = 0;
  }
  return {name, Medium::load(dir), std::move(state)};
}

// `extra_syncs`: journal batches after which the ring is about to begin its next lap.
Base Sweep::make_base(const std::string& name, std::size_t extra_syncs, bool fill, bool close) {
  seeded_random.seed(4711);
  const std::string dir = root_ + "/base";
  std::filesystem::remove_all(dir);
  FormatOptions format;
  format.limit_bytes = 16ULL << 20;
  format.journal_bytes = 1ULL << 20;
  must(Store::format(dir, format));
  State state;
  state.model.nodes[kRootInode.value()] = Node{S_IFDIR | 0755, 2, {}, {}, {}, 0};
  auto store = must(Store::open(dir, open_options(clock_)));
  if (fill) {
    Runner runner(*store, state, nullptr);
    for (const Op& op : base_ops()) {
      must(runner.run(op));
    }
    for (std::size_t i = 0; i < extra_syncs; ++i) {
      must(runner.run({OpKind::kChmod, 1, i, 0, 0}));
      must(runner.run({i % 60 == 59 ? OpKind::kCheckpoint : OpKind::kSync, 0, 0, 0, 0}));
    }
    state = runner.state();
  }
  if (close) {
    must(store->close());
  }
  store.reset();
  for (auto& [ino, node] : state.model.nodes) {
    node.changed = 0;
  }
  return {name, Medium::load(dir), std::move(state)};
}

void Sweep::make_bases() {
  bases_.push_back(make_base("new, never written to", 0, false, true));
  bases_.push_back(make_base("filled, closed", 0, true, true));
  bases_.push_back(make_base("filled, crashed", 0, true, false));
  bases_.push_back(make_base("ring nearly full, closed", 235, true, true));
  bases_.push_back(make_base("ring nearly full, crashed", 240, true, false));
}

const Base& Sweep::base_of(std::uint64_t seed) const {
  const std::uint64_t pick = seed % 9;
  return bases_[pick == 0 ? 0 : 1 + pick % 4];
}

std::vector<Op> Sweep::ops_of(std::uint64_t seed) {
  if (seed % 7 == 3) {
    return churn_ops(seed);
  }
  return make_ops(seed * 0x9E3779B97F4A7C15ULL + 17, kOpsPerWorkload);
}

Sweep::Recording Sweep::record(const Base& base, const std::vector<Op>& ops, const Plan& plan) {
  seeded_random.seed(42);
  std::filesystem::remove_all(root_ + "/live");
  Folder folder(root_ + "/live");
  folder.hold(base.medium);
  Recorder recorder(folder, base.medium);
  const bool later = plan.fault.kind == Fault::Kind::kFullHost;  // opening makes a lock file
  if (!later) {
    recorder.fault = plan.fault;
  }
  Recording recording;
  OpenOptions options = open_options(clock_);
  if (plan.timers) {
    use_timers(options);
  }
  {
    const Listening listening(recorder);
    fail_allocation(plan.allocation);
    auto store = exposed([&] { return Store::open(folder.path(), std::move(options)); });
    if (!store) {
      recording.struck = allocation_failed();
      fail_allocation(0);
      recording.error = "opening the base: " + store.error().message();
      recording.history.push_back(base.state.model.describe());
      recording.end = base.state;
    } else {
      Runner runner(**store, base.state, &recorder);
      if (later) {
        recorder.fault = plan.fault;
      }
      run_all(**store, runner, recorder, ops, plan, recording);
      recording.allocations = allocations();
      recording.struck = recorder.struck() || allocation_failed();
      fail_allocation(0);
      recording.history = std::move(runner.history);
      recording.done = std::move(runner.done);
      recording.acknowledged = runner.acknowledged;
      recording.end = std::move(runner.state());
      judge_live(**store, recorder, plan, recording);
      store->reset();
    }
  }
  recording.struck = recording.struck || recorder.struck();
  recording.misdirected = recorder.misdirected;
  recording.entries = std::move(recorder.entries);
  if (plan.fault.kind == Fault::Kind::kNone && plan.allocation == 0 && recording.error.empty()) {
    // Everything that happened to the files has been written down?
    PowerCut all(base.medium, Lie::kNone);
    for (const Entry& entry : recording.entries) {
      all.pass(entry);
    }
    const std::string missed =
        all.crash(PowerCut::Keep::kEverything, 0, nullptr).difference(Medium::load(folder.path()));
    if (!missed.empty()) {
      recording.wrong = "the record of writes is not complete: " + missed;
    }
  }
  return recording;
}

// An operation that fails is told to its caller and leaves nothing behind; as long as the store
// has not failed the others go on.
void Sweep::run_all(Store& store, Runner& runner, Recorder& recorder, const std::vector<Op>& ops,
                    const Plan& plan, Recording& recording) {
  for (const Op& op : ops) {
    const Result<void> ran = runner.run(op);
    if (ran) {
      continue;
    }
    if (recording.error.empty()) {
      recording.error = ran.error().message();
      recording.error_number = ran.error().errno_value();
    }
    recording.last_failed = op.kind;
    if (plan.fault.kind == Fault::Kind::kFullHost) {
      recorder.fault = {};  // there is room again
    }
    if (!store.core().meta->health()) {
      return;
    }
    if (++recording.errors > 1 && !plan.damages()) {
      recording.wrong = "one call failed, and later operations as well: " + ran.error().message();
      return;
    }
    if (plan.fault.kind == Fault::Kind::kNone && plan.allocation == 0) {
      return;
    }
  }
}

void Sweep::judge_live(Store& store, Recorder& recorder, const Plan& plan, Recording& recording) {
  recorder.fault = {};
  const Result<void> health = store.core().meta->health();
  recording.failed = !health.has_value();
  if (recording.failed) {
    recording.lost_word = store.names().sync().has_value();
    NewInode what;
    what.mode = S_IFREG | 0600;
    if (store.names().create(kRootInode, "too late", what)) {
      recording.wrong = "a store that has failed takes a change";
    }
    if (health.error().message().empty()) {
      recording.wrong = "a store that has failed does not say why";
    }
  }
  if (!recording.wrong.empty()) {
    return;
  }
  if (plan.damages()) {
    recording.wrong = wrong_bytes(store, recording.end.model, recording.refused);
    if (recording.wrong.empty() && !recording.failed && store.names().sync()) {
      recording.acknowledged = recording.history.size() - 1;
    }
    return;
  }
  // Also after an operation that failed: nothing of it may be seen. (A token that could not be made
  // durable exists all the same.)
  if (recording.failed && recording.last_failed == OpKind::kOffloadReadSync) {
    return;
  }
  if (const auto now = describe(store); !now) {
    recording.wrong = "reading the live store: " + now.error().message();
  } else if (*now != recording.history.back()) {
    recording.wrong =
        "the live store is not the model:\n" + first_differences(recording.history.back(), *now);
  }
}

std::string Sweep::verify_open(Store& store, const Recording& recording, std::uint64_t first,
                               std::uint64_t last, bool at_length, std::string* state) {
  const Result<std::string> found = describe(store);
  if (!found) {
    return "reading the store: " + found.error().message();
  }
  if (state != nullptr) {
    *state = *found;
  }
  const auto begin = recording.history.begin() + static_cast<std::ptrdiff_t>(first);
  const auto end = recording.history.begin() + static_cast<std::ptrdiff_t>(last) + 1;
  if (std::find(begin, end, *found) == end) {
    const auto any = std::find(recording.history.begin(), recording.history.end(), *found);
    if (any != recording.history.end()) {
      return fmt::format("it is the state after operation {}, but must be one of {} to {}",
                         any - recording.history.begin(), first, last);
    }
    return fmt::format("it is none of the states {} to {}; compared with {}:\n", first, last,
                       last) +
           first_differences(*(end - 1), *found) + fmt::format("  compared with {}:\n", first) +
           first_differences(*begin, *found);
  }

  Core& core = store.core();
  CheckOptions options;
  options.data = true;
  const CheckSubject subject{*core.meta, core.super.uuid, core.device->blocks(), core.device.get()};
  const Result<CheckReport> report = check_state(subject, options);
  if (!report) {
    return "check: " + report.error().message();
  }
  if (!report->clean()) {
    return problems_of(*report);
  }

  // It takes new work.
  int number = 0;
  TokenId after{};
  for (;;) {
    const auto page = store.tokens().list(after, 64, 0);
    if (!page) {
      return "listing tokens: " + page.error().message();
    }
    if (page->empty()) {
      break;
    }
    for (const odx_token_info& info : *page) {
      const auto known = recording.end.known.find(hex(info.id, sizeof info.id));
      if (known == recording.end.known.end()) {
        return "there is a token that nobody was given";
      }
      const auto shown = redeem(store, known->second, fmt::format("redeemed{}", ++number));
      if (!shown) {
        return "redeeming a token: " + shown.error().message();
      }
      if (*shown != known->second.content) {
        return "a token shows other bytes";
      }
    }
    std::copy(std::begin(page->back().id), std::end(page->back().id), after.begin());
  }
  const std::string data = pattern(10'000, 99);
  NewInode what;
  what.mode = S_IFREG | 0600;
  const auto made = store.names().create(kRootInode, "afterwards", what);
  if (!made) {
    return "creating a file: " + made.error().message();
  }
  if (const auto wrote =
          store.files().write((*made)->ino, FileOffset(100), std::as_bytes(std::span(data)));
      !wrote) {
    return "writing a file: " + wrote.error().message();
  }
  if (const auto reclaimed = store.reclaim(); !reclaimed) {
    return "reclaiming: " + reclaimed.error().message();
  }
  if (const auto synced = at_length ? core.meta->checkpoint() : store.names().sync(); !synced) {
    return "syncing: " + synced.error().message();
  }
  const auto again =
      check_state({*core.meta, core.super.uuid, core.device->blocks(), core.device.get()}, options);
  if (!again) {
    return "check after new work: " + again.error().message();
  }
  return again->clean() ? std::string() : "after new work: " + problems_of(*again);
}

std::string Sweep::verify(const Recording& recording, std::uint64_t first, std::uint64_t last,
                          std::uint64_t seed, std::string* state) {
  const bool at_length = seed % 8 == 0;
  CheckOptions options;
  options.data = true;
  if (at_length) {
    // As `odx check` sees it, before anything is repaired by opening.
    const auto report = check_store(image_->path(), options);
    if (!report) {
      return "check of the folder: " + report.error().message();
    }
    if (!report->clean()) {
      return "before opening: " + problems_of(*report);
    }
  }
  auto store = Store::open(image_->path(), open_options(clock_));
  if (!store) {
    return "opening: " + store.error().message();
  }
  if (const std::string wrong = verify_open(**store, recording, first, last, at_length, state);
      !wrong.empty()) {
    return wrong;
  }
  if (at_length) {
    if (const auto closed = (*store)->close(); !closed) {
      return "closing: " + closed.error().message();
    }
    store->reset();
    const auto report = check_store(image_->path(), options);
    if (!report) {
      return "check after closing: " + report.error().message();
    }
    if (!report->clean()) {
      return "after closing: " + problems_of(*report);
    }
  }
  return {};
}

std::optional<Violation> Sweep::crashes_of_recovery(std::uint64_t seed, const std::string& name,
                                                    const Medium& start, const PowerCut& disk,
                                                    const Recording& recording, std::uint64_t first,
                                                    std::uint64_t last) {
  std::filesystem::remove_all(root_ + "/again");
  Folder folder(root_ + "/again");
  folder.hold(start);
  Recorder recorder(folder, start);
  Recording second;
  second.history.assign(recording.history.begin() + static_cast<std::ptrdiff_t>(first),
                        recording.history.begin() + static_cast<std::ptrdiff_t>(last) + 1);
  second.done = recording.done;
  second.end.known = recording.end.known;
  const std::uint64_t found = second.history.size();
  const auto recover = [&]() -> Result<void> {
    const auto store = ODX_TRY(Store::open(folder.path(), open_options(clock_)));
    second.history.push_back(ODX_TRY(describe(*store)));
    // What a recovered store shows is never taken back.
    recorder.begin(found);
    recorder.acknowledge(found);
    ODX_TRY(store->names().sync());
    ODX_TRY(store->reclaim());
    return store->close();
  };
  Result<void> recovered;
  {
    const Listening listening(recorder);
    recovered = recover();
  }
  const std::string where = name + ", then in the recovery of image seed " + std::to_string(seed);
  if (!recovered) {
    return Violation{"recovering: " + recovered.error().message(), where, recording.done};
  }
  second.entries = std::move(recorder.entries);
  return crashes(seed, where, disk, second, 0, found - 1, true);
}

std::optional<Violation> Sweep::crashes(std::uint64_t seed, const std::string& name, PowerCut disk,
                                        const Recording& recording, std::uint64_t first,
                                        std::uint64_t last, bool again) {
  using Keep = PowerCut::Keep;
  std::mt19937_64 random(seed ^ 0xC0FFEE);
  bool moved = true;  // something became durable since the last crash that kept nothing
  const std::vector<Entry>& entries = recording.entries;
  const auto crash = [&](std::size_t place, Keep keep, const Entry* under_way,
                         const char* kind) -> std::optional<Violation> {
    const std::uint64_t point_seed = random();
    ++points_;
    const Medium left = disk.crash(keep, point_seed, under_way);
    image_->hold(left);
    std::string wrong;
    {
      const Listening listening(*image_);
      wrong = verify(recording, first, last, point_seed);
    }
    const std::string where = fmt::format("{}, at entry {} of {}, {}, states {} to {}", name, place,
                                          entries.size(), kind, first, last);
    if (!wrong.empty()) {
      return Violation{wrong, where, recording.done};
    }
    if (!again && point_seed % 24 == 5) {
      // What is kept only because no power was cut, but the process killed, waits still.
      return crashes_of_recovery(point_seed, where, left,
                                 keep == Keep::kEverything ? disk : PowerCut(left, lie_), recording,
                                 first, last);
    }
    return std::nullopt;
  };
  for (std::size_t i = 0; i <= entries.size(); ++i) {
    const Entry* next = i < entries.size() ? &entries[i] : nullptr;
    const bool at_sync = next == nullptr || next->kind == Entry::Kind::kSync ||
                         next->kind == Entry::Kind::kSyncDir || next->synced;
    const bool change = next != nullptr && (next->changes_content() || next->changes_names());
    if (at_sync) {
      if (moved) {
        if (auto bad = crash(i, Keep::kNothing, nullptr, "all that waits is lost")) {
          return bad;
        }
        moved = false;
      }
      if (disk.anything_waits()) {
        if (auto bad = crash(i, Keep::kEverything, nullptr, "all that waits is kept")) {
          return bad;
        }
      }
    }
    if (disk.anything_waits() || (change && at_sync)) {
      const int times = at_sync ? 2 : (change && random() % 2 == 0 ? 1 : 0);
      for (int n = 0; n < times; ++n) {
        if (auto bad =
                crash(i, Keep::kSome, change ? next : nullptr, "some of what waits is kept")) {
          return bad;
        }
      }
    }
    if (next == nullptr) {
      break;
    }
    if (next->kind == Entry::Kind::kBegin) {
      last = next->at;
    } else if (next->kind == Entry::Kind::kAcknowledge) {
      moved = moved || next->at > first;
      first = std::max(first, next->at);
    } else {
      moved = moved || at_sync;
      disk.pass(*next);
    }
  }
  return std::nullopt;
}

std::optional<Violation> Sweep::workload(std::uint64_t seed) {
  return workload(seed, ops_of(seed));
}

std::optional<Violation> Sweep::workload(std::uint64_t seed, const std::vector<Op>& ops) {
  ++runs_;
  const Base& base = base_of(seed);
  Plan plan;
  plan.timers = seed % 5 == 4;
  const Recording recording = record(base, ops, plan);
  if (!recording.error.empty() || !recording.wrong.empty()) {
    return Violation{recording.error + recording.wrong,
                     "no crash: the workload itself, base " + base.name, recording.done};
  }
  return crashes(seed, "base \"" + base.name + "\"", PowerCut(base.medium, lie_), recording, 0, 0,
                 false);
}

std::vector<Op> Sweep::minimise(std::uint64_t seed, std::vector<Op> ops) {
  for (std::size_t step = std::max<std::size_t>(ops.size() / 2, 1);;) {
    bool dropped = false;
    for (std::size_t at = 0; at < ops.size();) {
      std::vector<Op> fewer = ops;
      const auto from = fewer.begin() + static_cast<std::ptrdiff_t>(at);
      fewer.erase(from, from + static_cast<std::ptrdiff_t>(std::min(step, fewer.size() - at)));
      if (workload(seed, fewer)) {
        ops = std::move(fewer);
        dropped = true;
      } else {
        at += step;
      }
    }
    if (step == 1 && !dropped) {
      return ops;
    }
    step = std::max<std::size_t>(step / 2, 1);
  }
}

}  // namespace odx::crash
