// Scrub: every used block once, damage named with all its owners, nothing false beside writers,
// and a position that survives.
#include "store/check/scrub.hpp"

#include <array>
#include <atomic>
#include <thread>

#include "store/check/repair.hpp"
#include "store/inode/data_io.hpp"
#include "token_world.hpp"

namespace odx::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kUnlimited = ODX_SCRUB_RATE_UNLIMITED;

// A store whose device counts what is read of each block, and damages what it is told to.
class WatchedDevice final : public BlockDevice {
 public:
  explicit WatchedDevice(std::unique_ptr<BlockDevice> below) : below_(std::move(below)) {}
  [[nodiscard]] std::uint64_t blocks() const override { return below_->blocks(); }
  Result<void> read(std::span<const BlockRead> runs) override {
    const std::lock_guard lock(mutex_);
    for (const BlockRead& read : runs) {
      for (std::uint64_t block : unreadable) {
        if (block >= read.run.first.value() && block < read.run.end().value()) {
          return fail(EIO, "medium error");
        }
      }
    }
    ODX_TRY(below_->read(runs));
    for (const BlockRead& read : runs) {
      for (std::uint64_t i = 0; i < read.run.count; ++i) {
        const std::uint64_t block = read.run.first.value() + i;
        ++reads[block];
        if (const auto at = damaged.find(block); at != damaged.end()) {
          read.data[i * kBlockBytes + at->second] ^= std::byte{1};
        }
      }
    }
    return {};
  }
  Result<void> write(std::span<const BlockWrite> runs) override { return below_->write(runs); }
  Result<void> sync() override { return below_->sync(); }
  Result<void> add_segment(std::uint64_t blocks) override { return below_->add_segment(blocks); }
  Result<void> extend(std::uint64_t blocks) override { return below_->extend(blocks); }
  Result<void> cut(std::uint64_t blocks) override { return below_->cut(blocks); }
  void discard(std::span<const BlockRun> runs) override { below_->discard(runs); }
  [[nodiscard]] std::uint64_t host_free_bytes() const override { return below_->host_free_bytes(); }

  std::map<std::uint64_t, unsigned> reads;
  std::map<std::uint64_t, std::size_t> damaged;  // block, byte
  std::set<std::uint64_t> unreadable;

 private:
  std::mutex mutex_;
  std::unique_ptr<BlockDevice> below_;
};

class ScrubWorld {
 public:
  ScrubWorld() { watch(); }

  void watch() {
    auto watched = std::make_unique<WatchedDevice>(std::move(world.core().device));
    device = watched.get();
    world.core().device = std::move(watched);
  }
  Scrub& scrub() { return world.store().scrub(); }
  odx_scrub ask(odx_scrub_operation operation, std::uint64_t rate = 0) {
    odx_scrub call{};
    call.operation = operation;
    call.rate = rate;
    ok(scrub().control(call, false));
    return call;
  }
  int refused(odx_scrub_operation operation) {
    odx_scrub call{};
    call.operation = operation;
    const auto done = scrub().control(call, false);
    return done ? 0 : done.error().errno_value();
  }
  odx_scrub status() { return ask(ODX_SCRUB_STATUS); }
  // Until it does not run any more; the clock moves as it asks for.
  odx_scrub finish() {
    while (status().state == ODX_SCRUB_RUNNING) {
      world.clock().advance_ns(scrub().step().count());
    }
    return status();
  }
  std::vector<std::string> report() {
    std::string text;
    for (odx_scrub call{}; text.empty() || text.size() < call.text_total; call = {}) {
      call.text_from = text.size();
      ok(scrub().control(call, false));
      REQUIRE(call.text_bytes <= sizeof call.text);
      text.append(call.text, call.text_bytes);
      if (call.text_total == text.size()) {
        break;
      }
    }
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = text.find('\n', at);
      REQUIRE(end != std::string::npos);
      lines.push_back(text.substr(at, end - at));
      at = end + 1;
    }
    return lines;
  }
  std::uint64_t first_block(InodeNo ino) {
    const Tree tree = world.inode(ino).tree;
    REQUIRE(!tree.root);
    return block_of(tree.extents.at(0).address()).value();
  }
  std::uint64_t used() { return world.core().space.used_from(BlockNo(0)); }

  TokenWorld world;
  WatchedDevice* device = nullptr;
};

std::string number(std::uint64_t n) { return std::to_string(n); }

TEST_CASE("each used block is read once, however often it is shared") {
  ScrubWorld s;
  const std::string data = pattern(3 << 20, 1);
  const InodeNo a = s.world.file("a", data);
  for (int i = 0; i < 5; ++i) {
    const InodeNo clone = s.world.file("clone" + std::to_string(i));
    ok(s.world.store().files().copy_range(a, FileOffset(0), clone, FileOffset(0), data.size()));
  }
  (void)s.world.token(a, 0, 1 << 20);
  s.world.file("gone", pattern(1 << 20, 2));
  s.world.remove("gone");
  s.world.settle();
  s.device->reads.clear();
  const std::uint64_t used = s.used();
  REQUIRE(used == data.size() / kBlockBytes);

  REQUIRE(s.status().state == ODX_SCRUB_NEVER);
  const odx_scrub begun = s.ask(ODX_SCRUB_START, kUnlimited);
  REQUIRE(begun.state == ODX_SCRUB_RUNNING);
  REQUIRE(begun.pass == 1);
  REQUIRE(begun.done_bytes == 0);
  REQUIRE(begun.total_bytes == data.size());
  const odx_scrub done = s.finish();
  REQUIRE(done.state == ODX_SCRUB_DONE);
  REQUIRE(done.done_bytes == data.size());
  REQUIRE(done.total_bytes == data.size());
  REQUIRE(done.damaged_blocks == 0);
  REQUIRE(done.text_total == 0);
  REQUIRE(s.device->reads.size() == used);
  for (const auto& [block, times] : s.device->reads) {
    REQUIRE(times == 1);
  }
  // Another start is another pass, of which nothing is saved yet.
  REQUIRE(done.saved_position == data.size());
  const odx_scrub next = s.ask(ODX_SCRUB_START);
  REQUIRE(next.pass == 2);
  REQUIRE(next.saved_position == 0);
  REQUIRE(s.finish().state == ODX_SCRUB_DONE);
  s.world.close();
}

TEST_CASE("damage is named with its range in every owner") {
  ScrubWorld s;
  const InodeNo a = s.world.file("a", pattern(10 * kBlockBytes, 1));
  const InodeNo part = s.world.file("part");
  ok(s.world.store().files().copy_range(a, FileOffset(3 * kBlockBytes + 100), part, FileOffset(0),
                                        2 * kBlockBytes));
  ok(s.world.store().names().create(kRootInode, "dir", {.mode = S_IFDIR | 0755}));
  const InodeNo big = s.world.file("big");
  for (int i = 0; i < 100; ++i) {  // a tree with nodes
    s.world.write_bytes(big, static_cast<std::uint64_t>(i) * 2 * kBlockBytes,
                        pattern(kBlockBytes, 7));
  }
  ok(s.world.store().files().copy_range(a, FileOffset(4 * kBlockBytes), big,
                                        FileOffset(150 * kBlockBytes), kBlockBytes));
  const odx_token token = s.world.token(a, 4 * kBlockBytes, kBlockBytes);
  const InodeNo untouched = s.world.file("untouched", pattern(kBlockBytes, 3));
  const InodeNo nameless = s.world.file("nameless");
  ok(s.world.store().files().copy_range(a, FileOffset(4 * kBlockBytes), nameless, FileOffset(0),
                                        10));
  ok(s.world.store().names().unlink(kRootInode, "nameless"));
  s.world.sync();

  const std::uint64_t bad = s.first_block(a) + 4;
  s.device->damaged[bad] = 77;
  s.ask(ODX_SCRUB_START, kUnlimited);
  const odx_scrub done = s.finish();
  REQUIRE(done.state == ODX_SCRUB_DONE);
  REQUIRE(done.damaged_blocks == 1);
  REQUIRE(done.damaged_owners == 5);
  REQUIRE(s.world.core().counters.checksum_errors == 1);
  const std::uint64_t k = kBlockBytes;
  std::string id;
  for (const std::uint8_t byte : id_of(token)) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", byte);
    id += two;
  }
  const std::vector<std::string> expected{
      "block " + number(bad) + ": the data does not match its checksum",
      "inode " + number(a.value()) + ", \"/a\": damaged bytes " + number(4 * k) + " to " +
          number(5 * k - 1),
      "inode " + number(part.value()) + ", \"/part\": damaged bytes " + number(k - 100) + " to " +
          number(2 * k - 101),
      "inode " + number(big.value()) + ", \"/big\": damaged bytes " + number(150 * k) + " to " +
          number(151 * k - 1),
      "inode " + number(nameless.value()) + ", which has no name: damaged bytes 0 to 9",
      "token " + id + ": damaged bytes 0 to 4095",
  };
  const auto sorted = [](std::vector<std::string> lines) {
    std::sort(lines.begin(), lines.end());
    return lines;
  };
  REQUIRE(sorted(s.report()) == sorted(expected));
  REQUIRE(untouched != a);

  // The damage survives a remount with its report; a new pass looks again.
  s.world.reopen();
  REQUIRE(s.status().state == ODX_SCRUB_DONE);
  REQUIRE(s.status().damaged_blocks == 1);
  REQUIRE(s.report().size() == expected.size());
  s.ask(ODX_SCRUB_START);
  REQUIRE(s.report().empty());
  REQUIRE(s.finish().damaged_blocks == 0);  // this device is whole
  s.world.close();
}

TEST_CASE("what cannot be read is reported, and the rest is verified") {
  ScrubWorld s;
  const InodeNo a = s.world.file("a", pattern(600 * kBlockBytes, 1));
  s.world.sync();
  const std::uint64_t first = s.first_block(a);
  s.device->unreadable = {first + 10, first + 11, first + 300};
  s.device->damaged[first + 599] = 0;
  s.ask(ODX_SCRUB_START, kUnlimited);
  const odx_scrub done = s.finish();
  REQUIRE(done.state == ODX_SCRUB_DONE);
  REQUIRE(done.damaged_blocks == 4);
  REQUIRE(done.done_bytes == 600 * kBlockBytes);
  const auto lines = s.report();
  REQUIRE(lines.size() == 4);
  REQUIRE(lines[0] == "blocks " + number(first + 10) + " to " + number(first + 11) +
                          ": the data cannot be read");
  REQUIRE(lines[1] == "block " + number(first + 300) + ": the data cannot be read");
  REQUIRE(lines[3] == "inode " + number(a.value()) + ", \"/a\": damaged bytes " +
                          number(10 * kBlockBytes) + " to " + number(12 * kBlockBytes - 1) + ", " +
                          number(300 * kBlockBytes) + " to " + number(301 * kBlockBytes - 1) +
                          ", " + number(599 * kBlockBytes) + " to " +
                          number(600 * kBlockBytes - 1));
  s.device->unreadable.clear();
  s.device->damaged.clear();
  s.world.close();
}

TEST_CASE("a checksum that is gone is damage; blocks that nothing names are not") {
  ScrubWorld s;
  const InodeNo a = s.world.file("a", pattern(kBlockBytes, 1));
  s.world.sync();
  SECTION("a checksum record is missing") {
    const BlockNo block(s.first_block(a));
    const std::string key = keys::checksums(block);
    const std::string record = *ok(s.world.core().meta->get(key));
    ok(s.world.core().meta->commit({{key, std::nullopt}}));
    s.ask(ODX_SCRUB_START, kUnlimited);
    REQUIRE(s.finish().damaged_blocks == 1);
    REQUIRE(s.report().at(0) == "block " + number(block.value()) + ": no readable checksum");
    ok(s.world.core().meta->commit({{key, record}}));
  }
  SECTION("blocks on their way to a file") {
    FreshBlocks fresh(s.world.core());
    ok(fresh.allocate(5));
    s.ask(ODX_SCRUB_START, kUnlimited);
    const odx_scrub done = s.finish();
    REQUIRE(done.done_bytes == 6 * kBlockBytes);
    REQUIRE(done.damaged_blocks == 0);
    REQUIRE(done.suspects == 0);
  }
  SECTION("a file that was removed after its block was read") {
    s.device->damaged[s.first_block(a)] = 5;
    s.ask(ODX_SCRUB_START, kUnlimited);
    REQUIRE(s.scrub().step() == 0ns);
    REQUIRE(s.status().suspects == 1);
    s.world.remove("a");
    s.world.settle();
    REQUIRE(s.finish().damaged_blocks == 0);
  }
  s.world.close();
}

TEST_CASE("the rate is kept, and can be changed while it runs") {
  ScrubWorld s;
  constexpr std::uint64_t kMiB = 1 << 20;
  s.world.file("a", pattern(8 * kMiB, 1));
  s.world.sync();
  s.ask(ODX_SCRUB_START, kMiB);
  REQUIRE(s.scrub().step() == 250'000'001ns);  // a quarter of a second's worth was read
  REQUIRE(s.status().done_bytes == kMiB / 4);
  REQUIRE(s.scrub().step() > 0ns);  // the clock stands still
  REQUIRE(s.status().done_bytes == kMiB / 4);
  const std::int64_t begun = s.world.clock().now_ns();
  while (s.status().done_bytes < 4 * kMiB) {
    const auto rest = s.scrub().step();
    REQUIRE(rest <= 251ms);
    s.world.clock().advance_ns(rest.count());
  }
  const std::int64_t took = s.world.clock().now_ns() - begun;
  REQUIRE(took > 3'700'000'000);
  REQUIRE(took < 4'300'000'000);
  const odx_scrub half = s.status();
  REQUIRE(half.active_ns > 3'500'000'000);
  REQUIRE(half.total_bytes == 8 * kMiB);
  SECTION("a clock that goes back stops nothing") {
    s.world.clock().advance_ns(-3600 * kNsPerSecond);
    REQUIRE(s.finish().state == ODX_SCRUB_DONE);
  }
  SECTION("no limit") {
    REQUIRE(s.ask(ODX_SCRUB_START, kUnlimited).pass == 1);
    s.world.clock().advance_ns(kNsPerSecond);
    for (int i = 0; i < 5; ++i) {
      REQUIRE((s.scrub().step() == 0ns || s.status().state == ODX_SCRUB_DONE));
    }
    REQUIRE(s.status().state == ODX_SCRUB_DONE);
  }
  SECTION("one byte a second") {
    s.ask(ODX_SCRUB_START, 1);
    s.world.clock().advance_ns(2 * kNsPerSecond);
    REQUIRE(s.scrub().step() == 10s);  // a block is read, then rest in bounded pieces
    REQUIRE(s.status().done_bytes <= 4 * kMiB + kBlockBytes);
  }
  s.world.close();
}

TEST_CASE("pause, cancel, unmount and crash") {
  ScrubWorld s;
  constexpr std::uint64_t kRate = 1 << 20;
  s.world.file("a", pattern(4 << 20, 1));
  s.world.sync();
  REQUIRE(s.refused(ODX_SCRUB_PAUSE) == ENOENT);
  REQUIRE(s.refused(ODX_SCRUB_CANCEL) == ENOENT);
  s.ask(ODX_SCRUB_START, kRate);
  const auto steps = [&](int n) {
    for (int i = 0; i < n; ++i) {
      s.world.clock().advance_ns(s.scrub().step().count());
    }
  };
  steps(4);
  const odx_scrub before = s.status();
  REQUIRE(before.position > 0);
  const auto goes_on = [&] {
    const odx_scrub after = s.ask(ODX_SCRUB_START);
    REQUIRE(after.state == ODX_SCRUB_RUNNING);
    REQUIRE(after.pass == 1);
    REQUIRE(after.rate == kRate);
    REQUIRE(after.position == before.position);
    REQUIRE(after.done_bytes == before.done_bytes);
    REQUIRE(after.started_ns == before.started_ns);
    s.device->reads.clear();
    const odx_scrub done = s.finish();
    REQUIRE(done.state == ODX_SCRUB_DONE);
    REQUIRE(done.done_bytes == 4 << 20);
    REQUIRE(s.device->reads.size() == ((4 << 20) - before.done_bytes) / kBlockBytes);
  };
  SECTION("a pause") {
    REQUIRE(s.ask(ODX_SCRUB_PAUSE).state == ODX_SCRUB_PAUSED);
    REQUIRE(s.scrub().step() > 1min);
    REQUIRE(s.status().position == before.position);
    goes_on();
  }
  SECTION("a pause across an unmount") {
    s.ask(ODX_SCRUB_PAUSE);
    s.world.reopen();
    s.watch();
    REQUIRE(s.status().state == ODX_SCRUB_PAUSED);
    goes_on();
  }
  SECTION("an unmount") {
    s.world.reopen();
    s.watch();
    REQUIRE(s.status().state == ODX_SCRUB_INTERRUPTED);
    REQUIRE(s.scrub().step() > 1min);
    goes_on();
  }
  SECTION("a crash loses what was not saved, no more") {
    s.world.clock().advance_ns(3 * kNsPerSecond);
    steps(1);
    const odx_scrub saved = s.status();
    REQUIRE(saved.saved_position == saved.position);
    s.world.sync();
    steps(1);
    REQUIRE(s.status().position > saved.position);
    REQUIRE(s.status().saved_position == saved.position);
    s.world.crash();
    s.watch();
    const odx_scrub found = s.status();
    REQUIRE(found.state == ODX_SCRUB_INTERRUPTED);
    REQUIRE(found.position == saved.position);
    REQUIRE(found.done_bytes == saved.done_bytes);
    s.ask(ODX_SCRUB_START);
    REQUIRE(s.finish().done_bytes == 4 << 20);
  }
  SECTION("a suspect is not forgotten by a crash") {
    const std::uint64_t bad = before.position / kBlockBytes;
    s.device->damaged[bad] = 1;
    steps(1);
    s.world.clock().advance_ns(3 * kNsPerSecond);
    steps(1);
    REQUIRE(s.status().suspects == 1);
    REQUIRE(s.status().position > before.position);
    REQUIRE(s.status().saved_position == before.position);
    s.world.sync();
    s.world.crash();
    s.watch();
    s.device->damaged[bad] = 1;
    s.ask(ODX_SCRUB_START);
    REQUIRE(s.finish().damaged_blocks == 1);
    s.device->damaged.clear();
  }
  SECTION("suspects are looked at after a while, and at a pause") {
    s.device->damaged[before.position / kBlockBytes] = 1;
    steps(1);
    REQUIRE(s.status().suspects == 1);
    if (GENERATE(true, false)) {
      s.ask(ODX_SCRUB_PAUSE);
    } else {
      s.world.clock().advance_ns(31 * kNsPerSecond);
    }
    steps(1);
    REQUIRE(s.status().suspects == 0);
    REQUIRE(s.status().damaged_blocks == 1);
    REQUIRE(s.report().size() == 2);
    s.device->damaged.clear();
  }
  SECTION("a cancellation") {
    REQUIRE(s.ask(ODX_SCRUB_CANCEL).state == ODX_SCRUB_CANCELLED);
    (void)s.scrub().step();
    s.world.reopen();
    s.watch();
    REQUIRE(s.status().state == ODX_SCRUB_CANCELLED);
    REQUIRE(s.refused(ODX_SCRUB_CANCEL) == ENOENT);
    const odx_scrub anew = s.ask(ODX_SCRUB_START);
    REQUIRE(anew.pass == 2);
    REQUIRE(anew.position == 0);
    REQUIRE(anew.rate == kRate);
    REQUIRE(s.finish().done_bytes == 4 << 20);
  }
  s.world.close();
}

TEST_CASE("a read-only store is scrubbed, and nothing is kept") {
  ScrubWorld s;
  const InodeNo a = s.world.file("a", pattern(8 * kBlockBytes, 1));
  s.world.reopen(true);
  s.watch();
  s.device->damaged[s.first_block(a)] = 3;
  s.ask(ODX_SCRUB_START, kUnlimited);
  REQUIRE(s.finish().damaged_blocks == 1);
  s.world.reopen();
  REQUIRE(s.status().state == ODX_SCRUB_NEVER);
  s.world.close();
}

TEST_CASE("where the blocks in use are not known, nothing is called sound") {
  ScrubWorld s;
  s.world.file("a", pattern(8 * kBlockBytes, 1));
  const std::string key = keys::node(NodeId(999));
  ok(s.world.core().meta->commit({{key, std::string("no node")}}));
  s.world.sync();
  s.world.crash();
  REQUIRE(s.world.core().read_only);
  REQUIRE(s.refused(ODX_SCRUB_START) == ESHUTDOWN);
  REQUIRE(s.status().state == ODX_SCRUB_NEVER);
  ok(s.world.core().meta->commit({{key, std::nullopt}}));
  s.world.sync();
  s.world.crash();
  s.ask(ODX_SCRUB_START, kUnlimited);
  REQUIRE(s.finish().done_bytes == 8 * kBlockBytes);
  s.world.close();
}

TEST_CASE("what is asked wrongly changes nothing") {
  ScrubWorld s;
  const auto error_of = [&](const odx_scrub& asked) {
    odx_scrub call = asked;
    const auto done = s.scrub().control(call, false);
    return done ? 0 : done.error().errno_value();
  };
  odx_scrub call{};
  REQUIRE(error_of(call) == 0);
  call.operation = 4;
  REQUIRE(error_of(call) == EINVAL);
  call = {};
  call.reserved[15] = 1;
  REQUIRE(error_of(call) == EINVAL);
  call = {};
  call.rate = 1;
  REQUIRE(error_of(call) == EINVAL);
  call = {};
  call.text_from = UINT64_MAX;
  REQUIRE(error_of(call) == 0);
  REQUIRE(s.status().state == ODX_SCRUB_NEVER);
  s.world.close();
}

TEST_CASE("records that make no sense are not believed, and check names them") {
  ScrubWorld s;
  ScrubRecord record;
  record.pass = 3;
  record.rate = 5;
  record.started_ns = -1;
  record.position = 77;
  record.state = ScrubRecord::State::kPaused;
  REQUIRE(ok(ScrubRecord::decode(record.encode())) == record);
  std::string raw = record.encode();
  for (std::size_t size = 0; size < raw.size(); ++size) {
    REQUIRE(!ScrubRecord::decode(raw.substr(0, size)));
  }
  REQUIRE(!ScrubRecord::decode(raw + "x"));
  raw[1] = 4;  // state
  REQUIRE(!ScrubRecord::decode(raw));
  REQUIRE(!ScrubReport::decode(""));
  REQUIRE(!ScrubReport::decode(ScrubReport{1, "no end of line"}.encode()));
  REQUIRE(ok(ScrubReport::decode(ScrubReport{1, "a\nb\n"}.encode())).text == "a\nb\n");

  MetaStore& meta = *s.world.core().meta;
  ok(meta.commit({{keys::long_operation("scrub"), raw},
                  {keys::long_operation("scrub-report"), std::string("x")},
                  {keys::long_operation("other"), std::string()}}));
  const CheckReport report = ok(check_state({meta, s.world.core().super.uuid, 16384}, {}));
  REQUIRE(report.problems ==
          std::vector<std::string>{
              "long operation \"other\", which is unknown",
              "long operation \"scrub\": scrub record contradicts itself",
              "long operation \"scrub-report\": scrub report of an unknown version"});
  s.scrub().load();
  REQUIRE(s.status().state == ODX_SCRUB_NEVER);
  ok(meta.commit({{keys::long_operation("other"), std::nullopt}}));

  // A repair gives them up.
  s.world.close_unchecked();
  const RepairReport repaired = ok(repair_store(s.world.path(), {}));
  REQUIRE(repaired.before.problem_count == 2);
  REQUIRE(repaired.repairs.size() == 2);
  REQUIRE(repaired.after.clean());
  s.world.open();
  REQUIRE(s.status().state == ODX_SCRUB_NEVER);
  s.world.close();
}

TEST_CASE("beside writers: nothing false, and real damage is found") {
  ScrubWorld s;
  const InodeNo kept = s.world.file("kept", pattern(64 * kBlockBytes, 1));
  s.world.sync();
  s.device->damaged[s.first_block(kept) + 9] = 9;
  const unsigned turns = std::getenv("ODX_QUICK") != nullptr ? 100 : 500;  // of each writer
  std::array<std::atomic<unsigned>, 2> done_turns{};
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (unsigned n = 0; n < 2; ++n) {
    const InodeNo mine = s.world.file("writer" + std::to_string(n));
    const InodeNo clone = s.world.file("clone" + std::to_string(n));
    writers.emplace_back([&, n, mine, clone] {
      Files& files = s.world.store().files();
      for (unsigned i = 0; !stop; ++i) {
        const std::string data = pattern((i % 40 + 1) * 1000, n * 1000 + i);
        ok(files.write(mine, FileOffset(i * 7777 % (1 << 20)), std::as_bytes(std::span(data))));
        ok(files.copy_range(mine, FileOffset(0), clone, FileOffset(i % 5 * 4096), 100000));
        if (i % 16 == 0) {
          ok(files.truncate(mine, 0));
        }
        if (i % 32 == 0) {
          ok(s.world.store().reclaim());
          ok(s.world.core().meta->wait_durable(s.world.core().meta->committed()));
          s.world.core().settle_space();
        }
        done_turns[n] = i;
      }
    });
  }
  while (done_turns[0] < turns || done_turns[1] < turns) {
    s.ask(ODX_SCRUB_START, kUnlimited);
    const odx_scrub done = s.finish();
    CHECK(done.state == ODX_SCRUB_DONE);
    CHECK(done.damaged_blocks == 1);
    CHECK(done.damaged_owners == 1);
    CHECK(s.report().size() == 2);
  }
  stop = true;
  for (std::thread& writer : writers) {
    writer.join();
  }
  s.device->damaged.clear();
  s.world.close();
}

TEST_CASE("the thread of its own: starts, pauses and ends at once") {
  ScrubWorld s;
  s.world.file("a", pattern(2 << 20, 1));
  s.world.sync();
  odx_scrub call{};
  call.operation = ODX_SCRUB_START;
  call.rate = kUnlimited;
  ok(s.scrub().control(call));
  while (s.status().state == ODX_SCRUB_RUNNING) {
    std::this_thread::sleep_for(1ms);
  }
  REQUIRE(s.status().state == ODX_SCRUB_DONE);
  // At this rate it would rest for an hour; the clock stands still, so it does for ever.
  call = {};
  call.operation = ODX_SCRUB_START;
  call.rate = 1024;
  ok(s.scrub().control(call));
  while (s.status().position == 0) {
    std::this_thread::sleep_for(1ms);
  }
  s.world.reopen();
  REQUIRE(s.status().state == ODX_SCRUB_INTERRUPTED);
  REQUIRE(s.status().position == kBlockBytes);
  s.world.close();
}

}  // namespace
}  // namespace odx::test
