#include <isa-l/crc.h>
#include <time.h>

#include "base/clock.hpp"
#include "base/crc32c.hpp"

namespace odx {

namespace {

class SystemClock final : public Clock {
 public:
  [[nodiscard]] std::int64_t now_ns() const override {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * kNsPerSecond + now.tv_nsec;
  }
};

}  // namespace

const Clock& Clock::system() {
  static const SystemClock clock;
  return clock;
}

std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t seed) {
  // ISA-L leaves both complements of the standard definition to its caller. Its length is an int.
  auto* at = const_cast<unsigned char*>(static_cast<const unsigned char*>(data));
  std::uint32_t crc = ~seed;
  constexpr std::size_t kStep = std::size_t{1} << 30;
  while (bytes > 0) {
    const std::size_t now = bytes < kStep ? bytes : kStep;
    crc = ::crc32_iscsi(at, static_cast<int>(now), crc);
    at += now;
    bytes -= now;
  }
  return ~crc;
}

}  // namespace odx
