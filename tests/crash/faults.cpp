// Calls that fail, stop short, take long or hit the wrong place, memory that runs out, disks that
// rot: one at a time, at every place of a workload.
//
// What must hold: the process lives; the caller of a failed operation is told; what the store
// showed and what it had promised to keep is not lost, looked at live, after the end of the process
// and after a power cut (where a failed sync has lost what it was to write, for good); and the
// store either goes on as if nothing had been, or takes no change any more and says why. After
// damage to data blocks a read gives the right bytes or EIO, and `check --data` names each block
// that a read complained of.
#include <fmt/core.h>

#include <cstring>
#include <filesystem>

#include "memory.hpp"
#include "store/check/check.hpp"
#include "sweep.hpp"

namespace odx::crash {

namespace {

const char* name_of(Fault::Kind kind) {
  switch (kind) {
    case Fault::Kind::kNone:
      return "nothing";
    case Fault::Kind::kFail:
      return "failed change";
    case Fault::Kind::kFailRead:
      return "failed read";
    case Fault::Kind::kShort:
      return "short write";
    case Fault::Kind::kShortRead:
      return "short read";
    case Fault::Kind::kDelay:
      return "slow call";
    case Fault::Kind::kFlip:
      return "flipped bit";
    case Fault::Kind::kMisdirect:
      return "misdirected write";
    case Fault::Kind::kFullHost:
      return "full host";
  }
  return "?";
}

// What was not synced before something was acknowledged, as the sync of it had failed. A segment
// that is not finished is thrown away instead, and LMDB writes a transaction all anew that found no
// room. Nothing that is acknowledged rests on a super block or its name: a resize answers for them.
std::string forgotten_sync(const std::vector<Entry>& entries, int error) {
  std::string failed;
  for (const Entry& entry : entries) {
    const bool matters = entry.name != "data/new.seg" && !entry.name.starts_with("SUPER.") &&
                         !entry.name.empty() &&
                         !(error == ENOSPC && entry.name.starts_with("meta"));
    if ((entry.kind == Entry::Kind::kSyncFailed || entry.kind == Entry::Kind::kSyncDirFailed) &&
        matters) {
      failed = entry.name;
    } else if (entry.kind == Entry::Kind::kAcknowledge && !failed.empty()) {
      return failed;
    }
  }
  return {};
}

bool names_block(const CheckReport& report, const std::string& block) {
  for (const std::string& problem : report.problems) {
    if (problem.starts_with("block " + block + ":")) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string Sweep::judge_run(const Recording& recording, const Plan& plan) {
  using Kind = Fault::Kind;
  if (!recording.wrong.empty()) {
    return recording.wrong;
  }
  if (recording.lost_word) {
    return "a store that has failed said that it made everything durable";
  }
  if (!recording.struck) {
    return recording.error;
  }
  if (const std::string path = forgotten_sync(recording.entries, plan.fault.error); !path.empty()) {
    return "the sync of " + path + " failed, and later ones are believed";
  }
  const bool quiet = recording.error.empty() && !recording.failed;
  if (quiet && plan.fault.kind == Kind::kFail) {
    return "nobody was told that a call failed";
  }
  if (!quiet && plan.fault.kind == Kind::kDelay) {
    return "a slow call made something fail: " + recording.error;
  }
  return {};
}

// What is in the folder, as after the end of the process; then with what was not synced lost.
std::optional<Violation> Sweep::judge_images(const Base& base, const Recording& recording,
                                             const Plan& plan, const std::string& where) {
  const Medium left = Medium::load(root_ + "/live");
  PowerCut disk(base.medium, Lie::kNone);
  for (const Entry& entry : recording.entries) {
    disk.pass(entry);
  }
  // The operation that failed may have happened or not.
  const std::uint64_t last = recording.history.size() - 1;
  for (int kind = 0; kind < 2; ++kind) {
    ++points_;
    image_->hold(kind == 0 ? left : disk.crash(PowerCut::Keep::kNothing, 0, nullptr));
    std::string wrong;
    {
      const Listening listening(*image_);
      wrong = plan.damages() ? judge_damage(recording)
                             : verify(recording, recording.acknowledged, last, points_);
    }
    if (!wrong.empty()) {
      return Violation{wrong,
                       where + (kind == 0 ? ", process ended" : ", power cut") +
                           "; the caller was told: " + recording.error,
                       recording.done};
    }
  }
  return std::nullopt;
}

// The image's files against the end of the recording, and the check's word about them.
std::string Sweep::judge_damage(const Recording& recording) {
  if (recording.acknowledged + 1 != recording.history.size()) {
    return {};  // it could not be synced: which state it is cannot be told from damaged files
  }
  auto store = Store::open(image_->path(), open_options(clock_));
  if (!store) {
    return "opening: " + store.error().message();
  }
  std::uint64_t refused = 0;
  if (const std::string wrong = wrong_bytes(**store, recording.end.model, refused);
      !wrong.empty()) {
    return wrong;
  }
  // Token by token, as files; what cannot be read is refused here, too.
  int number = 0;
  for (const auto& [id, length] : recording.end.model.tokens) {
    const KnownToken& known = recording.end.known.at(id);
    const auto shown = redeem(**store, known, fmt::format("redeemed{}", ++number));
    if (shown ? *shown != known.content : shown.error().errno_value() != EIO) {
      return "a token shows other bytes" + (shown ? "" : ": " + shown.error().message());
    }
  }
  Core& core = (*store)->core();
  CheckOptions options;
  options.data = true;
  const auto report =
      check_state({*core.meta, core.super.uuid, core.device->blocks(), core.device.get()}, options);
  if (!report) {
    return "check: " + report.error().message();
  }
  if (refused > 0 && report->clean()) {
    return "check --data finds nothing where reads fail";
  }
  for (const auto& [ino, node] : recording.end.model.nodes) {
    for (std::uint64_t at = 0; node.is_regular() && node.links > 0 && at < node.content.size();
         at += kPage) {
      std::string piece(kPage, '\0');
      const auto got = (*store)->files().read(InodeNo(ino), FileOffset(at),
                                              std::as_writable_bytes(std::span(piece)));
      if (got || got.error().detail().find("checksum mismatch in block ") != 0) {
        continue;
      }
      const std::string& detail = got.error().detail();
      const std::size_t from = std::strlen("checksum mismatch in block ");
      const std::string block = detail.substr(from, detail.find(',') - from);
      if (!names_block(*report, block)) {
        return "check --data does not name block " + block;
      }
    }
  }
  return {};
}

std::optional<Violation> Sweep::faults(std::uint64_t seed, Fault::Kind kind, int error) {
  const Base& base = base_of(seed);
  for (std::uint64_t nth = 1;; ++nth) {
    ++runs_;
    Plan plan;
    plan.fault = {kind, nth, error, seed * 1000 + nth};
    const Recording recording = record(base, ops_of(seed), plan);
    const std::string where =
        fmt::format("base \"{}\", {} number {}{} {}", base.name, name_of(kind), nth,
                    error != 0 ? std::string(", ") + std::strerror(error) : std::string(),
                    recording.misdirected);
    if (const std::string wrong = judge_run(recording, plan); !wrong.empty()) {
      return Violation{wrong, where, recording.done};
    }
    if (!recording.struck) {
      return std::nullopt;
    }
    if (auto bad = judge_images(base, recording, plan, where)) {
      return bad;
    }
  }
}

std::optional<Violation> Sweep::failing_allocations(std::uint64_t seed, std::uint64_t step) {
  const Base& base = base_of(seed);
  std::vector<Op> ops = ops_of(seed);
  ops.resize(std::min<std::size_t>(ops.size(), 20));
  for (std::uint64_t nth = 1 + seed % step;; nth += step) {
    ++runs_;
    Plan plan;
    plan.allocation = nth;
    const Recording recording = record(base, ops, plan);
    const std::string where = fmt::format("base \"{}\", allocation {}", base.name, nth);
    if (const std::string wrong = judge_run(recording, plan); !wrong.empty()) {
      return Violation{wrong, where + "; the caller was told: " + recording.error, recording.done};
    }
    if (!recording.struck) {
      return std::nullopt;
    }
    if (auto bad = judge_images(base, recording, plan, where)) {
      return bad;
    }
  }
}

std::optional<Violation> Sweep::rot(std::uint64_t seed) {
  ++runs_;
  const Base& base = base_of(seed);
  std::vector<Op> ops = ops_of(seed);
  ops.push_back({OpKind::kSync, 0, 0, 0, 0});
  Recording recording = record(base, ops, {});
  if (!recording.error.empty() || !recording.wrong.empty()) {
    return Violation{recording.error + recording.wrong, "no damage yet", recording.done};
  }
  const Medium left = Medium::load(root_ + "/live");
  std::mt19937_64 random(seed);
  for (int i = 0; i < 24; ++i) {
    Medium damaged = left;
    const auto file = damaged.names.find("data/0000.seg");
    if (file == damaged.names.end()) {
      return std::nullopt;
    }
    Content& content = damaged.files.at(file->second);
    if (content.pages.empty()) {
      return std::nullopt;
    }
    // Any page that was ever written; some are in use, some not.
    std::vector<std::uint64_t> written;
    for (const auto& [page, bytes] : content.pages) {
      written.push_back(page);
    }
    std::sort(written.begin(), written.end());
    const std::uint64_t page = written[random() % written.size()];
    const std::uint64_t at = page * kPage + random() % kPage;
    const std::byte flipped =
        content.page(page)[at % kPage] ^ static_cast<std::byte>(1U << random() % 8);
    content.write(at, {&flipped, 1});
    ++points_;
    image_->hold(damaged);
    const Listening listening(*image_);
    if (const std::string wrong = judge_damage(recording); !wrong.empty()) {
      return Violation{wrong, fmt::format("a flipped bit in byte {} of the segment", at),
                       recording.done};
    }
  }
  return std::nullopt;
}

std::optional<Violation> Sweep::full_host() {
  for (const Base& base : bases_) {
    const bool closed = base.name.find("closed") != std::string::npos;
    for (std::uint64_t nth = 1; nth <= 3; ++nth) {
      ++runs_;
      Plan plan;
      plan.fault = {Fault::Kind::kFullHost, nth, ENOSPC, 0};
      std::vector<Op> ops = {{OpKind::kMkdir, 0, 7, 0, 0},  {OpKind::kMkdir, 0, 8, 0, 0},
                             {OpKind::kCreate, 0, 9, 0, 0}, {OpKind::kWrite, 0, 0, 0, 0},
                             {OpKind::kSync, 0, 0, 0, 0},   {OpKind::kCheckpoint, 0, 0, 0, 0}};
      const Recording recording = record(base, ops, plan);
      std::string wrong = recording.wrong;
      if (closed && nth == 1) {
        if (recording.error_number != ENOSPC) {
          wrong +=
              "the first change on a full host was not refused with ENOSPC: " + recording.error;
        } else if (recording.failed) {
          wrong += "a full host at the first change failed the whole store";
        }
      }
      const std::string where =
          "base \"" + base.name + "\", full host from call " + std::to_string(nth);
      if (!wrong.empty()) {
        return Violation{wrong, where, recording.done};
      }
      if (auto bad = judge_images(base, recording, plan, where)) {
        return bad;
      }
    }
  }
  return std::nullopt;
}

}  // namespace odx::crash
