// What a repair does, and what it never does.
//
// It mends what follows from records that are whole: counts, what is derived (expiry records,
// bitmaps, the second superblock), names of what has none, records that mean nothing. It never
// - frees data: what nobody refers to gets a name below lost+found, a reference count is lowered
// and
//   a bit of a bitmap cleared only if every record was readable that could hold a reference;
// - makes up content: an inode, a tree node, an attribute, a token or a checksum that cannot be
// read
//   stays, and whoever uses it gets EIO, as before (but for a token, which nobody can use any more:
//   it goes, and what only it referred to is found, not freed). Blocks of a segment that was lost
//   come back as zeros, which no checksum agrees with;
// - touches records of tables that it does not know, a base that LMDB cannot have written, or a
//   store with features that this build does not know.
//
// Crash safety. All changes of the state are one transaction. They come about in passes over an
// overlay: each pass is a whole check of the state with the repairs so far, and takes down those of
// the lowest stage (see findings.hpp), until a pass finds none. Superblocks and segments are
// outside of the state; each step there is safe by itself and is made again if it was interrupted.
//
// A journal that is damaged inside its chain makes the whole state read-only: what was acknowledged
// is lost, and only its owner can say that he wants to go on without it (drop_journal_tail).
#include "store/check/repair.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "store/check/check_pass.hpp"
#include "store/check/store_parts.hpp"
#include "store/device/segment_device.hpp"
#include "store/meta/base_verify.hpp"

namespace odx {

namespace {

using check::add_problem;
using check::Fixes;

Result<void> no_sync() { return {}; }

Result<std::unique_ptr<MetaStore>> open_meta(const std::string& dir, const Uuid& uuid,
                                             const MetaOptions& options) {
  return MetaStore::open(dir, uuid, options, no_sync, [](TxnSeq) {});
}

// A check of everything, under a lock that the caller holds. Damage that keeps a part from being
// looked at is in the report, too.
Result<CheckReport> check_locked(const std::string& dir, const CheckOptions& options,
                                 const check::Superblocks& supers) {
  std::vector<std::string> problems = supers.problems;
  const auto with_problems = [&](CheckReport report) {
    for (auto problem = problems.rbegin(); problem != problems.rend(); ++problem) {
      add_problem(report, *problem);
    }
    return report;
  };
  if (!supers.newest) {
    return with_problems({});
  }
  if (supers.newest->read_only_features()) {
    problems.push_back(fmt::format("the store has features that this build does not know ({:#x})",
                                   supers.newest->ro_compat & ~kKnownRoCompat));
  }
  const check::Segments segments = ODX_TRY(check::check_segments(dir, 0));
  problems.insert(problems.end(), segments.problems.begin(), segments.problems.end());
  std::unique_ptr<BlockDevice> device;
  if (options.data && segments.problems.empty()) {
    SegmentDeviceOptions device_options;
    device_options.read_only = true;
    device = ODX_TRY(open_segment_device(dir + "/data", device_options));
  } else if (options.data) {
    problems.emplace_back("the data was not read, as segments are damaged");
  }
  MetaOptions meta_options;
  meta_options.read_only = true;
  const auto meta = open_meta(dir, supers.newest->uuid, meta_options);
  if (!meta) {
    if (!check::is_damage(meta.error())) {
      return std::unexpected(meta.error());
    }
    problems.push_back(meta.error().detail().empty() ? meta.error().message()
                                                     : meta.error().detail());
    CheckReport report;
    report.segments = segments.files;
    return with_problems(std::move(report));
  }
  const MetaStats stats = (*meta)->stats();
  if (stats.replay_end == JournalEnd::kDamaged) {
    problems.push_back(
        fmt::format("the journal is damaged behind {} batches: changes that were acknowledged are "
                    "lost",
                    stats.replayed_batches));
  }
  CheckReport report =
      ODX_TRY(check_state({**meta, supers.newest->uuid, segments.blocks, device.get()}, options));
  report.segments = segments.files;
  report.replayed_batches = stats.replayed_batches;
  return with_problems(std::move(report));
}

class Repair {
 public:
  Repair(const std::string& dir, const RepairOptions& options) : dir_(dir), options_(options) {}

  Result<RepairReport> run() {
    check::Superblocks supers = ODX_TRY(check::check_superblocks(dir_));
    const Fd lock = ODX_TRY(check::lock_parts(dir_, true));
    CheckOptions structure = options_.check;
    structure.data = false;
    report_.before = ODX_TRY(check_locked(dir_, structure, supers));
    if (!report_.before.clean() && supers.newest && !supers.newest->read_only_features()) {
      super_ = *supers.newest;
      ODX_TRY(mend_superblocks(supers));
      ODX_TRY(mend_segments());
      ODX_TRY(mend_state());
    }
    CheckOptions again = options_.check;
    again.data = again.data || segments_mended_;
    if (report_.repairs.empty() && !again.data) {
      report_.after = report_.before;
    } else {
      report_.after = ODX_TRY(check_locked(dir_, again, ODX_TRY(check::check_superblocks(dir_))));
    }
    return std::move(report_);
  }

 private:
  Result<void> mend_superblocks(const check::Superblocks& supers) {
    Superblock super = *supers.newest;
    for (const std::uint64_t generation : supers.generations) {
      super.generation = generation;
      ODX_TRY(write_superblock(dir_, super));
      report_.repairs.push_back(
          fmt::format("SUPER.{} is written anew, from the other copy", generation % 2));
    }
    return {};
  }

  Result<void> mend_segments() {
    // Extents behind the store's limit are damaged, and tell nothing of segments.
    const std::uint64_t end = report_.before.end_of_extents;
    const std::uint64_t needed = end <= super_.limit_blocks ? end : 0;
    const check::Segments segments = ODX_TRY(check::check_segments(dir_, needed));
    if (segments.wanted.empty()) {
      return {};
    }
    const std::string data = dir_ + "/data";
    if (::mkdir(data.c_str(), 0700) != 0 && errno != EEXIST) {
      return fail(errno, data);
    }
    for (const auto& wanted : segments.wanted) {
      ODX_TRY(lengthen(wanted));
    }
    const Fd directory(::open(data.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid() || ::fsync(directory.get()) != 0) {
      return fail(errno, data);
    }
    segments_mended_ = true;
    return {};
  }

  Result<void> lengthen(const check::Segments::Wanted& wanted) {
    const Fd file(::open(wanted.path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file.valid() || ::ftruncate(file.get(), static_cast<off_t>(wanted.bytes)) != 0 ||
        ::fsync(file.get()) != 0) {
      return fail(errno, wanted.path);
    }
    report_.repairs.push_back(
        fmt::format("segment {} has {} bytes again; what was in the missing ones is lost",
                    std::filesystem::path(wanted.path).filename().string(), wanted.bytes));
    return {};
  }

  Result<void> mend_state() {
    MetaOptions meta_options;
    meta_options.drop_damaged_tail = options_.drop_journal_tail;
    // Not before it is known to be damaged as a whole: opening it writes.
    if (const auto sound = verify_base(dir_ + "/meta"); !sound) {
      return check::is_damage(sound.error()) ? Result<void>() : sound;
    }
    auto meta = open_meta(dir_, super_.uuid, meta_options);
    if (!meta) {
      return check::is_damage(meta.error()) ? Result<void>() : std::unexpected(meta.error());
    }
    if (!(*meta)->health()) {
      return {};  // the journal, which nobody allowed to cut
    }
    if ((*meta)->stats().replay_end == JournalEnd::kDamaged) {
      report_.repairs.push_back(
          fmt::format("the journal is cut behind {} batches; all later changes are given up",
                      (*meta)->stats().replayed_batches));
    }
    const check::Segments segments = ODX_TRY(check::check_segments(dir_, 0));
    KvOverlay state(**meta);
    std::vector<std::string> done;
    ODX_TRY(mend_in_passes({state, super_.uuid, segments.blocks, nullptr}, state, done));
    if (!done.empty()) {
      ODX_TRY((*meta)->commit(state.take_writes()));
    }
    ODX_TRY((*meta)->close());
    report_.repairs.insert(report_.repairs.end(), done.begin(), done.end());
    return {};
  }

  Result<void> mend_in_passes(const CheckSubject& subject, KvOverlay& state,
                              std::vector<std::string>& done) {
    // Each pass mends something for good, so this only bounds what nobody has thought of.
    constexpr int kMostPasses = 100;
    CheckOptions options = options_.check;
    options.data = false;
    options.max_problems = 0;
    for (int pass = 0; pass < kMostPasses; ++pass) {
      Fixes fixes;
      ODX_TRY(check::check_pass(subject, options, &fixes));
      if (fixes.list.empty()) {
        return {};
      }
      for (check::Fix& fix : fixes.list) {
        for (auto& [key, value] : fix.writes) {
          if (value) {
            state.put(key, std::move(*value));
          } else {
            state.erase(key);
          }
        }
        done.push_back(std::move(fix.text));
      }
    }
    return {};
  }

  const std::string& dir_;
  const RepairOptions& options_;
  Superblock super_;
  bool segments_mended_ = false;
  RepairReport report_;
};

// What libraries throw is no reason to end the process of whoever checks.
template <class Work>
auto catching(Work work) -> decltype(work()) {
  try {
    if (::sodium_init() < 0) {
      return fail(EIO, "libsodium cannot be used");
    }
    return work();
  } catch (const std::bad_alloc&) {
    return fail(ENOMEM, "not enough memory for a check");
  } catch (const std::exception& error) {
    return fail(EIO, error.what());
  }
}

}  // namespace

Result<CheckReport> check_store(const std::string& dir, const CheckOptions& options) {
  return catching([&]() -> Result<CheckReport> {
    const check::Superblocks supers = ODX_TRY(check::check_superblocks(dir));
    const Fd lock = ODX_TRY(check::lock_parts(dir, false));
    return check_locked(dir, options, supers);
  });
}

Result<RepairReport> repair_store(const std::string& dir, const RepairOptions& options) {
  return catching([&] { return Repair(dir, options).run(); });
}

}  // namespace odx
