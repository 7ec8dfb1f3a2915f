#include "client/negative_cache.hpp"

namespace odx::client {

std::optional<NegativeCache::Answer> NegativeCache::find(dev_t source, dev_t destination,
                                                         Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find({source, destination});
  if (found == entries_.end()) {
    return std::nullopt;
  }
  if (now >= found->second.until) {
    entries_.erase(found);
    return std::nullopt;
  }
  return found->second.answer;
}

void NegativeCache::remember(dev_t source, dev_t destination, const Answer& answer,
                             Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  // A process that has seen many mounts come and go forgets the old ones here.
  std::erase_if(entries_, [now](const auto& entry) { return now >= entry.second.until; });
  entries_[{source, destination}] = {answer, now + kBelieved};
}

void NegativeCache::forget(dev_t source, dev_t destination) {
  const std::lock_guard lock(mutex_);
  entries_.erase({source, destination});
}

NegativeCache& NegativeCache::of_process() {
  static NegativeCache cache;
  return cache;
}

}  // namespace odx::client
