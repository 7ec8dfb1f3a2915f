// A store whose records contradict each other, or whose metadata fails: calls answer with an error,
// what is sound stays usable, and nothing of a transaction that failed is ever seen.
#include <catch2/catch.hpp>
#include <string>

#include "store/extent/tree.hpp"
#include "store/inode/inode.hpp"
#include "store/meta/batch.hpp"
#include "store/meta/keys.hpp"
#include "token_world.hpp"

namespace odx::test {
namespace {

// One commit of it fails, without the store failing.
class FailingMeta final : public MetaStore {
 public:
  explicit FailingMeta(std::unique_ptr<MetaStore> below) : below_(std::move(below)) {}
  bool fail_next = false;

  Result<std::optional<std::string>> get(std::string_view key) const override {
    return below_->get(key);
  }
  Result<std::optional<std::string>> get_stamped(std::string_view key,
                                                 TxnSeq& stamp) const override {
    return below_->get_stamped(key, stamp);
  }
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override {
    return below_->scan(from, end, limit);
  }
  Result<TxnSeq> commit(WriteSet writes) override {
    if (std::exchange(fail_next, false)) {
      return fail(ENOMEM);
    }
    return below_->commit(std::move(writes));
  }
  Result<std::unique_ptr<KvReader>> frozen_view() override { return below_->frozen_view(); }
  [[nodiscard]] TxnSeq committed() const override { return below_->committed(); }
  [[nodiscard]] TxnSeq durable() const override { return below_->durable(); }
  Result<void> throttle() override { return below_->throttle(); }
  Result<void> wait_durable(TxnSeq seq) override { return below_->wait_durable(seq); }
  Result<void> checkpoint() override { return below_->checkpoint(); }
  Result<void> close() override { return below_->close(); }
  [[nodiscard]] Result<void> health() const override { return below_->health(); }
  [[nodiscard]] MetaStats stats() const override { return below_->stats(); }

 private:
  std::unique_ptr<MetaStore> below_;
};

class DamagedWorld {
 public:
  TokenWorld world;

  // A file whose extents are in a tree of several leaves.
  InodeNo fragmented(const std::string& name, unsigned seed = 1) {
    const InodeNo ino = world.file(name, pattern(kBytes, seed));
    for (std::uint64_t at = 200; at < kBytes; at += 400) {
      world.punch(ino, at, 100);
    }
    REQUIRE(world.inode(ino).tree.root.has_value());
    REQUIRE(world.inode(ino).tree.root->level > 0);
    return ino;
  }
  TreeNode node(NodeId id) {
    return ok(TreeNode::decode(*ok(world.core().meta->get(keys::node(id)))));
  }
  // Changes records behind the store's back, which then starts anew.
  void change(WriteSet writes) {
    ok(world.core().meta->commit(std::move(writes)));
    world.sync();
    world.crash();
  }
  void change(const Inode& inode) { change({{keys::inode(inode.ino), inode.encode()}}); }
  int read_error(InodeNo ino) {
    std::string into(kBytes, '\0');
    const auto read =
        world.store().files().read(ino, FileOffset(0), std::as_writable_bytes(std::span(into)));
    return read ? 0 : read.error().errno_value();
  }
  // Each of these looks at a part of the tree.
  void require_errors(InodeNo ino) {
    Files& files = world.store().files();
    const InodeNo other = world.file("other");
    const std::string few(100, 'x');
    CHECK(read_error(ino) == EIO);
    CHECK_FALSE(files.copy_range(ino, FileOffset(300), other, FileOffset(0), kBytes - 1000));
    CHECK_FALSE(files.truncate(ino, 12'345));
    CHECK_FALSE(files.write(ino, FileOffset(9'000), std::as_bytes(std::span(few))));
    CHECK_FALSE(
        files.allocate(ino, Files::AllocateMode::kCollapse, false, FileOffset(333), 20'000));
    const Reply reply = world.read(ino, TokenWorld::read_call(512, 30 * 512));
    CHECK(reply.error == EIO);
    // The rest of the store works.
    world.write_bytes(other, 0, few);
    CHECK(world.content(other) == few);
    world.remove("other");
  }

  static constexpr std::uint64_t kBytes = 64'000;
};

TEST_CASE("a tree node that names itself is an error") {
  DamagedWorld d;
  const InodeNo ino = d.fragmented("a");
  const NodeId root = d.world.inode(ino).tree.root->id;
  TreeNode node = d.node(root);
  for (TreeEntry& entry : node.entries) {
    entry.ref = root.value();
  }
  d.change({{keys::node(root), node.encode()}});
  d.require_errors(ino);
}

TEST_CASE("a tree node of another length than recorded is an error") {
  DamagedWorld d;
  const InodeNo ino = d.fragmented("a");
  const NodeId root = d.world.inode(ino).tree.root->id;
  for (const bool longer : {true, false}) {
    TreeNode node = d.node(root);
    TreeNode leaf = d.node(node.entries[0].child());
    if (longer) {
      leaf.entries.back().bytes += 100'000;
    } else {
      leaf.entries.erase(leaf.entries.begin() + 20, leaf.entries.end());
    }
    WriteSet writes;
    for (const TreeEntry& entry : node.entries) {
      writes[keys::node(entry.child())] = leaf.encode();
    }
    d.change(std::move(writes));
    d.require_errors(ino);
  }
}

TEST_CASE("a root that promises more than its node holds is an error") {
  DamagedWorld d;
  const InodeNo ino = d.fragmented("a");
  Inode inode = d.world.inode(ino);
  inode.tree.root->bytes += 50'000;
  d.change(inode);
  d.require_errors(ino);
}

TEST_CASE("blocks of two files that were never counted are freed once") {
  DamagedWorld d;
  const InodeNo first = d.world.file("first", pattern(20'000, 1));
  const InodeNo second = d.world.file("second", pattern(20'000, 2));
  const std::string whole = d.world.content(first);
  Inode inode = d.world.inode(second);
  inode.tree = d.world.inode(first).tree;
  d.change(inode);

  d.world.remove("second");
  CHECK(d.world.content(first) == whole);
  const auto cut = d.world.store().files().truncate(first, 0);
  REQUIRE_FALSE(cut);
  CHECK(cut.error().is_corruption());
  CHECK(d.world.inode(first).size() == 20'000);
  // The rest of the store works.
  const InodeNo third = d.world.file("third", pattern(20'000, 3));
  CHECK(d.world.content(third) == pattern(20'000, 3));
  d.world.remove("third");
}

TEST_CASE("of tokens that pin the same blocks, uncounted, the others still expire") {
  DamagedWorld d;
  const InodeNo ino = d.world.file("a", pattern(20'480, 1));
  const Reply first = d.world.read(ino, TokenWorld::read_call(0, 20'480));
  const Reply second = d.world.read(ino, TokenWorld::read_call(0, 20'480));
  const Reply third = d.world.read(ino, TokenWorld::read_call(0, 512));
  REQUIRE((first.error == 0 && second.error == 0 && third.error == 0));
  // Counts that say that nobody but one of them has the blocks.
  WriteSet writes;
  for (const KeyValue& record : ok(d.world.core().meta->scan(
           keys::table_begin(keys::kBlockRefs), keys::table_end(keys::kBlockRefs), 100))) {
    writes[record.key] = std::nullopt;
  }
  d.change(std::move(writes));
  CHECK(d.world.tokens().live() == 3);
  d.world.advance_ms(61'000);
  ok(d.world.tokens().expire());
  // Two of the three cannot give up what the first one to go has freed, and stay.
  CHECK(d.world.tokens().live() == 2);
}

TEST_CASE("what a failed transaction wanted is never seen, nor are its blocks reused") {
  DamagedWorld d;
  const InodeNo ino = d.fragmented("a");
  const std::string before = d.world.content(ino);
  d.world.sync();
  d.world.core().settle_space();

  auto failing = std::make_unique<FailingMeta>(std::move(d.world.core().meta));
  FailingMeta& meta = *failing;
  d.world.core().meta = std::move(failing);
  Files& files = d.world.store().files();
  const std::string bytes = pattern(8192, 9);
  meta.fail_next = true;
  REQUIRE_FALSE(files.write(ino, FileOffset(16'384), std::as_bytes(std::span(bytes))));
  CHECK(d.world.content(ino) == before);
  meta.fail_next = true;
  REQUIRE_FALSE(files.truncate(ino, 100));
  CHECK(d.world.content(ino) == before);

  // Enough to reuse everything that was taken for free.
  for (unsigned i = 0; i < 70; ++i) {
    d.world.file("other", pattern(1 << 20, 10 + i));
    d.world.remove("other");
    d.world.settle();
  }
  CHECK(d.world.content(ino) == before);
  d.world.reopen();
  CHECK(d.world.content(d.world.find("a")) == before);
  d.world.close();
}

TEST_CASE("a journal batch with keys that no commit makes is refused") {
  for (const std::string& key :
       {std::string(), std::string("\0applied", 8), std::string(501, 'I')}) {
    auto memtable = std::make_shared<Memtable>();
    OpenBatch batch;
    batch.reserve(1);
    batch.add(memtable->put(
        Memtable::make_change(std::string(key), std::make_shared<const std::string>("x"))));
    std::string payload;
    batch.seal(memtable).encode(payload);
    unsigned seen = 0;
    const auto decoded =
        decode_batch(payload, [&](const std::string&, const SharedValue&) { ++seen; });
    CHECK_FALSE(decoded);
    CHECK(seen == 0);
  }
}

}  // namespace
}  // namespace odx::test
