// Compares the ways in which the segment device can do its I/O: O_DIRECT or the page cache,
// io_uring or plain system calls.
//
// usage: device_bench DIR [ROUNDS [SECONDS [MIB]]]
//
// Makes a segment of MIB (1024) in a new directory below DIR, removed at the end. Every workload
// runs for SECONDS (0.4) with each variant in turn, ROUNDS (5) times over, so that a disturbance
// hits all alike; the table shows medians. Reads start with the file out of the page cache; writes
// end with a sync, which is counted. A cell holds the calls in a second, in brackets their ratio to
// the first variant's, and the processor time of a call, user and system.
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "base/fd.hpp"
#include "store/device/io_engine.hpp"
#include "store/device/segment_device.hpp"

namespace odx {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Settings {
  std::string parent;
  int rounds = 5;
  double seconds = 0.4;
  std::uint64_t blocks = 1024 * 256;
};

struct Variant {
  const char* name;
  IoMode mode;
  IoEngineKind engine;
};

constexpr Variant kVariants[] = {
    {"direct, syscalls", IoMode::kDirect, IoEngineKind::kSync},
    {"direct, io_uring", IoMode::kDirect, IoEngineKind::kUring},
    {"buffered, syscalls", IoMode::kBuffered, IoEngineKind::kSync},
    {"buffered, io_uring", IoMode::kBuffered, IoEngineKind::kUring},
};

struct Workload {
  const char* name;
  bool write;
  bool random;
  std::uint64_t run_blocks;  // blocks in each run
  std::uint64_t runs;        // runs in each call
  bool sync_each;            // after each call, not only at the end
};

constexpr Workload kWorkloads[] = {
    {"random read 4 KiB", false, true, 1, 1, false},
    {"random read 32 x 4 KiB per call", false, true, 1, 32, false},
    {"random write 4 KiB + sync", true, true, 1, 1, true},
    {"random write 32 x 4 KiB per call + sync", true, true, 1, 32, true},
    {"sequential read 128 KiB", false, false, 32, 1, false},
    {"sequential write 128 KiB", true, false, 32, 1, false},
    {"sequential read 1 MiB", false, false, 256, 1, false},
    {"sequential write 1 MiB", true, false, 256, 1, false},
};

struct Sample {
  double calls_per_second = 0;
  double cpu_us_per_call = 0;
};

void must(const Result<void>& outcome) {
  if (!outcome) {
    fmt::print(stderr, "device_bench: {}\n", outcome.error().message());
    ::exit(1);
  }
}

template <class T>
T must(Result<T> outcome) {
  if (!outcome) {
    fmt::print(stderr, "device_bench: {}\n", outcome.error().message());
    ::exit(1);
  }
  return std::move(*outcome);
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void drop_from_page_cache(const std::string& file) {
  const Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  ::fdatasync(fd.get());
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
}

// One thread's share: blocks [first, first + blocks), until the deadline or, in sequence, once
// through. Returns the calls made.
std::uint64_t work(BlockDevice& device, const Workload& load, BlockRun share, unsigned seed,
                   SteadyClock::time_point deadline) {
  AlignedBuffer buffer(load.runs * load.run_blocks * kBlockBytes);
  std::mt19937_64 random(seed);
  std::fill(buffer.span().begin(), buffer.span().end(), static_cast<std::byte>(seed));
  std::vector<BlockRead> reads(load.runs);
  std::vector<BlockWrite> writes(load.runs);
  std::uint64_t calls = 0;
  std::uint64_t at = 0;
  while (SteadyClock::now() < deadline && at + load.run_blocks <= share.count) {
    for (std::uint64_t i = 0; i < load.runs; ++i) {
      const std::uint64_t offset = load.random ? random() % share.count : at;
      const BlockRun run{share.first + offset, load.run_blocks};
      std::byte* data = buffer.data() + i * load.run_blocks * kBlockBytes;
      reads[i] = {run, data};
      writes[i] = {run, data};
    }
    if (!load.random) {
      at += load.run_blocks;
    }
    must(load.write ? device.write(writes) : device.read(reads));
    if (load.sync_each) {
      must(device.sync());
    }
    ++calls;
  }
  return calls;
}

Sample measure(BlockDevice& device, const Workload& load, unsigned threads, unsigned seed,
               const Settings& settings) {
  const std::uint64_t share = settings.blocks / threads;
  const double cpu_before = cpu_seconds();
  const auto begin = SteadyClock::now();
  const auto deadline =
      begin + std::chrono::microseconds(static_cast<std::int64_t>(settings.seconds * 1e6));
  std::atomic<std::uint64_t> calls = 0;
  {
    std::vector<std::jthread> workers;
    for (unsigned id = 0; id < threads; ++id) {
      workers.emplace_back([&, id] {
        calls += work(device, load, {BlockNo(id * share), share}, seed * 16 + id, deadline);
      });
    }
  }
  if (load.write) {
    must(device.sync());
  }
  const double elapsed = std::chrono::duration<double>(SteadyClock::now() - begin).count();
  const auto count = static_cast<double>(calls.load());
  return {count / elapsed, (cpu_seconds() - cpu_before) * 1e6 / count};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Every block written once: what is measured are overwrites, and reads of real data.
void prepare(const std::string& dir, const Settings& settings) {
  const auto device = must(open_segment_device(dir, {}));
  must(device->add_segment(settings.blocks));
  const Workload fill{"", true, false, 256, 1, false};
  work(*device, fill, {BlockNo(0), settings.blocks}, 1, SteadyClock::time_point::max());
  must(device->sync());
}

void compare(const std::string& dir, const Settings& settings) {
  std::vector<std::unique_ptr<BlockDevice>> devices;
  for (const Variant& variant : kVariants) {
    // Every batch by the ring, also the single requests that the store would not put there.
    devices.push_back(
        must(open_segment_device(dir, {.mode = variant.mode}, make_io_engine(variant.engine, 1))));
  }
  fmt::print("| workload | threads |");
  for (const Variant& variant : kVariants) {
    fmt::print(" {} |", variant.name);
  }
  fmt::print("\n|---|---|---|---|---|---|\n");
  for (const Workload& load : kWorkloads) {
    for (const unsigned threads : {1U, 4U}) {
      std::vector<std::vector<double>> rates(devices.size());
      std::vector<std::vector<double>> cpu(devices.size());
      for (int round = 0; round < settings.rounds; ++round) {
        for (std::size_t i = 0; i < devices.size(); ++i) {
          drop_from_page_cache(dir + "/0000.seg");
          const Sample sample =
              measure(*devices[i], load, threads, static_cast<unsigned>(round) + 1, settings);
          rates[i].push_back(sample.calls_per_second);
          cpu[i].push_back(sample.cpu_us_per_call);
        }
      }
      fmt::print("| {} | {} |", load.name, threads);
      for (std::size_t i = 0; i < devices.size(); ++i) {
        fmt::print(" {:.0f}/s ({:.2f}), {:.0f} us |", median(rates[i]),
                   median(rates[i]) / median(rates[0]), median(cpu[i]));
      }
      fmt::print("\n");
      ::fflush(stdout);
    }
  }
}

int run(int argc, char** argv) {
  Settings settings;
  if (argc < 2 || argc > 5) {
    fmt::print(stderr, "usage: device_bench DIR [ROUNDS [SECONDS [MIB]]]\n");
    return 2;
  }
  settings.parent = argv[1];
  if (argc > 2) {
    settings.rounds = std::max(1, std::stoi(argv[2]));
  }
  if (argc > 3) {
    settings.seconds = std::stod(argv[3]);
  }
  if (argc > 4) {
    settings.blocks = std::clamp<std::uint64_t>(std::stoull(argv[4]), 8, 1024) * 256;
  }
  std::string dir = settings.parent + "/device-bench-XXXXXX";
  if (::mkdtemp(dir.data()) == nullptr) {
    fmt::print(stderr, "device_bench: cannot make a directory below {}\n", settings.parent);
    return 1;
  }
  struct Remove {
    const std::string& dir;
    ~Remove() { std::filesystem::remove_all(dir); }
  } const guard{dir};
  prepare(dir, settings);
  compare(dir, settings);
  return 0;
}

}  // namespace
}  // namespace odx

int main(int argc, char** argv) {
  try {
    return odx::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "device_bench: {}\n", error.what());
    return 2;
  }
}
