// Segment devices in a directory of their own, blocks of known bytes, and processes that see
// another kernel than the test does.
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "base/aligned_buffer.hpp"
#include "base/fd.hpp"
#include "must.hpp"
#include "store/device/segment_device.hpp"
#include "temp_dir.hpp"

namespace odx::test {

class StoreDir : public TempDir {
 public:
  // A file of that size without space of its own.
  void make_sparse(const std::string& name, std::uint64_t bytes) const {
    const Fd fd(::open(file(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  }
  [[nodiscard]] std::set<std::string> names() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path())) {
      names.insert(entry.path().filename());
    }
    return names;
  }
};

inline std::unique_ptr<BlockDevice> open_device(const StoreDir& dir,
                                                SegmentDeviceOptions options = {}) {
  return must(open_segment_device(dir.path(), options));
}

// Fills blocks with bytes that depend on the block, the place in it, and a version.
inline void fill_pattern(std::byte* at, BlockRun run, std::uint64_t version) {
  for (BlockNo block = run.first; block < run.end(); block += 1) {
    for (std::uint64_t i = 0; i < kBlockBytes; i += 8) {
      const std::uint64_t word = (block.value() * kBlockBytes + i) ^ (version << 48);
      std::memcpy(at, &word, sizeof word);
      at += sizeof word;
    }
  }
}

inline Result<void> write_pattern(BlockDevice& device, BlockRun run, std::uint64_t version) {
  AlignedBuffer buffer(run.count * kBlockBytes);
  fill_pattern(buffer.data(), run, version);
  const BlockWrite write{run, buffer.data()};
  return device.write({&write, 1});
}

inline bool has_pattern(BlockDevice& device, BlockRun run, std::uint64_t version) {
  AlignedBuffer expected(run.count * kBlockBytes);
  AlignedBuffer found(run.count * kBlockBytes);
  fill_pattern(expected.data(), run, version);
  const BlockRead read{run, found.data()};
  return device.read({&read, 1}) &&
         std::memcmp(expected.data(), found.data(), expected.size()) == 0;
}

inline BlockRun run_of(std::uint64_t first, std::uint64_t count) { return {BlockNo(first), count}; }

// Runs `action`, which must not use Catch, in a process of its own. Its answer, below 100, is
// returned; 100 is for a crash.
inline constexpr int kCannot = 77;
inline int in_child(const std::function<int()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(action());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

}  // namespace odx::test
