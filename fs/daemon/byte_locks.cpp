#include "byte_locks.hpp"

#include <fmt/core.h>
#include <sys/sysmacros.h>

#include <array>
#include <charconv>
#include <fstream>
#include <limits>
#include <string>

namespace odx::daemon {

namespace {

template <class T>
std::optional<T> number(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

// The process that a thread belongs to; the number itself if that cannot be found out.
pid_t process_of(pid_t thread) {
  std::ifstream status(fmt::format("/proc/{}/status", thread));
  constexpr std::string_view kField = "Tgid:\t";
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(kField)) {
      return number<pid_t>(std::string_view(line).substr(kField.size())).value_or(thread);
    }
  }
  return thread;
}

}  // namespace

std::optional<ByteLock> parse_lock_line(std::string_view line) {
  // "1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"
  constexpr std::size_t kWords = 8;
  std::array<std::string_view, kWords> words;
  for (std::string_view& word : words) {
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    word = line.substr(0, line.find(' '));
    line.remove_prefix(word.size());
  }
  if ((words[1] != "POSIX" && words[1] != "OFDLCK") ||
      (words[3] != "READ" && words[3] != "WRITE")) {
    return std::nullopt;
  }
  const std::string_view place = words[5];
  const std::size_t colon = place.find(':');
  const std::size_t second = colon == std::string_view::npos ? colon : place.find(':', colon + 1);
  if (second == std::string_view::npos) {
    return std::nullopt;
  }
  const auto major_number = number<unsigned>(place.substr(0, colon), 16);
  const auto minor_number = number<unsigned>(place.substr(colon + 1, second - colon - 1), 16);
  const auto ino = number<std::uint64_t>(place.substr(second + 1));
  const auto process = number<pid_t>(words[4]);
  const auto first = number<std::uint64_t>(words[6]);
  const auto last = words[7] == "EOF" ? std::numeric_limits<std::uint64_t>::max()
                                      : number<std::uint64_t>(words[7]);
  if (!major_number || !minor_number || !ino || !process || !first || !last) {
    return std::nullopt;
  }
  ByteLock lock;
  lock.device = makedev(*major_number, *minor_number);
  lock.ino = InodeNo(*ino);
  lock.exclusive = words[3] == "WRITE";
  lock.process = words[1] == "POSIX" ? *process : -1;
  lock.first = *first;
  lock.last = *last;
  return lock;
}

bool range_is_locked(dev_t device, InodeNo ino, std::uint64_t first, std::uint64_t last,
                     bool for_writing, pid_t thread) {
  std::ifstream locks("/proc/locks");
  std::optional<pid_t> caller;
  for (std::string line; std::getline(locks, line);) {
    const std::optional<ByteLock> lock = parse_lock_line(line);
    if (!lock || lock->device != device || lock->ino != ino || lock->last < first ||
        lock->first > last) {
      continue;
    }
    if (!lock->exclusive) {
      if (for_writing) {
        return true;
      }
      continue;
    }
    if (!caller) {
      caller = process_of(thread);
    }
    if (lock->process != *caller) {
      return true;
    }
  }
  return false;
}

}  // namespace odx::daemon
