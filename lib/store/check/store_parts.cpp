#include "store/check/store_parts.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

namespace odx::check {

namespace {

// Which copy a generation belongs into.
std::size_t copy_of(std::uint64_t generation) { return generation % 2; }

}  // namespace

bool is_damage(const Error& error) {
  const int number = error.errno_value();
  return error.is_corruption() || number == ENOENT || number == ENOTDIR || number == EISDIR ||
         number == ELOOP || number == EIO;
}

Result<Superblocks> check_superblocks(const std::string& dir) {
  const SuperblockCopies copies = ODX_TRY(read_superblock_copies(dir));
  Superblocks out;
  const auto missing = [&](std::size_t i) {
    return !copies.copy[i] && copies.copy[i].error().errno_value() == ENOENT;
  };
  if (missing(0) && missing(1)) {
    return fail(ENOENT, dir + " is not an odxfs store");
  }
  // Also decides whether this build may look at all: the newest copy may come from the future.
  Result<Superblock> newest = read_superblock(dir);
  if (!newest && !newest.error().is_corruption()) {
    return std::unexpected(newest.error());
  }
  std::size_t newest_at = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    const Result<Superblock>& copy = copies.copy[i];
    if (!copy) {
      out.problems.push_back(fmt::format(
          "SUPER.{} {}", i,
          missing(i) ? std::string("is missing") : "is damaged: " + copy.error().detail()));
      continue;
    }
    if (newest && copy->generation == newest->generation) {
      newest_at = i;
    }
    if (copy_of(copy->generation) != i) {
      out.problems.push_back(fmt::format(
          "SUPER.{} holds generation {}, which does not belong there", i, copy->generation));
    }
  }
  if (!newest) {
    return out;
  }
  out.newest = *newest;
  const bool other_store =
      copies.copy[0] && copies.copy[1] && copies.copy[0]->uuid != copies.copy[1]->uuid;
  if (other_store) {
    out.problems.emplace_back("SUPER.0 and SUPER.1 belong to two stores");
  }
  if (out.problems.empty() || other_store || newest->generation > UINT64_MAX - 4) {
    return out;
  }
  // First over the copy that is not needed, then, if it is in the wrong place, over the newest.
  std::uint64_t next = newest->generation + 1;
  next += copy_of(next) == newest_at ? 1 : 0;
  out.generations.push_back(next);
  if (copy_of(newest->generation) != newest_at) {
    out.generations.push_back(next + 1);
  }
  return out;
}

Result<Fd> lock_parts(const std::string& dir, bool exclusive) {
  const std::string path = dir + "/LOCK";
  const int flags = exclusive ? O_RDWR | O_CREAT : O_RDONLY;
  Fd lock(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid()) {
    return !exclusive && errno == ENOENT ? Result<Fd>(std::move(lock)) : fail(errno, path);
  }
  if (::flock(lock.get(), (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
    return fail(errno == EWOULDBLOCK ? EBUSY : errno, dir + " is in use");
  }
  return lock;
}

Result<Segments> check_segments(const std::string& dir, std::uint64_t needed_blocks) {
  namespace fs = std::filesystem;
  constexpr std::uint64_t kFullBytes = kSegmentBlocks * kBlockBytes;
  // Numbers above this are no segments of ours, and would make the line of blocks too long.
  const std::uint64_t most = kMaxFileBytes / kFullBytes;
  Segments out;
  std::error_code error;
  if (!fs::is_directory(dir + "/data", error)) {
    if (error && error.value() != ENOENT) {
      return fail(error.value(), dir + "/data");
    }
    out.problems.emplace_back("the directory of the segments is missing");
  }
  std::vector<std::uint64_t> numbers;
  const bool there = out.problems.empty();
  for (fs::directory_iterator at = there ? fs::directory_iterator(dir + "/data", error)
                                         : fs::directory_iterator();
       !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().filename();
    std::uint64_t number = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (bad == std::errc{} && number < most && name == fmt::format("{:04}.seg", number)) {
      numbers.push_back(number);
    }
  }
  if (there && error) {
    return fail(error.value(), dir + "/data");
  }
  std::sort(numbers.begin(), numbers.end());
  out.files = numbers.size();
  const std::uint64_t needed = (needed_blocks + kSegmentBlocks - 1) / kSegmentBlocks;
  const std::uint64_t count =
      std::max<std::uint64_t>(numbers.empty() ? 0 : numbers.back() + 1, needed);
  std::uint64_t missing = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string name = fmt::format("{:04}.seg", i);
    const std::string path = dir + "/data/" + name;
    const bool last = i + 1 == count;
    const std::uint64_t named =
        needed_blocks > i * kSegmentBlocks ? needed_blocks - i * kSegmentBlocks : 1;
    const std::uint64_t least = last ? named * kBlockBytes : kFullBytes;
    if (!std::binary_search(numbers.begin(), numbers.end(), i)) {
      if (++missing <= 100) {
        out.problems.push_back(fmt::format("segment {} is missing", name));
      }
      out.wanted.push_back({path, least});
      out.blocks += least / kBlockBytes;
      continue;
    }
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) {
      return fail(errno, path);
    }
    const auto bytes = static_cast<std::uint64_t>(status.st_size);
    if (!S_ISREG(status.st_mode) || bytes > kFullBytes) {
      out.problems.push_back(fmt::format("segment {} is no segment", name));
    } else if (bytes < least || (!last && bytes % kBlockBytes != 0)) {
      out.problems.push_back(fmt::format("segment {} is short: it has {} bytes", name, bytes));
      out.wanted.push_back({path, std::max(least, round_up(bytes, kBlockBytes))});
    }
    // The last one may end in a part of a block: it was being made longer.
    out.blocks += std::max(least, bytes) / kBlockBytes;
  }
  return out;
}

}  // namespace odx::check
