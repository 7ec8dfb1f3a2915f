#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "base/fd.hpp"
#include "store/device/io_engine.hpp"
#include "store/device/segment_device.hpp"

namespace odx {
namespace {

namespace fs = std::filesystem;

class TempDir {
 public:
  TempDir() {
    std::string name = fs::temp_directory_path() / "odx-device-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() { fs::remove_all(path_); }
  [[nodiscard]] std::string path() const { return path_; }
  [[nodiscard]] std::string file(const std::string& name) const { return path_ / name; }
  // A file of that size without space of its own.
  void make_sparse(const std::string& name, std::uint64_t bytes) const {
    const Fd fd(::open(file(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  }
  [[nodiscard]] std::set<std::string> names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(path_)) {
      names.insert(entry.path().filename());
    }
    return names;
  }

 private:
  fs::path path_;
};

const std::vector<SegmentDeviceOptions> kAllOptions = {
    {.mode = IoMode::kDirect, .engine = IoEngineKind::kUring},
    {.mode = IoMode::kDirect, .engine = IoEngineKind::kSync},
    {.mode = IoMode::kBuffered, .engine = IoEngineKind::kUring},
    {.mode = IoMode::kBuffered, .engine = IoEngineKind::kSync},
};

std::unique_ptr<BlockDevice> open_device(const TempDir& dir, SegmentDeviceOptions options = {}) {
  Result<std::unique_ptr<BlockDevice>> device = open_segment_device(dir.path(), options);
  REQUIRE(device);
  return std::move(*device);
}

// Fills blocks with bytes that depend on the block, the place in it, and a version.
void fill_pattern(std::byte* at, BlockRun run, std::uint64_t version) {
  for (BlockNo block = run.first; block < run.end(); block += 1) {
    for (std::uint64_t i = 0; i < kBlockBytes; i += 8) {
      const std::uint64_t word = (block.value() * kBlockBytes + i) ^ (version << 48);
      std::memcpy(at, &word, sizeof word);
      at += sizeof word;
    }
  }
}

Result<void> write_pattern(BlockDevice& device, BlockRun run, std::uint64_t version) {
  AlignedBuffer buffer(run.count * kBlockBytes);
  fill_pattern(buffer.data(), run, version);
  const BlockWrite write{run, buffer.data()};
  return device.write({&write, 1});
}

bool has_pattern(BlockDevice& device, BlockRun run, std::uint64_t version) {
  AlignedBuffer expected(run.count * kBlockBytes);
  AlignedBuffer found(run.count * kBlockBytes);
  fill_pattern(expected.data(), run, version);
  const BlockRead read{run, found.data()};
  return device.read({&read, 1}) &&
         std::memcmp(expected.data(), found.data(), expected.size()) == 0;
}

BlockRun run_of(std::uint64_t first, std::uint64_t count) { return {BlockNo(first), count}; }

// Runs `action`, which must not use Catch, in a process of its own. Its answer, below 100, is
// returned; 100 is for a crash.
constexpr int kCannot = 77;
int in_child(const std::function<int()>& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(action());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

// A file system of this type at `target`, seen by this process only and gone with it.
bool mount_privately(const std::string& target, const char* type, const char* options) {
  return ::unshare(CLONE_NEWNS) == 0 &&
         ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", target.c_str(), type, 0, options) == 0;
}

// From now on, as in a container, this process cannot make rings.
bool forbid_io_uring(int errno_value) {
  std::array<sock_filter, 4> program{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(errno_value)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{program.size(), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_CASE("an empty store grows, holds data, and is found again") {
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const TempDir dir;
    {
      const auto device = open_device(dir, options);
      CHECK(device->blocks() == 0);
      CHECK(device->sync());
      REQUIRE(device->add_segment(500));
      CHECK(device->blocks() == 500);
      CHECK(dir.names() == std::set<std::string>{"0000.seg"});
      CHECK(fs::file_size(dir.file("0000.seg")) == 500 * kBlockBytes);
      struct stat status {};
      REQUIRE(::stat(dir.file("0000.seg").c_str(), &status) == 0);
      CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 >= 500 * kBlockBytes);
      CHECK((status.st_mode & 0777) == 0600);
      REQUIRE(write_pattern(*device, run_of(3, 200), 1));
      REQUIRE(write_pattern(*device, run_of(100, 1), 2));
      CHECK(device->sync());
      CHECK(has_pattern(*device, run_of(3, 97), 1));
    }
    const auto device = open_device(dir, options);
    CHECK(device->blocks() == 500);
    CHECK(has_pattern(*device, run_of(3, 97), 1));
    CHECK(has_pattern(*device, run_of(100, 1), 2));
    CHECK(has_pattern(*device, run_of(101, 102), 1));
    CHECK(device->host_free_bytes() > 0);
  }
}

TEST_CASE("runs cross segments") {
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const TempDir dir;
    dir.make_sparse("0000.seg", kSegmentBlocks * kBlockBytes);
    dir.make_sparse("0001.seg", kSegmentBlocks * kBlockBytes);
    const auto device = open_device(dir, options);
    REQUIRE(device->add_segment(64));
    REQUIRE(device->blocks() == 2 * kSegmentBlocks + 64);
    const BlockRun first_seam = run_of(kSegmentBlocks - 5, 11);
    const BlockRun second_seam = run_of(2 * kSegmentBlocks - 1, 65);
    AlignedBuffer one(first_seam.count * kBlockBytes);
    AlignedBuffer two(second_seam.count * kBlockBytes);
    fill_pattern(one.data(), first_seam, 1);
    fill_pattern(two.data(), second_seam, 2);
    REQUIRE(device->write(
        std::array{BlockWrite{first_seam, one.data()}, BlockWrite{second_seam, two.data()}}));
    REQUIRE(device->sync());
    CHECK(has_pattern(*device, first_seam, 1));
    CHECK(has_pattern(*device, second_seam, 2));
    CHECK(has_pattern(*device, run_of(kSegmentBlocks, 1), 1));
    // And they are where they belong.
    const auto reopened = open_device(dir, options);
    CHECK(has_pattern(*reopened, first_seam, 1));
    CHECK(has_pattern(*reopened, run_of(2 * kSegmentBlocks, 64), 2));
  }
}

TEST_CASE("batches may be larger than a ring") {
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const TempDir dir;
    const auto device = open_device(dir, options);
    REQUIRE(device->add_segment(3000));
    std::vector<BlockRun> runs;
    std::uint64_t total = 0;
    for (std::uint64_t i = 0; i < 500; ++i) {
      runs.push_back(run_of((i * 1237) % 500 * 6, 1 + i % 5));
      total += runs.back().count;
    }
    AlignedBuffer buffer(total * kBlockBytes);
    std::vector<BlockWrite> writes;
    std::byte* at = buffer.data();
    for (const BlockRun& run : runs) {
      fill_pattern(at, run, 1);
      writes.push_back({run, at});
      at += run.count * kBlockBytes;
    }
    REQUIRE(device->write(writes));
    AlignedBuffer found(total * kBlockBytes);
    std::vector<BlockRead> reads;
    at = found.data();
    for (const BlockRun& run : runs) {
      reads.push_back({run, at});
      at += run.count * kBlockBytes;
    }
    REQUIRE(device->read(reads));
    CHECK(std::memcmp(buffer.data(), found.data(), buffer.size()) == 0);
    CHECK(device->read({}));
    CHECK(device->write({}));
  }
}

TEST_CASE("what lies behind the end is EIO") {
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const TempDir dir;
    const auto device = open_device(dir, options);
    REQUIRE(device->add_segment(100));
    AlignedBuffer buffer(4 * kBlockBytes);
    for (const BlockRun& run :
         {run_of(99, 2), run_of(100, 1), run_of(1'000'000, 1), run_of(UINT64_MAX, 2)}) {
      const BlockRead read{run, buffer.data()};
      const BlockWrite write{run, buffer.data()};
      CHECK(device->read({&read, 1}).error().errno_value() == EIO);
      CHECK(device->write({&write, 1}).error().errno_value() == EIO);
    }
    CHECK(fs::file_size(dir.file("0000.seg")) == 100 * kBlockBytes);
    // Somebody cuts the file under our feet.
    REQUIRE(::truncate(dir.file("0000.seg").c_str(), 50 * kBlockBytes) == 0);
    for (const BlockRun& run : {run_of(49, 2), run_of(50, 1)}) {
      const BlockRead read{run, buffer.data()};
      CHECK(device->read({&read, 1}).error().errno_value() == EIO);
    }
    const BlockRead read{run_of(46, 4), buffer.data()};
    CHECK(device->read({&read, 1}));
  }
}

TEST_CASE("broken sets of segments are corruption") {
  const TempDir dir;
  const auto is_corrupt = [&] {
    const auto device = open_segment_device(dir.path(), {});
    return !device && device.error().is_corruption();
  };
  const std::uint64_t full = kSegmentBlocks * kBlockBytes;
  SECTION("one is missing") {
    dir.make_sparse("0000.seg", full);
    dir.make_sparse("0002.seg", full);
    CHECK(is_corrupt());
    dir.make_sparse("0001.seg", full);
    CHECK_FALSE(is_corrupt());
  }
  SECTION("the first is missing") {
    dir.make_sparse("0001.seg", full);
    CHECK(is_corrupt());
  }
  SECTION("one is short") {
    dir.make_sparse("0000.seg", full - kBlockBytes);
    CHECK_FALSE(is_corrupt());
    dir.make_sparse("0001.seg", full);
    CHECK(is_corrupt());
  }
  SECTION("no whole blocks") {
    dir.make_sparse("0000.seg", full - 512);
    CHECK(is_corrupt());
  }
  SECTION("empty") {
    dir.make_sparse("0000.seg", 0);
    CHECK(is_corrupt());
  }
  SECTION("too long") {
    dir.make_sparse("0000.seg", full + kBlockBytes);
    CHECK(is_corrupt());
  }
  SECTION("not a file") {
    REQUIRE(::mkfifo(dir.file("0000.seg").c_str(), 0600) == 0);
    CHECK(is_corrupt());
  }
  SECTION("other names do not matter") {
    dir.make_sparse("0000.seg", kBlockBytes);
    for (const char* name : {"1.seg", "00001.seg", "x.seg", ".seg", "0001.seg.bak", "-001.seg",
                             "0001", "99999999999999999999999.seg"}) {
      dir.make_sparse(name, 10);
    }
    CHECK_FALSE(is_corrupt());
    CHECK(open_device(dir)->blocks() == 1);
  }
  SECTION("no directory") {
    const auto device = open_segment_device(dir.file("none"), {});
    REQUIRE_FALSE(device);
    CHECK(device.error().errno_value() == ENOENT);
  }
}

TEST_CASE("a device that may only be read stays as it is") {
  const TempDir dir;
  {
    const auto device = open_device(dir);
    REQUIRE(device->add_segment(100));
    REQUIRE(write_pattern(*device, run_of(0, 100), 1));
  }
  const auto device = open_device(dir, {.read_only = true});
  CHECK(has_pattern(*device, run_of(0, 100), 1));
  CHECK(write_pattern(*device, run_of(0, 1), 2).error().errno_value() == EROFS);
  CHECK(device->add_segment(100).error().errno_value() == EROFS);
  device->discard(std::array{run_of(0, 100)});
  CHECK(device->sync());
  CHECK(has_pattern(*device, run_of(0, 100), 1));
  CHECK(dir.names() == std::set<std::string>{"0000.seg"});
}

TEST_CASE("growing obeys the geometry and tidies up") {
  const TempDir dir;
  dir.make_sparse("0000.seg", kSegmentBlocks * kBlockBytes);
  const auto device = open_device(dir);
  CHECK(device->add_segment(0).error().errno_value() == EINVAL);
  CHECK(device->add_segment(kSegmentBlocks + 1).error().errno_value() == EINVAL);
  { std::ofstream(dir.file("0001.seg")) << "somebody's"; }
  CHECK(device->add_segment(10).error().errno_value() == EEXIST);
  CHECK(fs::file_size(dir.file("0001.seg")) == 10);
  fs::remove(dir.file("0001.seg"));
  { std::ofstream(dir.file("new.seg")) << "left by a crash"; }
  REQUIRE(device->add_segment(10));
  CHECK(dir.names() == std::set<std::string>{"0000.seg", "0001.seg"});
  CHECK(device->add_segment(10).error().errno_value() == EINVAL);
  AlignedBuffer buffer(10 * kBlockBytes);
  std::fill(buffer.span().begin(), buffer.span().end(), std::byte{1});
  const BlockRead read{run_of(kSegmentBlocks, 10), buffer.data()};
  REQUIRE(device->read({&read, 1}));
  CHECK(std::count(buffer.span().begin(), buffer.span().end(), std::byte{0}) == 10 * kBlockBytes);
}

TEST_CASE("a host without room leaves nothing half made") {
  const TempDir dir;
  const int outcome = in_child([&] {
    if (!mount_privately(dir.path(), "tmpfs", "size=8m")) {
      return kCannot;
    }
    auto device = open_segment_device(dir.path(), {});
    if (!device) {
      return 1;
    }
    const Result<void> grown = (*device)->add_segment(4096);
    if (grown || grown.error().errno_value() != ENOSPC) {
      return 2;
    }
    if (!dir.names().empty() || (*device)->blocks() != 0) {
      return 3;
    }
    if ((*device)->host_free_bytes() != 8U << 20) {
      return 4;
    }
    return (*device)->add_segment(1024) && (*device)->host_free_bytes() == 4U << 20 ? 0 : 5;
  });
  if (outcome == kCannot) {
    WARN("needs the right to mount");
  } else {
    CHECK(outcome == 0);
  }
}

TEST_CASE("a host that has neither direct I/O nor fallocate will do") {
  const TempDir dir;
  const int outcome = in_child([&] {
    if (!mount_privately(dir.path(), "ramfs", nullptr)) {
      return kCannot;
    }
    for (int round = 0; round < 2; ++round) {
      auto device = open_segment_device(dir.path(), {.mode = IoMode::kDirect});
      if (!device) {
        return 1;
      }
      if (round == 0 && !(*device)->add_segment(700)) {
        return 2;
      }
      if (round == 0 && !write_pattern(**device, run_of(0, 700), 1)) {
        return 3;
      }
      if (!has_pattern(**device, run_of(0, 700), 1)) {
        return 4;
      }
      (*device)->discard(std::array{run_of(0, 10)});
      if (!(*device)->sync() || !has_pattern(**device, run_of(10, 690), 1)) {
        return 5;
      }
      if (!write_pattern(**device, run_of(0, 10), 1)) {
        return 6;
      }
    }
    return 0;
  });
  if (outcome == kCannot) {
    WARN("needs the right to mount");
  } else {
    CHECK(outcome == 0);
  }
}

TEST_CASE("discarding gives the host its space back") {
  const TempDir dir;
  const auto device = open_device(dir);
  REQUIRE(device->add_segment(1000));
  REQUIRE(write_pattern(*device, run_of(0, 1000), 1));
  REQUIRE(device->sync());
  const auto held = [&] {
    struct stat status {};
    REQUIRE(::stat(dir.file("0000.seg").c_str(), &status) == 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
  };
  const std::uint64_t before = held();
  device->discard(std::array{run_of(100, 200), run_of(990, 10), run_of(999, 2)});
  if (held() == before) {
    WARN("the host does not punch holes");
  } else {
    CHECK(before - held() == 210 * kBlockBytes);
  }
  CHECK(fs::file_size(dir.file("0000.seg")) == 1000 * kBlockBytes);
  CHECK(has_pattern(*device, run_of(0, 100), 1));
  CHECK(has_pattern(*device, run_of(300, 690), 1));
  REQUIRE(write_pattern(*device, run_of(150, 20), 2));
  REQUIRE(device->sync());
  CHECK(has_pattern(*device, run_of(150, 20), 2));
}

TEST_CASE("more threads than rings, and a store that grows under them") {
  constexpr unsigned kThreads = 24;
  for (const SegmentDeviceOptions& options : kAllOptions) {
    const TempDir dir;
    dir.make_sparse("0000.seg", kSegmentBlocks * kBlockBytes);
    const auto device = open_device(dir, options);
    std::atomic<int> failures = 0;
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < kThreads; ++id) {
      threads.emplace_back([&, id] {
        for (unsigned round = 0; round < 12; ++round) {
          const BlockRun run = run_of(id * 1000 + round * 7, 3 + round % 3);
          failures += !write_pattern(*device, run, id);
          failures += round % 4 == 0 && !device->sync();
          failures += !has_pattern(*device, run, id);
          const std::uint64_t end = device->blocks();
          if (end > kSegmentBlocks) {
            failures += !write_pattern(*device, run_of(end - 1 - id, 1), 1);
          }
        }
      });
    }
    failures += !device->add_segment(64);
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(failures == 0);
    for (unsigned id = 0; id < kThreads; ++id) {
      CHECK(has_pattern(*device, run_of(id * 1000 + 77, 5), id));
    }
  }
}

// ---- the engines by themselves

std::vector<std::unique_ptr<IoEngine>> all_engines() {
  std::vector<std::unique_ptr<IoEngine>> engines;
  engines.push_back(make_io_engine(IoEngineKind::kSync));
  engines.push_back(make_io_engine(IoEngineKind::kUring));
  engines.push_back(make_io_engine(IoEngineKind::kUring, 1));  // the ring for single requests too
  REQUIRE(engines[0]->kind() == IoEngineKind::kSync);
  return engines;
}

TEST_CASE("short reads are continued") {
  // Files below /proc answer at most a page or so at a time.
  const char* const path = "/proc/kallsyms";
  constexpr std::size_t kBytes = 50'000;
  std::vector<char> expected(kBytes);
  std::ifstream(path).read(expected.data(), kBytes);
  const Fd fd(::open(path, O_RDONLY | O_CLOEXEC));
  std::vector<std::byte> found(kBytes);
  if (!fd.valid() || ::pread(fd.get(), found.data(), kBytes, 0) <= 0) {
    WARN("no file that gives short reads");
    return;
  }
  REQUIRE(::pread(fd.get(), found.data(), kBytes, 0) < static_cast<ssize_t>(kBytes));
  for (const auto& engine : all_engines()) {
    std::fill(found.begin(), found.end(), std::byte{0});
    const IoRequest request = IoRequest::read(fd.get(), 0, found.data(), kBytes);
    REQUIRE(engine->run({&request, 1}));
    CHECK(std::memcmp(found.data(), expected.data(), kBytes) == 0);
  }
}

TEST_CASE("short writes are continued, up to the error") {
  const TempDir dir;
  const int outcome = in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10'000, 10'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    int step = 1;
    for (const IoEngineKind kind : {IoEngineKind::kSync, IoEngineKind::kUring}) {
      const std::string name = dir.file(std::to_string(step));
      const Fd fd(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
      const std::vector<std::byte> bytes(20'000, std::byte{7});
      const auto engine = make_io_engine(kind, 1);
      const IoRequest request = IoRequest::write(fd.get(), 0, bytes.data(), bytes.size());
      const Result<void> written = engine->run({&request, 1});
      if (written || written.error().errno_value() != EFBIG) {
        return step;
      }
      if (fs::file_size(name) != 10'000) {
        return step + 1;
      }
      step += 2;
    }
    return 0;
  });
  CHECK(outcome == 0);
}

TEST_CASE("the first error is reported, and nothing is left in flight") {
  const TempDir dir;
  dir.make_sparse("file", 1 << 20);
  const Fd good(::open(dir.file("file").c_str(), O_RDWR | O_CLOEXEC));
  const Fd write_only(::open(dir.file("file").c_str(), O_WRONLY | O_CLOEXEC));
  for (const auto& engine : all_engines()) {
    AlignedBuffer buffer(1 << 20);
    std::vector<IoRequest> requests;
    for (std::size_t i = 0; i < 200; ++i) {
      const int fd = i == 150 ? write_only.get() : good.get();
      requests.push_back(IoRequest::read(fd, i * 4096, buffer.data() + i * 4096, 4096));
    }
    CHECK(engine->run(requests).error().errno_value() == EBADF);
    requests[150].fd = good.get();
    CHECK(engine->run(requests));
    requests[10].offset = (1 << 20) - 100;
    CHECK(engine->run(requests).error().errno_value() == EIO);
    const std::array fds{good.get(), write_only.get()};
    CHECK(engine->sync(fds));
    CHECK(engine->sync({}));
    int pipe_ends[2];
    REQUIRE(::pipe2(pipe_ends, O_CLOEXEC) == 0);
    const Fd in(pipe_ends[0]);
    const Fd out(pipe_ends[1]);
    const std::array with_a_pipe{good.get(), out.get(), write_only.get()};
    CHECK(engine->sync(with_a_pipe).error().errno_value() == EINVAL);
    const std::array only_a_pipe{out.get()};
    CHECK(engine->sync(only_a_pipe).error().errno_value() == EINVAL);
    CHECK(engine->sync(fds));
  }
}

TEST_CASE("where io_uring is forbidden, system calls do the work") {
  const TempDir dir;
  for (const int errno_value : {EPERM, ENOSYS}) {
    const int outcome = in_child([&] {
      if (make_io_engine(IoEngineKind::kUring)->kind() != IoEngineKind::kUring ||
          !forbid_io_uring(errno_value)) {
        return kCannot;
      }
      if (make_io_engine(IoEngineKind::kUring)->kind() != IoEngineKind::kSync) {
        return 1;
      }
      auto device = open_segment_device(dir.path(), {.engine = IoEngineKind::kUring});
      if (!device || ((*device)->blocks() == 0 && !(*device)->add_segment(100))) {
        return 2;
      }
      return write_pattern(**device, run_of(0, 100), 1) && has_pattern(**device, run_of(0, 100), 1)
                 ? 0
                 : 3;
    });
    if (outcome == kCannot) {
      WARN("io_uring is not available at all, or seccomp is not");
    } else {
      CHECK(outcome == 0);
    }
  }
}

TEST_CASE("one ring is enough if more cannot be had") {
  const TempDir dir;
  const int outcome = in_child([&] {
    auto device = open_segment_device(dir.path(), {.engine = IoEngineKind::kUring});
    if (!device || !(*device)->add_segment(1000) || !forbid_io_uring(EPERM)) {
      return kCannot;
    }
    std::atomic<int> failures = 0;
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < 8; ++id) {
      threads.emplace_back([&, id] {
        for (unsigned round = 0; round < 50; ++round) {
          const BlockRun run = run_of(id * 100 + round, 1 + round % 20);
          failures += !write_pattern(**device, run, id) || !has_pattern(**device, run, id);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    return failures == 0 ? 0 : 1;
  });
  if (outcome == kCannot) {
    WARN("seccomp is not available");
  } else {
    CHECK(outcome == 0);
  }
}

// ---- what sync() promises, with an engine that is watched

class WatchedEngine final : public IoEngine {
 public:
  Result<void> run(std::span<const IoRequest> requests) override { return real_->run(requests); }
  Result<void> sync(std::span<const int> fds) override {
    {
      const std::scoped_lock lock(mutex);
      synced.emplace_back(fds.size());
    }
    before_flush();
    return errno_value == 0 ? real_->sync(fds) : Result<void>(fail(errno_value));
  }
  [[nodiscard]] IoEngineKind kind() const override { return IoEngineKind::kSync; }

  std::mutex mutex;
  std::vector<std::size_t> synced;  // descriptors in each call
  std::function<void()> before_flush = [] {};
  std::atomic<int> errno_value = 0;

 private:
  std::unique_ptr<IoEngine> real_ = make_io_engine(IoEngineKind::kSync);
};

struct Watched {
  explicit Watched(const TempDir& dir) {
    dir.make_sparse("0000.seg", kSegmentBlocks * kBlockBytes);
    dir.make_sparse("0001.seg", kSegmentBlocks * kBlockBytes);
    dir.make_sparse("0002.seg", 100 * kBlockBytes);
    auto owned = std::make_unique<WatchedEngine>();
    engine = owned.get();
    auto opened = open_segment_device(dir.path(), {}, std::move(owned));
    REQUIRE(opened);
    device = std::move(*opened);
  }
  [[nodiscard]] std::size_t flushed() const {
    const std::scoped_lock lock(engine->mutex);
    std::size_t sum = 0;
    for (const std::size_t fds : engine->synced) {
      sum += fds;
    }
    return sum;
  }
  WatchedEngine* engine;
  std::unique_ptr<BlockDevice> device;
};

TEST_CASE("sync flushes the segments that were written, once") {
  const TempDir dir;
  Watched it(dir);
  CHECK(it.device->sync());
  CHECK(it.flushed() == 0);
  REQUIRE(write_pattern(*it.device, run_of(5, 1), 1));
  REQUIRE(write_pattern(*it.device, run_of(9, 1), 1));
  CHECK(it.device->sync());
  CHECK(it.flushed() == 1);
  CHECK(it.device->sync());
  CHECK(it.flushed() == 1);
  REQUIRE(write_pattern(*it.device, run_of(kSegmentBlocks - 1, 2), 1));
  CHECK(it.device->sync());
  CHECK(it.flushed() == 3);
  REQUIRE(write_pattern(*it.device, run_of(2 * kSegmentBlocks + 99, 1), 1));
  CHECK(it.device->sync());
  CHECK(it.flushed() == 4);
  CHECK(has_pattern(*it.device, run_of(5, 1), 1));
  CHECK(it.device->sync());
  CHECK(it.flushed() == 4);
}

TEST_CASE("a write beside a flush is left to the next flush") {
  const TempDir dir;
  Watched it(dir);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 1));
  bool written = false;
  it.engine->before_flush = [&] {
    if (!written) {
      written = true;
      REQUIRE(write_pattern(*it.device, run_of(1, 1), 1));
    }
  };
  CHECK(it.device->sync());
  CHECK(it.flushed() == 1);
  CHECK(it.device->sync());
  CHECK(it.flushed() == 2);
  CHECK(it.device->sync());
  CHECK(it.flushed() == 2);
}

TEST_CASE("a sync that comes while another is in flight is not answered by that one") {
  const TempDir dir;
  Watched it(dir);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 1));
  std::promise<void> first_began;
  std::promise<void> second_written;
  std::atomic<int> flushes = 0;
  it.engine->before_flush = [&] {
    if (flushes++ == 0) {
      first_began.set_value();
      second_written.get_future().wait();
    }
  };
  bool first_ok = false;
  std::thread first([&] { first_ok = it.device->sync().has_value(); });
  first_began.get_future().wait();
  const bool wrote = write_pattern(*it.device, run_of(1, 1), 1).has_value();
  bool second_ok = false;
  std::thread second([&] { second_ok = it.device->sync().has_value(); });
  second_written.set_value();
  first.join();
  second.join();
  CHECK(wrote);
  CHECK(first_ok);
  CHECK(second_ok);
  CHECK(flushes == 2);
}

TEST_CASE("a failed sync fails for ever") {
  const TempDir dir;
  Watched it(dir);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 1));
  it.engine->errno_value = EIO;
  CHECK(it.device->sync().error().errno_value() == EIO);
  it.engine->errno_value = 0;
  CHECK(it.device->sync().error().errno_value() == EIO);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 2));
  CHECK(it.device->sync().error().errno_value() == EIO);
  CHECK(it.flushed() == 1);
}

TEST_CASE("two syncs beside each other both hear of a failure") {
  const TempDir dir;
  Watched it(dir);
  REQUIRE(write_pattern(*it.device, run_of(0, 1), 1));
  // Only one flush gets to see the error, as with the kernel.
  std::atomic<int> flushes = 0;
  it.engine->before_flush = [&] { it.engine->errno_value = flushes++ == 0 ? EIO : 0; };
  std::array<std::atomic<int>, 4> errnos{};
  std::vector<std::thread> threads;
  for (std::atomic<int>& seen : errnos) {
    threads.emplace_back([&] {
      const Result<void> outcome = it.device->sync();
      seen = outcome ? 0 : outcome.error().errno_value();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const std::atomic<int>& seen : errnos) {
    CHECK(seen == EIO);
  }
}

}  // namespace
}  // namespace odx
