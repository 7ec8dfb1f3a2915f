// The check of a store in use, and what it stands on: views that stay as they are, and space that
// is held back only until somebody needs it.
#include "store/check/online_check.hpp"

#include <atomic>
#include <thread>

#include "name_world.hpp"
#include "store/check/live_view.hpp"
#include "store/meta/keys.hpp"

namespace odx::test {
namespace {

using namespace std::chrono_literals;

bool quick() { return std::getenv("ODX_QUICK") != nullptr; }

odx_check ask(NameWorld& world, odx_check_operation operation, std::uint32_t flags = 0) {
  odx_check call{};
  call.operation = operation;
  call.flags = flags;
  must(world.store().online_check().control(call));
  return call;
}

odx_check finished(NameWorld& world) {
  for (;;) {
    const odx_check now = ask(world, ODX_CHECK_STATUS);
    if (now.state != ODX_CHECK_RUNNING) {
      return now;
    }
    std::this_thread::sleep_for(1ms);
  }
}

std::string text_of(NameWorld& world) {
  std::string text;
  for (;;) {
    odx_check call{};
    call.text_from = text.size();
    must(world.store().online_check().control(call));
    text.append(call.text, call.text_bytes);
    if (text.size() == call.text_total) {
      return text;
    }
    REQUIRE(call.text_bytes == sizeof call.text);
  }
}

void write(NameWorld& world, InodeNo ino, std::uint64_t at, std::size_t bytes) {
  const std::string data(bytes, static_cast<char>('a' + at % 26));
  must(world.files().write(ino, FileOffset(at), std::as_bytes(std::span(data))));
}

TEST_CASE("a store in use is checked as it is now") {
  NameWorld world;
  REQUIRE(ask(world, ODX_CHECK_STATUS).state == ODX_CHECK_NEVER);
  const InodeNo dir = world.mkdir(kRootInode, "dir");
  const InodeNo file = world.file(dir, "file");
  write(world, file, 0, 100000);
  const odx_check begun = ask(world, ODX_CHECK_START, ODX_CHECK_DATA);
  REQUIRE(begun.job == 1);
  REQUIRE(begun.flags == ODX_CHECK_DATA);
  const odx_check done = finished(world);
  REQUIRE(done.state == ODX_CHECK_DONE);
  REQUIRE(done.problems == 0);
  REQUIRE(done.inodes == 3);
  REQUIRE(done.directories == 2);
  REQUIRE(done.data_bytes == 100000);
  REQUIRE(done.used_blocks == 25);
  REQUIRE(done.verified_blocks == 25);
  REQUIRE(done.text_total == 0);
  // Without data, and after changes.
  world.file(dir, "more");
  REQUIRE(ask(world, ODX_CHECK_START).job == 2);
  const odx_check again = finished(world);
  REQUIRE(again.inodes == 4);
  REQUIRE(again.verified_blocks == 0);
  world.close();
  world.require_clean(true);
}

TEST_CASE("problems come in pages") {
  NameWorld world;
  WriteSet junk;
  for (InodeNo ino(1000); ino < InodeNo(1200); ino = InodeNo(ino.value() + 1)) {
    junk.emplace(keys::orphan(ino), std::string("\1", 1));
  }
  must(world.core().meta->commit(junk));
  ask(world, ODX_CHECK_START);
  const odx_check done = finished(world);
  REQUIRE(done.state == ODX_CHECK_DONE);
  REQUIRE(done.problems >= 200);
  REQUIRE(done.text_total > sizeof done.text);
  const std::string text = text_of(world);
  REQUIRE(static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n')) == done.problems);
  REQUIRE(text.find("1199") != std::string::npos);
  for (auto& [key, value] : junk) {
    value.reset();
  }
  must(world.core().meta->commit(junk));
  ask(world, ODX_CHECK_START);
  REQUIRE(finished(world).problems == 0);
  REQUIRE(text_of(world).empty());
  world.close();
}

TEST_CASE("a read-only store is checked, too") {
  NameWorld world;
  world.file(kRootInode, "file");
  world.crash();
  OpenOptions options;
  options.read_only = true;
  const auto store = must(Store::open(world.store_dir(), std::move(options)));
  odx_check call{};
  call.operation = ODX_CHECK_START;
  must(store->online_check().control(call));
  do {
    call = {};
    must(store->online_check().control(call));
  } while (call.state == ODX_CHECK_RUNNING);
  REQUIRE(call.state == ODX_CHECK_DONE);
  REQUIRE(call.inodes == 2);
  REQUIRE(call.problems == 0);
}

// Holds every read of a device up until it is let go.
class Gate final : public BlockDevice {
 public:
  explicit Gate(std::unique_ptr<BlockDevice> below) : below_(std::move(below)) {}
  [[nodiscard]] std::uint64_t blocks() const override { return below_->blocks(); }
  Result<void> read(std::span<const BlockRead> runs) override {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
    --waiting_;
    lock.unlock();
    return below_->read(runs);
  }
  Result<void> write(std::span<const BlockWrite> runs) override { return below_->write(runs); }
  Result<void> sync() override { return below_->sync(); }
  Result<void> add_segment(std::uint64_t blocks) override { return below_->add_segment(blocks); }
  Result<void> extend(std::uint64_t blocks) override { return below_->extend(blocks); }
  Result<void> cut(std::uint64_t blocks) override { return below_->cut(blocks); }
  void discard(std::span<const BlockRun> runs) override { below_->discard(runs); }
  [[nodiscard]] std::uint64_t host_free_bytes() const override { return below_->host_free_bytes(); }
  void set(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }
  void wait_for_reader() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ > 0; });
  }

 private:
  std::unique_ptr<BlockDevice> below_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  int waiting_ = 0;
};

Gate& put_gate(NameWorld& world) {
  auto gate = std::make_unique<Gate>(std::move(world.core().device));
  Gate& answer = *gate;
  world.core().device = std::move(gate);
  return answer;
}

TEST_CASE("one at a time; a check can be cancelled, and closing does not wait for it") {
  NameWorld world;
  const InodeNo file = world.file(kRootInode, "file");
  write(world, file, 0, 6 << 20);
  Gate& gate = put_gate(world);
  gate.set(false);
  ask(world, ODX_CHECK_START, ODX_CHECK_DATA);
  gate.wait_for_reader();
  odx_check call{};
  call.operation = ODX_CHECK_START;
  REQUIRE(err(world.store().online_check().control(call)) == EBUSY);
  REQUIRE(ask(world, ODX_CHECK_STATUS).job == 1);
  REQUIRE(std::string(ask(world, ODX_CHECK_STATUS).phase) == "data");
  // Writers do not wait for it.
  write(world, file, 7 << 20, 5000);
  must(world.names().sync());
  REQUIRE(ask(world, ODX_CHECK_CANCEL).state == ODX_CHECK_RUNNING);
  gate.set(true);
  REQUIRE(finished(world).state == ODX_CHECK_CANCELLED);
  call = {};
  call.operation = ODX_CHECK_CANCEL;
  REQUIRE(err(world.store().online_check().control(call)) == ENOENT);
  // The next one is another.
  gate.set(false);
  REQUIRE(ask(world, ODX_CHECK_START, ODX_CHECK_DATA).job == 2);
  gate.wait_for_reader();
  std::thread opener([&] {
    std::this_thread::yield();
    gate.set(true);
  });
  world.close();
  opener.join();
  world.require_clean(true);
}

TEST_CASE("what is asked wrongly") {
  NameWorld world;
  const auto error_of = [&](odx_check call) {
    return err(world.store().online_check().control(call));
  };
  odx_check call{};
  call.operation = 3;
  REQUIRE(error_of(call) == EINVAL);
  call = {};
  call.flags = ODX_CHECK_DATA;  // of no start
  REQUIRE(error_of(call) == EINVAL);
  call = {};
  call.operation = ODX_CHECK_START;
  call.flags = 2;
  REQUIRE(error_of(call) == EINVAL);
  call = {};
  call.reserved[5] = 1;
  REQUIRE(error_of(call) == EINVAL);
  call = {};
  call.reserved0 = 1;
  REQUIRE(error_of(call) == EINVAL);
  REQUIRE(ask(world, ODX_CHECK_STATUS).state == ODX_CHECK_NEVER);
  world.close();
}

TEST_CASE("a view stays as it is, with its blocks") {
  NameWorld world;
  const InodeNo file = world.file(kRootInode, "file");
  write(world, file, 0, 10 * kBlockBytes);
  const std::atomic<bool> stop{false};
  auto view = must(check::LiveView::take(world.core(), stop));
  const auto before = must(view->scan("\1", "\xff", 1000));
  REQUIRE(before.size() > 3);
  const auto old_free = world.core().space.stats().free_blocks;
  must(world.names().unlink(kRootInode, "file"));
  must(world.names().reap(file));
  world.file(kRootInode, "other");
  must(world.names().sync());
  must(world.core().meta->checkpoint());
  world.core().settle_space();
  const auto after = must(view->scan("\1", "\xff", 1000));
  REQUIRE(after.size() == before.size());
  for (std::size_t i = 0; i < before.size(); ++i) {
    REQUIRE(after[i].key == before[i].key);
    REQUIRE(after[i].value == before[i].value);
    REQUIRE(must(view->get(before[i].key)) == before[i].value);
  }
  REQUIRE(world.core().space.stats().free_blocks == old_free);
  REQUIRE(world.core().space.stats().pending_blocks == 10);
  view.reset();
  world.core().settle_space();
  REQUIRE(world.core().space.stats().pending_blocks == 0);
  REQUIRE(world.core().space.stats().free_blocks == old_free + 10);
  world.close();
}

TEST_CASE("a hold keeps no old nodes in memory's way") {
  NameWorld world;
  Snapshots& snapshots = world.core().snapshots;
  const TxnSeq before = snapshots.oldest();
  SpaceHold hold = snapshots.hold();
  world.file(kRootInode, "file");
  REQUIRE(snapshots.oldest() > before);
  REQUIRE(snapshots.oldest_held() == before);
  SpaceHold later = snapshots.hold();
  {
    const SpaceHold moved = std::move(hold);
    REQUIRE(snapshots.oldest_held() == before);
  }
  REQUIRE(snapshots.oldest_held() > before);
  REQUIRE_FALSE(later.revoked());
  std::thread wants([&] { REQUIRE(snapshots.end_holds()); });
  while (!later.revoked()) {
    std::this_thread::yield();
  }
  { const SpaceHold ended = std::move(later); }
  wants.join();
  REQUIRE_FALSE(snapshots.end_holds());
  REQUIRE_FALSE(snapshots.hold().revoked());
  world.close();
}

TEST_CASE("space that a check holds back is there for those who need it") {
  NameWorld world;
  const InodeNo file = world.file(kRootInode, "file");
  const std::uint64_t total = 64ULL << 20;
  const std::string piece(1 << 20, 'x');
  const auto fill = [&] {
    for (std::uint64_t at = 0; at < total; at += piece.size()) {
      if (!world.files().write(file, FileOffset(at), std::as_bytes(std::span(piece)))) {
        return at;
      }
    }
    return total;
  };
  const std::uint64_t room = fill();
  REQUIRE(room > total / 2);
  Gate& gate = put_gate(world);
  gate.set(false);
  ask(world, ODX_CHECK_START, ODX_CHECK_DATA);
  gate.wait_for_reader();
  must(world.files().truncate(file, 0));
  must(world.names().sync());
  std::thread opener([&] {
    // The writer is waiting for the check by then, or comes later; both are right.
    while (world.core().space.stats().pending_blocks == 0) {
      std::this_thread::yield();
    }
    gate.set(true);
  });
  REQUIRE(fill() == room);
  opener.join();
  const odx_check ended = finished(world);
  // On a slow machine the check may have been through before the writer needed the space.
  REQUIRE((ended.state == ODX_CHECK_FAILED || ended.state == ODX_CHECK_DONE));
  if (ended.state == ODX_CHECK_FAILED) {
    REQUIRE(ended.error == ENOSPC);
    REQUIRE(text_of(world).find("needs the space") != std::string::npos);
  }
  REQUIRE(ended.problems == 0);
  world.close();
  world.require_clean(true);
}

TEST_CASE("a view ends when the map has to grow") {
  TempDir dir;
  must(MetaStore::format(dir.path(), 4 << 20));
  MetaOptions options;
  options.map_bytes = 1 << 20;
  options.flush_interval = 0ms;
  const auto meta = must(MetaStore::open(
      dir.path(), Uuid{}, options, [] { return Result<void>(); }, [](TxnSeq) {}));
  must(meta->commit({{"a", std::string("1")}}));
  auto view = must(meta->frozen_view());
  std::atomic<bool> grown{false};
  std::thread reader([&] {
    for (;;) {
      const auto value = view->get("a");
      if (!value) {
        REQUIRE(value.error().errno_value() == EAGAIN);
        break;
      }
      REQUIRE(**value == "1");
      if (grown) {
        break;
      }
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < 64; ++i) {
    must(meta->commit({{"b" + std::to_string(i), std::string(100000, 'b')}}));
    must(meta->checkpoint());
  }
  grown = true;
  reader.join();
  REQUIRE(err(view->get("a")) == EAGAIN);
  REQUIRE(err(view->scan("a", "b", 1)) == EAGAIN);
  REQUIRE(*must(must(meta->frozen_view())->get("a")) == "1");
  view.reset();
  must(meta->close());
}

TEST_CASE("beside writers: never a false problem") {
  NameWorld world;
  // Few enough, and small enough, that a check that takes all the time cannot hold back so much
  // that the space is needed.
  const unsigned turns = quick() ? 200 : 1500;  // of each writer
  std::array<std::atomic<unsigned>, 2> done{};
  std::vector<std::thread> writers;
  for (unsigned n = 0; n < 2; ++n) {
    const InodeNo dir = world.mkdir(kRootInode, "d" + std::to_string(n));
    writers.emplace_back([&, n, dir] {
      std::vector<InodeNo> nameless;
      for (unsigned i = 1; i <= turns; ++i) {
        const std::string name = "f" + std::to_string(i % 20);
        const InodeNo ino = must(world.names().create(dir, name, NameWorld::regular()))->ino;
        write(world, ino, i % 9 * 10000, 1000 + i % 50 * 20);
        const InodeNo clone =
            must(world.names().create(dir, name + "c", NameWorld::regular()))->ino;
        must(world.files().copy_range(ino, FileOffset(0), clone, FileOffset(4096), 1 << 20));
        must(world.names().set_xattr(ino, "user.a", "b", Names::XattrMode::kAny));
        for (const std::string& gone : {name, name + "c"}) {
          nameless.push_back(must(world.names().unlink(dir, gone))->ino);
        }
        while (nameless.size() > i % 6) {
          must(world.names().reap(nameless.back()));
          nameless.pop_back();
        }
        if (i % 16 == 0) {
          must(world.store().reclaim());
          must(world.names().sync());
        }
        done[n] = i;
      }
    });
  }
  unsigned checks = 0;
  while (done[0] < turns || done[1] < turns) {
    ask(world, ODX_CHECK_START, ODX_CHECK_DATA);
    const odx_check now = finished(world);
    CHECK(now.state == ODX_CHECK_DONE);
    CHECK(now.problems == 0);
    if (now.problems != 0 || now.state != ODX_CHECK_DONE) {
      UNSCOPED_INFO(text_of(world));
    }
    ++checks;
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  REQUIRE(checks > 0);
  world.close();
  world.require_clean(true);
}

}  // namespace
}  // namespace odx::test
