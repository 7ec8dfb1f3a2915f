// The hold comes first: what is freed by a transaction that the hold does not see stays, and the
// state that is frozen afterwards is not older than the hold.
#include "store/check/live_view.hpp"

#include <utility>

namespace odx::check {

Result<std::unique_ptr<LiveView>> LiveView::take(Core& core, const std::atomic<bool>& stop) {
  SpaceHold hold = core.snapshots.hold();
  auto state = ODX_TRY(core.meta->frozen_view());
  return std::unique_ptr<LiveView>(new LiveView(std::move(hold), std::move(state), stop));
}

LiveView::LiveView(SpaceHold hold, std::unique_ptr<KvReader> state, const std::atomic<bool>& stop)
    : hold_(std::move(hold)), state_(std::move(state)), stop_(stop) {}

Result<void> LiveView::go_on() const {
  if (stop_) {
    return fail(ECANCELED);
  }
  if (hold_.revoked()) {
    return fail(ENOSPC, "the store needs the space that is held back");
  }
  return {};
}

Result<std::optional<std::string>> LiveView::get(std::string_view key) const {
  ODX_TRY(go_on());
  return state_->get(key);
}

Result<std::vector<KeyValue>> LiveView::scan(std::string_view from, std::string_view end,
                                             std::size_t limit) const {
  ODX_TRY(go_on());
  return state_->scan(from, end, limit);
}

}  // namespace odx::check
