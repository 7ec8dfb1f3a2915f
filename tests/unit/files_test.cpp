// File content through a whole store: against a naive model, across remounts, with readers and
// writers beside each other. Every store ends with a check that recounts everything.

#include <sys/resource.h>

#include <rapidcheck.h>
#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "must.hpp"
#include "store/check/check.hpp"
#include "store/store.hpp"
#include "temp_dir.hpp"

using namespace odx;
using namespace odx::test;

namespace {

using Model = std::string;

class World {
 public:
  explicit World(std::uint64_t limit_bytes = 256ULL << 20, bool background = true)
      : background_(background) {
    FormatOptions format;
    format.limit_bytes = limit_bytes;
    format.journal_bytes = 4ULL << 20;
    must(Store::format(path(), format));
    open();
  }

  void open() {
    OpenOptions options;
    options.background = background_;
    store_ = must(Store::open(path(), std::move(options)));
  }
  void close() {
    must(store_->close());
    store_.reset();
  }
  void remount() {
    close();
    open();
  }
  // The process ends without a word.
  void crash() {
    store_.reset();
    open();
  }
  // Everything is closed, and every block verified.
  void finish() {
    close();
    CheckOptions options;
    options.data = true;
    const CheckReport report = must(check_store(path(), options));
    for (const std::string& problem : report.problems) {
      UNSCOPED_INFO(problem);
    }
    REQUIRE(report.clean());
  }

  InodeNo create(const std::string& name) {
    NewInode what;
    what.mode = S_IFREG | 0644;
    return must(store_->names().create(kRootInode, name, what))->ino;
  }
  std::string read(InodeNo ino, std::uint64_t at, std::size_t bytes) {
    AlignedBuffer buffer(bytes + kBlockBytes);
    const std::size_t got =
        must(store_->files().read(ino, FileOffset(at), buffer.span().first(bytes)));
    return {reinterpret_cast<const char*>(buffer.data()), got};
  }
  void write(InodeNo ino, std::uint64_t at, const std::string& data) {
    must(try_write(ino, at, data));
  }
  Result<void> try_write(InodeNo ino, std::uint64_t at, const std::string& data) {
    return store_->files().write(ino, FileOffset(at), std::as_bytes(std::span(data)));
  }
  std::uint64_t size(InodeNo ino) { return must(store_->names().get(ino))->size(); }

  Store& store() { return *store_; }
  [[nodiscard]] std::string path() const { return dir_.file("store"); }

 private:
  TempDir dir_;
  bool background_;
  std::unique_ptr<Store> store_;
};

std::string noise(std::size_t bytes, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string out(bytes, '\0');
  for (char& c : out) {
    c = static_cast<char>(random());
  }
  return out;
}

void overwrite(Model& model, std::uint64_t at, const std::string& data) {
  if (model.size() < at + data.size()) {
    model.resize(at + data.size());
  }
  model.replace(at, data.size(), data);
}

struct Pair {
  InodeNo ino;
  Model model;
};

// One random operation on a few files, done to the store and to the model.
void step(World& world, std::vector<Pair>& files, std::mt19937_64& random) {
  Pair& file = files[random() % files.size()];
  Pair& other = files[random() % files.size()];
  const std::uint64_t size = file.model.size();
  constexpr std::uint64_t kMost = 300'000;
  std::uint64_t at = random() % kMost;
  if (random() % 2 == 0) {
    at = round_down(at, kBlockBytes);
  }
  const std::uint64_t bytes = 1 + random() % (random() % 3 == 0 ? 100'000 : 5'000);
  switch (random() % 10) {
    case 0: {
      const std::uint64_t to = random() % kMost;
      must(world.store().files().truncate(file.ino, to));
      file.model.resize(to);
      break;
    }
    case 1: {
      must(world.store().files().allocate(file.ino, Files::AllocateMode::kPunchHole, true,
                                          FileOffset(at), bytes));
      if (at < size) {
        const std::uint64_t here = std::min(bytes, size - at);
        file.model.replace(at, here, std::string(here, '\0'));
      }
      break;
    }
    case 2: {
      must(world.store().files().allocate(file.ino, Files::AllocateMode::kZeroRange, false,
                                          FileOffset(at), bytes));
      overwrite(file.model, at, std::string(bytes, '\0'));
      break;
    }
    case 3:
    case 4:
    case 5: {  // share
      const std::uint64_t to = random() % kMost;
      const auto copied = must(world.store().files().copy_range(file.ino, FileOffset(at), other.ino,
                                                                FileOffset(to), bytes));
      const std::uint64_t expected = at < size ? std::min(bytes, size - at) : 0;
      REQUIRE(copied.bytes == expected);
      REQUIRE(copied.shared <= expected);
      if (expected > 0) {
        overwrite(other.model, to, file.model.substr(at, expected));
      }
      break;
    }
    default: {
      const std::string data = noise(bytes, random());
      world.write(file.ino, at, data);
      overwrite(file.model, at, data);
    }
  }
}

void compare(World& world, const std::vector<Pair>& files) {
  for (const Pair& file : files) {
    REQUIRE(world.size(file.ino) == file.model.size());
    REQUIRE(world.read(file.ino, 0, file.model.size() + 10) == file.model);
  }
}

}  // namespace

TEST_CASE("random file operations agree with plain strings, across remounts") {
  const bool ok = rc::check("files", [] {
    const auto seed = *rc::gen::arbitrary<std::uint64_t>();
    std::mt19937_64 random(seed);
    World world;
    std::vector<Pair> files;
    for (const char* name : {"a", "b", "c"}) {
      files.push_back({world.create(name), {}});
    }
    for (int i = 0; i < 60; ++i) {
      step(world, files, random);
      if (i % 20 == 19) {
        compare(world, files);
      }
      if (i == 30) {
        world.remount();
      }
    }
    compare(world, files);
    must(world.store().names().sync());
    world.crash();
    compare(world, files);
    world.finish();
  });
  REQUIRE(ok);
}

TEST_CASE("writes of every alignment land where they belong") {
  World world;
  const InodeNo ino = world.create("f");
  Model model;
  std::mt19937_64 random(7);
  for (const std::uint64_t at : {0ULL, 1ULL, 511ULL, 4095ULL, 4096ULL, 4097ULL, 12288ULL}) {
    for (const std::size_t bytes : {1UL, 2UL, 511UL, 4095UL, 4096UL, 4097UL, 8192UL, 70'000UL}) {
      const std::string data = noise(bytes, random());
      world.write(ino, at, data);
      overwrite(model, at, data);
      REQUIRE(world.read(ino, 0, model.size()) == model);
    }
  }
  for (const std::uint64_t at : {0ULL, 1ULL, 4095ULL, 4096ULL, 5000ULL}) {
    REQUIRE(world.read(ino, at, 9000) == model.substr(at, 9000));
  }
  REQUIRE(world.read(ino, model.size(), 10).empty());
  REQUIRE(world.read(ino, model.size() + 5, 10).empty());
  world.finish();
}

TEST_CASE("a copy shares every byte, whatever the alignment, and outlives its source") {
  World world;
  const InodeNo from = world.create("from");
  const InodeNo to = world.create("to");
  const std::string data = noise(1'000'003, 1);
  world.write(from, 0, data);
  const std::uint64_t written = world.store().core().counters.device_bytes_written.load();
  const auto copied =
      must(world.store().files().copy_range(from, FileOffset(13), to, FileOffset(5), 900'001));
  REQUIRE(copied.bytes == 900'001);
  REQUIRE(copied.shared == 900'001);
  REQUIRE(world.store().core().counters.device_bytes_written.load() == written);
  must(world.store().files().truncate(from, 0));
  must(world.store().reclaim());
  must(world.store().names().sync());
  REQUIRE(world.read(to, 0, 1'000'000) == std::string(5, '\0') + data.substr(13, 900'001));
  world.finish();
}

TEST_CASE("overlapping copies inside one file read the old bytes") {
  World world;
  const InodeNo ino = world.create("f");
  Model model = noise(100'000, 3);
  world.write(ino, 0, model);
  must(world.store().files().copy_range(ino, FileOffset(0), ino, FileOffset(1000), 90'000));
  model.replace(1000, 90'000, model.substr(0, 90'000));
  REQUIRE(world.read(ino, 0, model.size()) == model);
  must(world.store().files().copy_range(ino, FileOffset(5000), ino, FileOffset(1), 60'000));
  model.replace(1, 60'000, std::string(model.substr(5000, 60'000)));
  REQUIRE(world.read(ino, 0, model.size()) == model);
  world.finish();
}

TEST_CASE("holes: seeks, sums, collapse and insert") {
  World world;
  const InodeNo ino = world.create("f");
  Files& files = world.store().files();
  Model model = noise(20'000, 4);
  world.write(ino, 0, model);
  must(files.truncate(ino, 100'000));
  REQUIRE(must(files.seek_data(ino, FileOffset(0))).value() == 0);
  REQUIRE(must(files.seek_hole(ino, FileOffset(0))).value() == 20'000);
  REQUIRE(files.seek_data(ino, FileOffset(20'000)).error().errno_value() == ENXIO);
  REQUIRE(must(files.seek_hole(ino, FileOffset(50'000))).value() == 50'000);
  REQUIRE(files.seek_hole(ino, FileOffset(100'000)).error().errno_value() == ENXIO);
  model.resize(100'000);
  must(files.allocate(ino, Files::AllocateMode::kInsert, false, FileOffset(3'000), 7'000));
  model.insert(3'000, 7'000, '\0');
  must(files.allocate(ino, Files::AllocateMode::kCollapse, false, FileOffset(12'000), 50'000));
  model.erase(12'000, 50'000);
  REQUIRE(world.read(ino, 0, 200'000) == model);
  REQUIRE(files.allocate(ino, Files::AllocateMode::kCollapse, false, FileOffset(0), model.size())
              .error()
              .errno_value() == EINVAL);
  world.finish();
}

TEST_CASE("limits of offsets and sizes") {
  World world;
  const InodeNo ino = world.create("f");
  Files& files = world.store().files();
  REQUIRE(world.try_write(ino, kMaxFileBytes, "x").error().errno_value() == EFBIG);
  REQUIRE(world.try_write(ino, UINT64_MAX, "x").error().errno_value() == EFBIG);
  world.write(ino, kMaxFileBytes - 1, "x");
  REQUIRE(world.size(ino) == kMaxFileBytes);
  REQUIRE(world.read(ino, kMaxFileBytes - 5000, 5000) == std::string(4999, '\0') + "x");
  REQUIRE(files.truncate(ino, kMaxFileBytes + 1).error().errno_value() == EFBIG);
  REQUIRE(world.try_write(kRootInode, 0, "x").error().errno_value() == EISDIR);
  REQUIRE(world.try_write(InodeNo(999), 0, "x").error().errno_value() == ENOENT);
  world.finish();
}

TEST_CASE("a full store says ENOSPC and is usable again after deletes") {
  World world(32ULL << 20);
  std::vector<InodeNo> made;
  const std::string chunk = noise(1 << 20, 9);
  for (int i = 0; i < 64; ++i) {
    const InodeNo ino = world.create("f" + std::to_string(i));
    const Result<void> done = world.try_write(ino, 0, chunk);
    if (!done) {
      REQUIRE(done.error().errno_value() == ENOSPC);
      break;
    }
    made.push_back(ino);
  }
  REQUIRE(made.size() >= 30);
  REQUIRE(made.size() <= 32);
  for (std::size_t i = 0; i < made.size(); i += 2) {
    must(world.store().names().unlink(kRootInode, "f" + std::to_string(i)));
    must(world.store().names().reap(made[i]));
  }
  // The allocator hurries what was freed; nobody has to wait for a timer.
  for (int i = 0; i < 14; ++i) {
    world.write(world.create("g" + std::to_string(i)), 0, chunk);
  }
  world.finish();
}

TEST_CASE("deleting shared files returns every block") {
  World world;
  const InodeNo first = world.create("first");
  for (int i = 0; i < 300; ++i) {
    world.write(first, static_cast<std::uint64_t>(i) * 8192, noise(4096, static_cast<unsigned>(i)));
  }
  must(world.store().names().sync());
  world.store().core().settle_space();
  const std::uint64_t used = world.store().core().space.stats().free_blocks;
  std::mt19937_64 random(11);
  for (int i = 0; i < 50; ++i) {
    const std::string name = "c" + std::to_string(i);
    const InodeNo copy = world.create(name);
    must(world.store().files().copy_range(first, FileOffset(random() % 100'000), copy,
                                          FileOffset(random() % 5000), UINT32_MAX));
    world.write(copy, random() % 1'000'000, noise(3000, random()));
  }
  for (int i = 0; i < 50; ++i) {
    const InodePtr gone = must(world.store().names().unlink(kRootInode, "c" + std::to_string(i)));
    must(world.store().names().reap(gone->ino));
  }
  must(world.store().reclaim());
  must(world.store().names().sync());
  world.store().core().settle_space();
  REQUIRE(world.store().core().space.stats().free_blocks == used);
  world.finish();
}

TEST_CASE("a damaged block is an error, never data") {
  World world;
  const InodeNo ino = world.create("f");
  world.write(ino, 0, std::string(8192, 'A'));
  must(world.store().names().sync());
  world.close();
  {
    const std::string segment = world.path() + "/data/0000.seg";
    std::fstream file(segment, std::ios::in | std::ios::out | std::ios::binary);
    std::string bytes(1 << 20, '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    const std::size_t at = bytes.find("AAAA");
    REQUIRE(at != std::string::npos);
    file.seekp(static_cast<std::streamoff>(at + 4096 + 17));
    file.put('B');
  }
  CheckOptions options;
  options.data = true;
  REQUIRE_FALSE(must(check_store(world.path(), options)).clean());
  world.open();
  AlignedBuffer buffer(8192);
  REQUIRE(must(world.store().files().read(ino, FileOffset(0), buffer.span().first(4096))) == 4096);
  const auto bad = world.store().files().read(ino, FileOffset(4096), buffer.span().first(4096));
  REQUIRE_FALSE(bad);
  REQUIRE(bad.error().is_corruption());
  REQUIRE(bad.error().errno_value() == EIO);
  REQUIRE(world.store().core().counters.checksum_errors.load() == 1);
  world.close();
}

TEST_CASE("readers see whole writes while writers, copies and truncates go on") {
  World world;
  constexpr std::size_t kBytes = 24'576;
  constexpr int kFiles = 3;
  std::vector<InodeNo> files;
  for (int i = 0; i < kFiles; ++i) {
    files.push_back(world.create("f" + std::to_string(i)));
    world.write(files.back(), 0, std::string(kBytes, 'a'));
  }
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> torn{0};
  std::atomic<std::uint64_t> reads{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      AlignedBuffer buffer(kBytes);
      while (!stop.load()) {
        const auto got =
            world.store().files().read(files[random() % kFiles], FileOffset(0), buffer.span());
        // Every writer fills the whole range with one letter, so a mixture is a torn write.
        const char first = static_cast<char>(buffer.data()[0]);
        if (!got || !std::all_of(buffer.data(), buffer.data() + *got,
                                 [&](std::byte b) { return static_cast<char>(b) == first; })) {
          torn.fetch_add(1);
        }
        reads.fetch_add(1);
      }
    });
  }
  std::atomic<std::uint64_t> failures{0};
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(100 + t);
      for (int i = 0; i < 150; ++i) {
        const InodeNo target = files[random() % kFiles];
        Result<void> done;
        switch (random() % 4) {
          case 0: {
            const auto copied = world.store().files().copy_range(
                files[random() % kFiles], FileOffset(0), target, FileOffset(0), kBytes);
            if (!copied) {
              failures.fetch_add(1);
            }
            break;
          }
          case 1:
            done = world.store().files().sync(target);
            break;
          default:
            done = world.try_write(target, 0,
                                   std::string(kBytes, static_cast<char>('a' + random() % 26)));
        }
        if (!done) {
          failures.fetch_add(1);
        }
      }
    });
  }
  for (std::size_t i = 2; i < threads.size(); ++i) {
    threads[i].join();
  }
  stop.store(true);
  threads[0].join();
  threads[1].join();
  REQUIRE(failures.load() == 0);
  REQUIRE(torn.load() == 0);
  REQUIRE(reads.load() > 0);
  world.finish();
}

TEST_CASE("concurrent writes to parts of one block are all there") {
  World world;
  const InodeNo ino = world.create("f");
  world.write(ino, 0, std::string(8192, '.'));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        (void)world.try_write(ino, static_cast<std::uint64_t>(t * 2000 + i * 50),
                              std::string(50, static_cast<char>('a' + t)));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::string expected;
  for (int t = 0; t < 4; ++t) {
    expected += std::string(2000, static_cast<char>('a' + t));
  }
  expected += std::string(192, '.');
  REQUIRE(world.read(ino, 0, 8192) == expected);
  world.finish();
}

TEST_CASE("extents that continue each other stay within bounds") {
  World world;
  const InodeNo ino = world.create("sequence");
  const std::string piece = noise(1 << 20, 5);
  for (std::uint64_t i = 0; i < 24; ++i) {
    world.write(ino, i << 20, piece);
  }
  const InodePtr inode = must(world.store().names().get(ino));
  REQUIRE_FALSE(inode->tree.root);
  REQUIRE(inode->tree.extents.size() >= 24 / 4);
  for (const TreeEntry& extent : inode->tree.extents) {
    REQUIRE(extent.bytes <= kMaxMergedBytes);
  }
  world.finish();
}

TEST_CASE("a read of many bytes of many blocks takes little memory") {
  World world;
  const InodeNo source = world.create("source");
  const std::string data = noise(4 * kBlockBytes, 6);
  world.write(source, 0, data);
  // Bytes of two blocks in turn: each is an extent of its own.
  const InodeNo ino = world.create("bytes");
  Files& files = world.store().files();
  must(files.copy_range(source, FileOffset(0), ino, FileOffset(0), 1));
  must(files.copy_range(source, FileOffset(2 * kBlockBytes), ino, FileOffset(1), 1));
  constexpr std::uint64_t kBytes = 64 << 10;
  for (std::uint64_t bytes = 2; bytes < kBytes; bytes *= 2) {
    must(files.copy_range(ino, FileOffset(0), ino, FileOffset(bytes), bytes));
  }
  const auto peak_kib = [] {
    struct rusage usage {};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const long before = peak_kib();
  const std::string found = world.read(ino, 0, kBytes);
  std::string expected;
  while (expected.size() < kBytes) {
    expected += data[0];
    expected += data[2 * kBlockBytes];
  }
  REQUIRE(found == expected);
  REQUIRE(peak_kib() - before < 100 << 10);  // a block for each byte would be 256 MiB
  world.finish();
}

// Sharing makes large files of few nodes, and slices leave nodes as empty as they may be.
TEST_CASE("the deepest tree that anybody can make is a tree like others") {
  World world;
  Files& files = world.store().files();
  const InodeNo source = world.create("source");
  world.write(source, 0, noise(4 * kBlockBytes, 7));
  InodeNo thin = world.create("thin");
  std::uint64_t bytes = 0;
  for (std::uint64_t i = 0; i < 10; ++i, bytes += 512) {
    must(files.copy_range(source, FileOffset(i % 2 * 2 * kBlockBytes), thin, FileOffset(bytes),
                          512));
  }
  const auto level = [&](InodeNo ino) {
    const InodePtr inode = must(world.store().names().get(ino));
    return inode->tree.root ? inode->tree.root->level : 0;
  };
  unsigned deepest = 0;
  for (int round = 0; bytes <= kMaxFileBytes / 32; ++round) {
    const InodeNo row = world.create("row " + std::to_string(round));
    std::uint64_t at = 0;
    const auto append = [&] {
      must(files.copy_range(thin, FileOffset(0), row, FileOffset(at), bytes));
      at += bytes;
    };
    for (int i = 0; i < 20 && level(row) <= level(thin); ++i) {
      append();
    }
    for (int i = 0; i < 9; ++i) {
      append();
    }
    // The last eight of them: the edges are cut where nodes end.
    thin = world.create("thin " + std::to_string(round));
    must(files.copy_range(row, FileOffset(at - 8 * bytes), thin, FileOffset(0), 8 * bytes));
    bytes *= 8;
    deepest = std::max({deepest, level(row), level(thin)});
  }
  REQUIRE(deepest > 14);
  REQUIRE(deepest <= kMaxTreeLevel);
  REQUIRE(world.read(thin, bytes - 512, 512) == world.read(source, 2 * kBlockBytes, 512));
  world.finish();
}
