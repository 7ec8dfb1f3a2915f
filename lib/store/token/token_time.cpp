#include "store/token/token_time.hpp"

#include <algorithm>

namespace odx {

// The wall is read under the lock: two threads that read it before could bring their readings here
// in the wrong order, and look like a clock that is set back.
std::int64_t TokenTime::advance(const Clock& wall) {
  const std::int64_t wall_ns = std::max<std::int64_t>(wall.now_ns(), 0);
  if (wall_ns < last_wall_ns_) {
    ahead_ns_ = later(ahead_ns_, last_wall_ns_ - wall_ns);
  }
  last_wall_ns_ = wall_ns;
  return later(wall_ns, ahead_ns_);
}

std::int64_t TokenTime::now_ns(const Clock& wall) {
  const std::lock_guard lock(mutex_);
  return advance(wall);
}

void TokenTime::not_before(const Clock& wall, std::int64_t seen_ns) {
  const std::lock_guard lock(mutex_);
  const std::int64_t now = advance(wall);
  if (now < seen_ns) {
    ahead_ns_ = later(ahead_ns_, seen_ns - now);
  }
}

std::int64_t TokenTime::on_the_wall(std::int64_t token_ns) const {
  const std::lock_guard lock(mutex_);
  return std::max<std::int64_t>(token_ns - ahead_ns_, 0);
}

}  // namespace odx
