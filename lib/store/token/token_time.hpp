// The time that tokens live by.
#pragma once

#include <cstdint>
#include <mutex>

#include "base/clock.hpp"

namespace odx {

// `ns` and so much later; never beyond what a time can be. Neither may be negative.
[[nodiscard]] constexpr std::int64_t later(std::int64_t ns, std::int64_t by_ns) {
  return by_ns > INT64_MAX - ns ? INT64_MAX : ns + by_ns;
}

// Goes as the wall clock goes, but never back: when the wall clock is set back by an hour, this one
// is an hour ahead of it from then on. So a token lives for its TTL whatever the clock is set to,
// and only a clock that is set forward looks like time that has passed. Nothing of it is stored:
// the token records hold times that have been, see Tokens::load().
//
// Thread-safe; its mutex is a leaf lock.
class TokenTime {
 public:
  // Nanoseconds, not before any earlier answer, not negative.
  std::int64_t now_ns(const Clock& wall);
  // Time has been here already.
  void not_before(const Clock& wall, std::int64_t seen_ns);
  // A token time as the wall clock will show it when it comes, for people.
  [[nodiscard]] std::int64_t on_the_wall(std::int64_t token_ns) const;

 private:
  std::int64_t advance(const Clock& wall);
  mutable std::mutex mutex_;
  std::int64_t last_wall_ns_ = 0;
  std::int64_t ahead_ns_ = 0;  // of the wall clock; never negative
};

}  // namespace odx
