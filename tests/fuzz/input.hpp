// What the fuzz targets share: the input as a source of decisions, and the two ways to fail.
//
// A target reads its input as instructions ("take this sound thing, change these bytes of it, seal
// it again or not, then do this"), so that any bytes at all lead deep into the code, small changes
// of the input are small changes of what happens, and a corpus file is a few dozen bytes. An input
// that has run out reads as zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace odx::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const char*>(data), size) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }

  std::uint8_t byte() {
    if (rest_.empty()) {
      return 0;
    }
    const auto value = static_cast<std::uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return value;
  }
  // 0 to `end` - 1; `end` is 1 to 65536.
  std::size_t below(std::size_t end) {
    const std::size_t low = byte();
    return (end <= 256 ? low : low | static_cast<std::size_t>(byte()) << 8) % end;
  }
  template <class T>
  T raw() {
    T value{};
    const std::string_view taken = take(sizeof value);
    if (!taken.empty()) {
      std::memcpy(&value, taken.data(), taken.size());
    }
    return value;
  }
  // Any number, but more often one at which something changes.
  std::uint64_t number() {
    switch (below(9)) {
      case 0:
        return byte();
      case 1:
        return raw<std::uint16_t>();
      case 2:
        return std::uint64_t{byte()} * 512;
      case 3:
        return std::uint64_t{byte()} * 4096;
      case 4:
        return raw<std::uint32_t>();
      case 5:
        return UINT64_MAX - byte();
      case 6:
        return static_cast<std::uint64_t>(INT64_MAX) - 128 + byte();
      case 7:
        return std::uint64_t{1} << below(64);
      default:
        return raw<std::uint64_t>();
    }
  }
  // At most `most` bytes; fewer if there are no more.
  std::string_view take(std::size_t most) {
    const std::string_view taken = rest_.substr(0, most);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  std::string_view take_rest() { return take(rest_.size()); }

  // One change of `bytes`.
  void damage(std::string& bytes) {
    const std::size_t kind = below(6);
    const std::size_t at = bytes.empty() ? 0 : below(std::min<std::size_t>(bytes.size(), 65536));
    if (kind == 0) {
      bytes.append(take(byte()));
    } else if (bytes.empty()) {
      return;
    } else if (kind == 1) {
      bytes[at] = static_cast<char>(byte());
    } else if (kind == 2) {
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
    } else if (kind == 3) {
      const std::uint64_t value = number();
      std::memcpy(bytes.data() + at, &value, std::min(sizeof value, bytes.size() - at));
    } else if (kind == 4) {
      bytes.resize(at);
    } else {
      const std::string_view other = take(byte() % 32);
      bytes.replace(at, std::min(other.size(), bytes.size() - at), other);
    }
  }

 private:
  std::string_view rest_;
};

[[noreturn]] inline void found(const char* what, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  std::abort();
}

// What the target sets up for itself has to work.
template <class T>
T must(Result<T> result) {
  if (!result) {
    found(result.error().message().c_str(), result.error().where().file_name(),
          static_cast<int>(result.error().where().line()));
  }
  if constexpr (!std::is_void_v<T>) {
    return *std::move(result);
  }
}

}  // namespace odx::fuzz

#define FUZZ_EXPECT(condition) \
  ((condition) ? (void)0 : ::odx::fuzz::found(#condition, __FILE__, __LINE__))
