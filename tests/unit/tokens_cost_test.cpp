// What tokens cost does not depend on how large or fragmented a file is, nor on how many tokens
// there are. Counted in tree nodes and records, not in seconds, wherever that can be.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "unit/token_world.hpp"

namespace odx::test {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

bool quick() { return std::getenv("ODX_QUICK") != nullptr; }

// A file of `strides` MiB, each a block of data and a hole: two extents. The data is that of a few
// blocks of `blocks`, named again and again. Beyond 8192 strides the file is doubled by cloning; a
// path to its left end still has no node in common with one to its right end, but for the root.
InodeNo fragmented_file(TokenWorld& world, const std::string& name, const Inode& blocks,
                        std::uint64_t strides) {
  constexpr std::uint64_t kAtOnce = kInlineExtents / 2;
  const std::uint64_t own = std::min<std::uint64_t>(strides, 8192);
  REQUIRE(blocks.tree.extents.size() == 1);
  const PhysAddr first = blocks.tree.extents.front().address();
  const std::uint64_t count = blocks.size() / kBlockBytes;
  const InodeNo ino = world.file(name);
  {
    Mutation mutation = ok(Mutation::begin(world.core()));
    TreeEditor& trees = mutation.trees();
    Inode inode = ok(mutation.inode(ino));
    for (std::uint64_t made = 0; made < own;) {
      Tree piece;
      for (const std::uint64_t stop = std::min(made + kAtOnce, own); made < stop; ++made) {
        piece.extents.push_back(
            TreeEntry::data(first + made * 7 % count * kBlockBytes, kBlockBytes));
        piece.extents.push_back(TreeEntry::hole(kMiB - kBlockBytes));
      }
      inode.tree = ok(trees.concat(std::move(inode.tree), ok(trees.clone(piece))));
    }
    mutation.put(std::move(inode));
    ok(mutation.commit());
  }
  for (std::uint64_t bytes = own * kMiB; bytes < strides * kMiB; bytes *= 2) {
    ok(world.store().files().copy_range(ino, FileOffset(0), ino, FileOffset(bytes), bytes));
  }
  REQUIRE(world.inode(ino).size() == strides * kMiB);
  return ino;
}

struct Cost {
  std::size_t read_nodes = 0;   // that an OFFLOAD_READ touched, each counted once
  std::size_t write_nodes = 0;  // the same of an OFFLOAD_WRITE
  std::uint64_t records = 0;    // that both of them asked for
};

// With nothing in any cache. The range lies `cut` bytes inside the file on either side.
Cost cost_of(TokenWorld& world, const std::string& from, const std::string& to, std::uint64_t cut) {
  world.reopen();
  const InodeNo source = world.find(from);
  const InodeNo target = world.find(to);
  const std::uint64_t bytes = world.inode(source).size() - 2 * cut;
  CountingMeta& meta = world.count_meta();
  Cost cost;
  const odx_token token = world.token(source, cut, bytes);
  CountingMeta::Counts counts = meta.take();
  cost.read_nodes = counts.nodes.size();
  cost.records = counts.gets + counts.scanned;
  const Reply reply = world.write(target, cut, bytes, token);
  REQUIRE(reply.error == 0);
  REQUIRE(reply.written() == bytes);
  counts = meta.take();
  cost.write_nodes = counts.nodes.size();
  cost.records += counts.gets + counts.scanned;
  ok(world.tokens().drop(id_of(token), 0));
  return cost;
}

TEST_CASE("a TiB in a million pieces is read and written by touching a few paths",
          "[token][cost]") {
  TokenWorld world({.journal_bytes = 64ULL << 20});
  const Inode blocks = world.inode(world.file("blocks", pattern(64 * kBlockBytes, 1)));
  std::vector<Cost> inner;
  for (const std::uint64_t strides : {1ULL, 1ULL << 10, 1ULL << 20}) {
    const std::string from = "s" + std::to_string(strides);
    const std::string to = "d" + std::to_string(strides);
    fragmented_file(world, from, blocks, strides);
    fragmented_file(world, to, blocks, strides);
    const unsigned depth = world.inode(world.find(from)).tree.depth();
    // First inside the file, then all of it: that leaves the two files one tree.
    inner.push_back(cost_of(world, from, to, 512));
    const Cost whole = cost_of(world, from, to, 0);
    WARN(strides << " MiB in " << 2 * strides << " extents, depth " << depth
                 << ": nodes touched by READ and WRITE of all " << whole.read_nodes << ", "
                 << whole.write_nodes << "; of all but a sector at either end "
                 << inner.back().read_nodes << ", " << inner.back().write_nodes);
    // All of a file is one reference on its root, and the old content's root taken apart.
    REQUIRE(whole.read_nodes <= 1);
    REQUIRE(whole.write_nodes <= 4);
    REQUIRE(whole.records <= 100);
    // What holds for any file: the cuts go down one path each, with a neighbour or two a level.
    REQUIRE(inner.back().read_nodes <= 6 * depth);
    REQUIRE(inner.back().write_nodes <= 6 * depth);
  }
  // The same number up to the depth of the tree, which grows with the logarithm: here 3 and 5.
  REQUIRE(inner[2].read_nodes <= 2 * inner[1].read_nodes);
  REQUIRE(inner[2].write_nodes <= 3 * inner[1].write_nodes);
  REQUIRE(inner[2].records <= 3 * inner[1].records);
  world.close();
}

using Clock = std::chrono::steady_clock;

double microseconds(const std::function<void()>& work) {
  const Clock::time_point start = Clock::now();
  work();
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double median(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

constexpr std::uint32_t kHolder = 7;  // who has very many tokens

// A store in which `tokens` are live, and what is done in it again and again.
class Crowd {
 public:
  explicit Crowd(std::uint64_t tokens)
      : world_({.tokens = {.ttl_max_ms = 3'600'000,
                           .max_per_uid = tokens + 100,
                           .max_total = tokens + 100},
                .journal_bytes = 64ULL << 20}) {
    source_ = world_.file("s", pattern(kMiB, 1));
    target_ = world_.file("t", pattern(kMiB, 2));
    for (std::uint64_t i = 0; i < tokens; ++i) {
      odx_offload call = TokenWorld::read_call(i % 200 * 4096, 4096, 3'600'000);
      REQUIRE(world_.tokens().offload_read(source_, user(kHolder), call) == 0);
    }
    for (int i = 0; i < 16; ++i) {
      token_ = world_.token(source_, 0, 4096, 3'600'000, 0, user(1000));
    }
    ok(world_.core().meta->checkpoint());
    REQUIRE(world_.tokens().live() == tokens + 16);
  }
  TokenWorld& world() { return world_; }

  void make_and_drop() {
    odx_offload call = TokenWorld::read_call(0, 4096);
    REQUIRE(world_.tokens().offload_read(source_, user(1000), call) == 0);
    ok(world_.tokens().drop(id_of(call.body.read_out.token), 1000));
  }
  void redeem() {
    odx_offload call = TokenWorld::write_call(8192, 4096, token_);
    REQUIRE(world_.tokens().offload_write(target_, user(1000), call) == 0);
  }
  void list() { REQUIRE(ok(world_.tokens().list({}, 16, 1000)).size() == 16); }
  void list_as_root() { REQUIRE(ok(world_.tokens().list({}, 16, 0)).size() == 16); }
  void write() { world_.write_bytes(target_, 65536, kPage); }
  void expire() { REQUIRE(ok(world_.tokens().expire()).has_value()); }

 private:
  inline static const std::string kPage = pattern(4096, 3);
  TokenWorld world_;
  InodeNo source_;
  InodeNo target_;
  odx_token token_{};
};

TEST_CASE("a hundred thousand live tokens slow nothing down", "[token][cost]") {
  const std::uint64_t tokens = quick() ? 20'000 : 100'000;
  Crowd few(0);
  Crowd many(tokens);
  CountingMeta& few_meta = few.world().count_meta();
  CountingMeta& many_meta = many.world().count_meta();
  struct Job {
    const char* what;
    void (Crowd::*work)();
  };
  for (const Job& job :
       {Job{"READ and drop", &Crowd::make_and_drop}, Job{"WRITE", &Crowd::redeem},
        Job{"a user's list", &Crowd::list}, Job{"root's list", &Crowd::list_as_root},
        Job{"a plain write", &Crowd::write}, Job{"expire", &Crowd::expire}}) {
    few_meta.take();
    many_meta.take();
    std::vector<double> alone;
    std::vector<double> crowded;
    for (int i = 0; i < 101; ++i) {
      alone.push_back(microseconds([&] { (few.*job.work)(); }));
      crowded.push_back(microseconds([&] { (many.*job.work)(); }));
    }
    const CountingMeta::Counts a = few_meta.take();
    const CountingMeta::Counts b = many_meta.take();
    WARN(job.what << ": " << median(alone) << " us alone, " << median(crowded) << " us beside "
                  << tokens << " tokens; records asked for " << a.gets + a.scanned << ", "
                  << b.gets + b.scanned);
    CAPTURE(job.what);
    REQUIRE(b.nodes.size() == a.nodes.size());
    REQUIRE(b.gets <= a.gets + 10);
    // Root's list is read some records of the table at a time.
    REQUIRE(b.scanned <= a.scanned + 101 * (job.work == &Crowd::list_as_root ? 32 : 2));
    REQUIRE(median(crowded) <= 2 * median(alone) + 200);
  }
  few.world().close();
  many.world().close();
}

TEST_CASE("expiry does not look again at what it has cleared away", "[token][cost]") {
  Crowd crowd(1'000);
  TokenWorld& world = crowd.world();
  // Not all at one time.
  for (int i = 0; i < 100; ++i) {
    world.advance_ms(1);
    crowd.make_and_drop();
  }
  ok(world.core().meta->checkpoint());
  world.advance_ms(3'600'000 - 100);
  CountingMeta& meta = world.count_meta();
  ok(world.tokens().expire());
  REQUIRE(world.tokens().live() == 0);
  const std::string last_seen = ok(meta.scan("Y", "Z", 1)).at(0).key;
  meta.take();
  ok(world.tokens().expire());
  // A deleted record is passed by in every scan that begins before it, until the next checkpoint.
  const std::string from = meta.take().lowest_expiry_scan;
  REQUIRE(from >=
          keys::numbered(keys::kTokenExpiry, static_cast<std::uint64_t>(world.clock().now_ns())));
  REQUIRE(from <= last_seen);
  world.advance_ms(60'000);
  REQUIRE_FALSE(ok(world.tokens().expire()).has_value());
  REQUIRE(world.records(keys::kToken) == 0);
  world.close();
}

// Memory that is not a file's, in MiB.
double anonymous_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) {
      return std::stod(line.substr(8)) / 1024;
    }
  }
  return 0;
}

// ODX_LONG=1: a million.
TEST_CASE("very many clones of one image come and go without a trace", "[token][cost]") {
  const int clones = std::getenv("ODX_LONG") != nullptr ? 1'000'000 : quick() ? 10'000 : 100'000;
  TokenWorld world({.limit_bytes = 256ULL << 20, .journal_bytes = 256ULL << 20});
  const std::string image = pattern(2 * kMiB, 1);
  const InodeNo source = world.file("image", image);
  for (std::uint64_t at = 0; at < image.size(); at += 8192) {  // in 512 extents
    world.write_bytes(source, at, std::string_view(image).substr(at, 4096));
  }
  const InodeNo dir =
      ok(world.store().names().create(kRootInode, "clones", {.mode = S_IFDIR | 0755}))->ino;
  world.settle();
  const std::uint64_t free_before = world.free_blocks();
  const std::size_t nodes_before = world.records(keys::kNode);
  const double memory_before = anonymous_mib();
  double most_memory = 0;
  const auto name = [](int i) { return "c" + std::to_string(i); };

  const double made_us = microseconds([&] {
    for (int i = 0; i < clones; ++i) {
      const InodeNo clone =
          ok(world.store().names().create(dir, name(i), {.mode = S_IFREG | 0644}))->ino;
      const auto copied = ok(world.store().files().copy_range(source, FileOffset(0), clone,
                                                              FileOffset(0), image.size()));
      if (copied.shared != image.size()) {
        FAIL("clone " << i << " is not one");
      }
      if (i % 10'000 == 0) {
        most_memory = std::max(most_memory, anonymous_mib());
      }
    }
  });
  REQUIRE(world.free_blocks() == free_before);
  for (const int i : {0, clones / 2, clones - 1}) {
    REQUIRE(world.content(ok(world.store().names().lookup(dir, name(i)))->ino) == image);
  }
  const double gone_us = microseconds([&] {
    for (int i = 0; i < clones; ++i) {
      ok(world.store().names().reap(ok(world.store().names().unlink(dir, name(i)))->ino));
      if (i % 10'000 == 0) {
        ok(world.store().reclaim());
        most_memory = std::max(most_memory, anonymous_mib());
      }
    }
    world.settle();
  });
  WARN(clones << " clones: made in " << made_us / 1e6 << " s, deleted in " << gone_us / 1e6
              << " s, with " << most_memory - memory_before << " MiB more memory at most");
  REQUIRE(world.free_blocks() == free_before);
  REQUIRE(world.records(keys::kNode) == nodes_before);
  REQUIRE(world.records(keys::kReclaim) == 0);
  REQUIRE(world.records(keys::kOrphan) == 0);
  REQUIRE(world.content(source) == image);
  world.close();
}

}  // namespace
}  // namespace odx::test
