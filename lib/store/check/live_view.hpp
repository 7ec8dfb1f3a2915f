// The metadata of a store in use as it is at one moment, with the blocks that it names.
#pragma once

#include <atomic>
#include <memory>

#include "store/core.hpp"
#include "store/meta/kv.hpp"

namespace odx::check {

// For walks that take long: nobody waits for it. No block that it names is reused while it lives.
// Reads answer with ECANCELED once `stop` is set, with ENOSPC once the store needs the space that
// it holds back (it is to go then), with EAGAIN if the metadata could not be kept any longer. Its
// owner must read, or let it go, every few seconds at least. One thread.
class LiveView final : public KvReader {
 public:
  static Result<std::unique_ptr<LiveView>> take(Core& core, const std::atomic<bool>& stop);

  Result<std::optional<std::string>> get(std::string_view key) const override;
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override;

 private:
  LiveView(SpaceHold hold, std::unique_ptr<KvReader> state, const std::atomic<bool>& stop);
  [[nodiscard]] Result<void> go_on() const;

  const SpaceHold hold_;
  const std::unique_ptr<KvReader> state_;
  const std::atomic<bool>& stop_;
};

}  // namespace odx::check
