// Unlinking a huge file costs its caller one record: the root goes into the queue (table `G`), and
// this thread works through it. A step takes one node apart: its children lose a reference each,
// and those without any left are queued in turn. A transaction does a bounded number of steps, so
// a crash in between loses nothing, and callers wait for the mutation lock only briefly.

#include "store/background.hpp"

#include <algorithm>
#include <exception>
#include <string>

#include "base/log.hpp"
#include "store/meta/keys.hpp"
#include "store/mutation.hpp"

namespace odx {

namespace {

constexpr std::size_t kStepsPerTransaction = 16;

// What one transaction did.
struct Step {
  std::string next;  // where the queue goes on; empty at its end
  bool reclaimed = false;
  bool spoiled = false;  // by one of several; nothing was done
};

// Takes up to `most` subtrees of the queue apart, from key `from` on. A damaged one costs the
// transaction its other steps too, which the next one repeats without it.
Result<Step> reclaim_some(Core& core, const std::string& from, std::size_t most) {
  Mutation mutation = ODX_TRY(Mutation::begin(core));
  const auto queued = ODX_TRY(mutation.kv().scan(from, keys::table_end(keys::kReclaim), most));
  if (queued.empty()) {
    return Step{};
  }
  Step step{queued.back().key + '\0', false};
  const auto pass_by = [&](NodeId id, const Error& why) {
    log::error("the space of a dropped tree stays in use: tree node {}: {}", id.value(),
               why.message());
    core.unreclaimable.insert(id);
    return Step{from, false};
  };
  for (const KeyValue& entry : queued) {
    const NodeId id(keys::number_of(entry.key));
    if (core.unreclaimable.contains(id)) {
      continue;
    }
    if (const auto done = mutation.trees().reclaim(id); !done) {
      if (!done.error().is_corruption()) {
        return std::unexpected(done.error());
      }
      return pass_by(id, done.error());
    }
    step.reclaimed = true;
  }
  if (step.reclaimed) {
    if (const auto prepared = mutation.prepare(); !prepared) {
      if (!prepared.error().is_corruption()) {
        return std::unexpected(prepared.error());
      }
      // One of them frees what is not its own. Singly, it is known which.
      if (queued.size() > 1) {
        return Step{from, false, true};
      }
      return pass_by(NodeId(keys::number_of(queued.front().key)), prepared.error());
    }
    ODX_TRY(mutation.commit());
  }
  return step;
}

}  // namespace

Result<void> reclaim_queue(Core& core, const std::atomic<bool>* stop) {
  for (bool reclaimed = true; reclaimed;) {
    // What a step queues may lie before the place where it stands.
    reclaimed = false;
    std::string from = keys::table_begin(keys::kReclaim);
    std::size_t most = kStepsPerTransaction;
    while (!from.empty()) {
      if (stop != nullptr && *stop) {
        return {};
      }
      Step step = ODX_TRY(reclaim_some(core, from, most));
      most = step.spoiled ? 1 : most;
      from = std::move(step.next);
      reclaimed = reclaimed || step.reclaimed;
    }
  }
  return {};
}

Background::Background(Core& core, Tokens& tokens)
    : core_(core), tokens_(tokens), thread_([this] { run(); }) {}

Background::~Background() {
  stop_ = true;
  core_.background_bell.ring();
  thread_.join();
}

std::chrono::nanoseconds Background::work() {
  using std::chrono::nanoseconds;
  // Deferred blocks that a reader held back become free at the next round.
  nanoseconds rest = std::chrono::seconds(1);
  const auto report = [](const char* what, const Error& error) {
    log::error("{}: {}", what, error.message());
  };
  if (!core_.meta->health()) {
    return rest;
  }
  if (auto done = reclaim_queue(core_, &stop_); !done) {
    report("reclaiming space", done.error());
  }
  if (auto next = tokens_.expire(); !next) {
    report("expiring tokens", next.error());
  } else if (*next) {
    rest = std::min(rest, std::max(nanoseconds(**next), nanoseconds(1'000'000)));
  }
  core_.settle_space();
  if (core_.return_space(Core::ReturnSpace::kSpare)) {
    // Not all at once: the host's writers wait for the punching of their file.
    rest = std::min(rest, nanoseconds(5'000'000));
  }
  return rest;
}

void Background::run() {
  while (!stop_) {
    std::chrono::nanoseconds rest = std::chrono::seconds(1);
    try {
      rest = work();
    } catch (const std::exception& error) {
      // Out of memory, as a rule. Nothing of a transaction shows before it is committed.
      log::error("background work: {}", error.what());
    }
    core_.background_bell.wait_for(rest);
  }
}

}  // namespace odx
