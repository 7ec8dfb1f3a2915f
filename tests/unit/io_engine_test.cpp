#include "store/device/io_engine.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "device_world.hpp"

namespace odx {
namespace {

namespace fs = std::filesystem;
using namespace test;

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
  const StoreDir dir;
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
  const StoreDir dir;
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
  const StoreDir dir;
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
  const StoreDir dir;
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

}  // namespace
}  // namespace odx
