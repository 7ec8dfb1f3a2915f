// Unlinking a huge file costs its caller one record: the root goes into the queue (table `G`), and
// this thread works through it. A step takes one node apart: its children lose a reference each,
// and those without any left are queued in turn. A transaction does a bounded number of steps, so
// a crash in between loses nothing, and callers wait for the mutation lock only briefly.

#include "store/background.hpp"
#include "base/log.hpp"

#include <chrono>

#include "store/meta/keys.hpp"
#include "store/mutation.hpp"

namespace odx {

Result<void> reclaim_queue(Core& core) {
  constexpr std::size_t kStepsPerTransaction = 16;
  for (;;) {
    Mutation mutation = ODX_TRY(Mutation::begin(core));
    const auto queued = ODX_TRY(mutation.kv().scan(
        keys::table_begin(keys::kReclaim), keys::table_end(keys::kReclaim), kStepsPerTransaction));
    if (queued.empty()) {
      return {};
    }
    for (const KeyValue& entry : queued) {
      ODX_TRY(mutation.trees().reclaim(NodeId(keys::number_of(entry.key))));
    }
    ODX_TRY(mutation.commit());
  }
}

Background::Background(Core& core, Tokens& tokens)
    : core_(core), tokens_(tokens), thread_([this] { run(); }) {}

Background::~Background() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Background::wake() {
  {
    const std::lock_guard lock(mutex_);
    work_ = true;
  }
  changed_.notify_all();
}

void Background::run() {
  using std::chrono::nanoseconds;
  // Deferred blocks that a reader held back become free at the next round.
  constexpr nanoseconds kRound = std::chrono::seconds(1);
  for (;;) {
    nanoseconds rest = kRound;
    const auto report = [](const char* what, const Error& error) {
      log::error("{}: {}", what, error.message());
    };
    if (core_.meta->health()) {
      if (auto done = reclaim_queue(core_); !done) {
        report("reclaiming space", done.error());
      }
      if (auto next = tokens_.expire(); !next) {
        report("expiring tokens", next.error());
      } else if (*next) {
        rest = std::min(rest, std::max(nanoseconds(**next), nanoseconds(1'000'000)));
      }
      core_.settle_space();
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, rest, [this] { return stop_ || work_; });
    if (stop_) {
      return;
    }
    work_ = false;
  }
}

}  // namespace odx
