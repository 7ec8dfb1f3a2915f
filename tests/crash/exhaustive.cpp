// Bounded exhaustive testing: every sequence of up to three steps over two files. Small sequences
// with a sync at the right place show most mistakes (Mohan et al., "Finding Crash-Consistency Bugs
// with Bounded Black-Box Crash Testing", OSDI 2018).
//
// A sequence runs on a store made from the same image every time; of the log that it leaves only
// the part of its last step is cut, as the rest was when its prefix was a sequence. Everything is
// decided by the sequence, so many of them leave the same bytes: each image is opened, checked and
// worked with once, and remembered by what it showed.
#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <random>

#include "memory.hpp"
#include "sweep.hpp"

namespace odx::crash {

namespace {

// Two files, n0 of 9,997 bytes and n1 of 4,999. What the numbers of an Op mean is in workload.cpp.
const std::vector<Op> kBase = {{OpKind::kCreate, 0, 0, 0, 0},
                               {OpKind::kCreate, 0, 1, 0, 0},
                               {OpKind::kWrite, 0, 0, 9996, 1},
                               {OpKind::kWrite, 1, 0, 4998, 2},
                               {OpKind::kSync, 0, 0, 0, 0}};

const std::vector<Op> kAlphabet = {
    {OpKind::kWrite, 0, 0, 20, 3},          // n0, its first block
    {OpKind::kWrite, 0, 51, 20, 4},         // n0, its second block
    {OpKind::kWrite, 0, 1000, 999, 5},      // n0 [1000, 2000)
    {OpKind::kWrite, 0, 10001, 1500, 6},    // n0, behind its end
    {OpKind::kWrite, 1, 0, 20, 7},          // n1, its first block
    {OpKind::kTruncate, 0, 0, 0, 0},        // n0 to nothing
    {OpKind::kTruncate, 0, 5001, 0, 0},     // n0 to 5001
    {OpKind::kTruncate, 0, 15001, 0, 0},    // n0 to 15001
    {OpKind::kPunch, 0, 4096, 4095, 0},     // n0, its second block
    {OpKind::kPunch, 0, 1000, 2999, 0},     // n0 [1000, 4000)
    {OpKind::kCollapse, 0, 4096, 4095, 0},  // n0, its second block
    {OpKind::kInsert, 0, 4096, 4095, 0},
    {OpKind::kClone, 0, 1, 0, 0},      // n0 over n1
    {OpKind::kCopy, 0, 1, 100, 5000},  // n0 [100, 5101) to n1 at 5000
    {OpKind::kCopy, 1, 0, 0, 4096},    // n1 to n0 at 4096
    {OpKind::kRename, 0, 1, 0, 0},     // n0 over n1
    {OpKind::kRename, 0, 2, 0, 0},     // n0 to n2
    {OpKind::kExchange, 0, 0, 0, 1},
    {OpKind::kLink, 0, 3, 0, 0},  // n0 as n3, too
    {OpKind::kUnlink, 0, 0, 0, 0},
    {OpKind::kUnlink, 0, 1, 0, 0},
    {OpKind::kReap, 0, 0, 0, 0},
    {OpKind::kCreate, 0, 4, 0, 0},
    {OpKind::kOffloadRead, 0, 0, 0, 15},  // 8 KiB of n0
    {OpKind::kOffloadWrite, 0, 1, 0, 0},  // into n1
    {OpKind::kDropToken, 0, 0, 0, 0},
    {OpKind::kReclaim, 0, 0, 0, 0},
    {OpKind::kOffloadReadSync, 0, 0, 0, 15},
    {OpKind::kFsync, 0, 0, 0, 0},
    {OpKind::kFsync, 1, 0, 0, 0},
    {OpKind::kCheckpoint, 0, 0, 0, 0},
};
constexpr std::size_t kPlain = 27;  // of these; a sync may follow them. The others are syncs.

// One step: an operation of the alphabet, then a sync or not.
std::size_t steps() { return kAlphabet.size() + kPlain; }

void append_step(std::vector<Op>& ops, std::size_t step) {
  ops.push_back(kAlphabet[step < kAlphabet.size() ? step : step - kAlphabet.size()]);
  if (step >= kAlphabet.size()) {
    ops.push_back({OpKind::kSync, 0, 0, 0, 0});
  }
}

std::array<std::uint64_t, 2> hash_of(const Medium& medium) {
  std::array<std::uint64_t, 2> sum{};
  for (const auto& [name, number] : medium.names) {
    const Content& content = medium.files.at(number);
    const std::uint64_t salt = XXH3_64bits(name.data(), name.size()) + content.size;
    sum[0] += salt;
    for (const auto& [at, page] : content.pages) {
      const XXH128_hash_t hash =
          XXH3_128bits_withSeed(page->data(), kPage, salt ^ (at * 0x9E3779B1));
      sum[0] += hash.low64;
      sum[1] += hash.high64;
    }
  }
  return sum;
}

// Two listeners, as one.
class Both final : public FileListener {
 public:
  Both(Recorder& recorder, Folder& folder) : a_(recorder), b_(folder) {}
  void wrote(ino_t file, std::uint64_t at, std::span<const std::byte> data, bool synced) override {
    a_.wrote(file, at, data, synced);
    b_.wrote(file, at, data, synced);
  }
  void resized(ino_t file, std::uint64_t bytes) override {
    a_.resized(file, bytes);
    b_.resized(file, bytes);
  }
  void reserved(ino_t file, std::uint64_t end) override {
    a_.reserved(file, end);
    b_.reserved(file, end);
  }
  void punched(ino_t file, std::uint64_t at, std::uint64_t bytes) override {
    a_.punched(file, at, bytes);
    b_.punched(file, at, bytes);
  }
  void synced(ino_t file) override { a_.synced(file); }
  void created(ino_t dir, const std::string& name, ino_t file) override {
    a_.created(dir, name, file);
    b_.created(dir, name, file);
  }
  void renamed(ino_t from_dir, const std::string& from, ino_t to_dir,
               const std::string& to) override {
    a_.renamed(from_dir, from, to_dir, to);
    b_.renamed(from_dir, from, to_dir, to);
  }
  void unlinked(ino_t dir, const std::string& name) override {
    a_.unlinked(dir, name);
    b_.unlinked(dir, name);
  }

 private:
  Recorder& a_;
  Folder& b_;
};

}  // namespace

std::string Sweep::verify_once(const Medium& medium, const Recording& recording,
                               std::uint64_t first, std::uint64_t last) {
  ++points_;
  const auto key = hash_of(medium);
  auto seen = images_.find(key);
  if (seen == images_.end()) {
    image_->hold(medium);
    const Listening listening(*image_);
    Seen now;
    now.wrong = verify(recording, first, last, images_.size(), &now.state);
    seen = images_.emplace(key, std::move(now)).first;
  }
  if (!seen->second.wrong.empty()) {
    return seen->second.wrong;
  }
  const auto begin = recording.history.begin() + static_cast<std::ptrdiff_t>(first);
  const auto end = recording.history.begin() + static_cast<std::ptrdiff_t>(last) + 1;
  if (std::find(begin, end, seen->second.state) == end) {
    return fmt::format("it is none of the states {} to {}; compared with {}:\n", first, last,
                       last) +
           first_differences(*(end - 1), seen->second.state);
  }
  return {};
}

// Runs `ops` and cuts what the last step, from operation `last_step` on, wrote.
std::optional<Violation> Sweep::sequence(const Base& base, const std::vector<Op>& ops,
                                         std::size_t last_step) {
  ++runs_;
  seed_random(42);
  live_->hold(base.medium);
  Recorder recorder(*live_, base.medium);
  Recording recording;
  {
    Both both(recorder, *live_);
    const Listening listening(both);
    auto store = Store::open(live_->path(), open_options(clock_));
    if (!store) {
      return Violation{"opening: " + store.error().message(), "no crash", {}};
    }
    Runner runner(**store, base.state, &recorder);
    for (const Op& op : ops) {
      if (const auto ran = runner.run(op); !ran) {
        return Violation{ran.error().message(), "no crash: the sequence itself", runner.done};
      }
    }
    recording.history = std::move(runner.history);
    recording.done = std::move(runner.done);
    recording.end = std::move(runner.state());
    store->reset();
  }
  recording.entries = std::move(recorder.entries);

  using Keep = PowerCut::Keep;
  PowerCut disk(base.medium, lie_);
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  bool cut = last_step == 0;
  std::mt19937_64 random(last_step + ops.size());
  const std::size_t count = recording.entries.size();
  for (std::size_t i = 0; i <= count; ++i) {
    const Entry* next = i < count ? &recording.entries[i] : nullptr;
    cut = cut || (next != nullptr && next->kind == Entry::Kind::kBegin && next->at > last_step);
    const bool at_sync = next == nullptr || next->kind == Entry::Kind::kSync ||
                         next->kind == Entry::Kind::kSyncDir || next->synced;
    if (cut && at_sync) {
      const bool change = next != nullptr && (next->changes_content() || next->changes_names());
      const Entry* under_way = change ? next : nullptr;
      for (const auto& [keep, entry] : {std::pair<Keep, const Entry*>{Keep::kNothing, nullptr},
                                        {Keep::kEverything, nullptr},
                                        {Keep::kEverything, under_way},
                                        {Keep::kSome, under_way}}) {
        const std::string wrong =
            verify_once(disk.crash(keep, random(), entry), recording, first, last);
        if (!wrong.empty()) {
          return Violation{wrong,
                           fmt::format("at entry {} of {}, keeping {}, states {} to {}", i, count,
                                       static_cast<int>(keep), first, last),
                           recording.done};
        }
        if (!disk.anything_waits() && under_way == nullptr) {
          break;  // they would all be the same
        }
      }
    }
    if (next == nullptr) {
      break;
    }
    if (next->kind == Entry::Kind::kBegin) {
      last = next->at;
    } else if (next->kind == Entry::Kind::kAcknowledge) {
      first = std::max(first, next->at);
    } else {
      disk.pass(*next);
    }
  }
  return std::nullopt;
}

std::optional<Violation> Sweep::exhaustive(const Bounds& bounds) {
  const Base base = make_base_of("two files", kBase);
  live_.emplace(root_ + "/two-files");
  const std::uint64_t n = steps();
  std::uint64_t total = 1;
  std::mt19937_64 random(bounds.seed);
  for (unsigned length = 1; length <= bounds.longest; ++length) {
    total *= n;
    const bool sampled = length == bounds.longest && bounds.sample != 0;
    const std::uint64_t count = sampled ? bounds.sample : total;
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint64_t number = sampled ? random() % total : i;
      if (i % bounds.parts != bounds.part) {
        continue;
      }
      std::vector<Op> ops;
      std::size_t last_step = 0;
      for (unsigned step = 0; step < length; ++step) {
        last_step = ops.size();
        append_step(ops, number % n);
        number /= n;
      }
      if (auto bad = sequence(base, ops, last_step)) {
        return bad;
      }
    }
  }
  return std::nullopt;
}

}  // namespace odx::crash
