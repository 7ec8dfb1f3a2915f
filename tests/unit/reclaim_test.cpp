// The queue of dropped trees.
#include <atomic>
#include <thread>

#include "name_world.hpp"
#include "store/background.hpp"
#include "store/meta/keys.hpp"

namespace odx::test {
namespace {

// A store in which files of many extents have been removed, and nothing of them reclaimed.
class Dropped {
 public:
  // The root nodes, in the queue's order.
  std::vector<NodeId> drop(int files) {
    std::vector<NodeId> roots;
    for (int i = 0; i < files; ++i) {
      const std::string name = "dropped " + std::to_string(i);
      const InodeNo ino = world.file(kRootInode, name);
      const std::string data(kBlockBytes, static_cast<char>('a' + i));
      for (std::uint64_t piece = 0; piece < 300; ++piece) {
        must(world.files().write(ino, FileOffset(piece * 2 * kBlockBytes),
                                 std::as_bytes(std::span(data))));
      }
      roots.push_back(world.get(ino)->tree.root->id);
      must(world.names().unlink(kRootInode, name));
      must(world.names().reap(ino));
    }
    std::sort(roots.begin(), roots.end());
    return roots;
  }
  std::vector<NodeId> queue() {
    std::vector<NodeId> ids;
    for (const KeyValue& entry : must(world.core().meta->scan(
             keys::table_begin(keys::kReclaim), keys::table_end(keys::kReclaim), 10000))) {
      ids.emplace_back(keys::number_of(entry.key));
    }
    return ids;
  }
  // Everything freed so far is free.
  std::uint64_t free_blocks() {
    must(world.core().meta->wait_durable(world.core().meta->committed()));
    world.core().settle_space();
    return world.core().space.stats().free_blocks;
  }
  // The record of a tree node becomes one that nobody can read; the store is reopened.
  void damage(NodeId id) {
    const Uuid uuid = world.core().super.uuid;
    world.close();
    auto meta = must(MetaStore::open(
        world.store_dir(), uuid, MetaOptions{}, [] { return Result<void>{}; }, [](TxnSeq) {}));
    must(meta->commit({{keys::node(id), "no node"}}));
    must(meta->close());
    meta.reset();
    world.open();
  }

  NameWorld world;
};

TEST_CASE("a dropped tree that is damaged holds up no other") {
  for (const std::size_t bad : {0U, 1U, 3U}) {
    Dropped d;
    const std::vector<NodeId> roots = d.drop(4);
    REQUIRE(d.queue() == roots);
    d.damage(roots[bad]);
    const std::uint64_t before = d.free_blocks();
    must(d.world.store().reclaim());
    REQUIRE(d.queue() == std::vector{roots[bad]});
    REQUIRE(d.free_blocks() == before + 3 * 300);
    // What is dropped later goes on as well, and the damage is not met again.
    d.drop(1);
    must(d.world.store().reclaim());
    REQUIRE(d.queue() == std::vector{roots[bad]});
    REQUIRE(d.free_blocks() == before + 3 * 300);
    d.world.close();
    const CheckReport report = d.world.check();
    REQUIRE_FALSE(report.clean());
  }
}

TEST_CASE("a dropped tree whose leaf is damaged gives back the rest of it") {
  Dropped d;
  const NodeId root = d.drop(1).front();
  const auto record = must(d.world.core().meta->get(keys::node(root)));
  REQUIRE(record);
  const TreeNode node = must(TreeNode::decode(*record));
  REQUIRE(node.level == 1);
  REQUIRE(node.entries.size() > 2);
  const NodeId leaf = node.entries[1].child();
  const auto inside = must(d.world.core().meta->get(keys::node(leaf)));
  const std::uint64_t lost = [&] {
    const TreeNode entries = must(TreeNode::decode(*inside));
    std::uint64_t blocks = 0;
    for (const TreeEntry& entry : entries.entries) {
      blocks += entry.is_hole() ? 0 : 1;
    }
    return blocks;
  }();
  d.damage(leaf);
  const std::uint64_t before = d.free_blocks();
  must(d.world.store().reclaim());
  REQUIRE(d.queue() == std::vector{leaf});
  REQUIRE(d.free_blocks() == before + 300 - lost);
  d.world.close();
}

TEST_CASE("reclaiming that is told to stop leaves the queue as it is") {
  Dropped d;
  const std::vector<NodeId> roots = d.drop(2);
  const std::atomic<bool> stop{true};
  must(reclaim_queue(d.world.core(), &stop));
  REQUIRE(d.queue() == roots);
  d.world.reopen();  // closing does not work through it either
  REQUIRE(d.queue() == roots);
  must(reclaim_queue(d.world.core()));
  REQUIRE(d.queue().empty());
  d.world.close();
  d.world.require_clean();
}

}  // namespace
}  // namespace odx::test
