// The extent tree against a naive model: random sequences of all operations over many ropes that
// share nodes, contents and every reference recounted after each sequence.

#include <catch2/catch.hpp>
#include <rapidcheck.h>

#include <algorithm>
#include <random>

#include "tree_world.hpp"

using namespace odx;
using namespace odx::test;

namespace {

// Numbers without meaning until they meet the world: each is taken modulo what is possible there.
struct Step {
  std::uint8_t what;
  std::uint32_t a, b, c, d;
};

void showValue(const Step& step, std::ostream& out) {
  out << "{" << int(step.what) << "," << step.a << "," << step.b << "," << step.c << "," << step.d
      << "}";
}
std::ostream& operator<<(std::ostream& out, const Step& step) {
  showValue(step, out);
  return out;
}

rc::Gen<Step> any_step() {
  const auto number = rc::gen::arbitrary<std::uint32_t>();
  return rc::gen::construct<Step>(rc::gen::inRange<std::uint8_t>(0, 13),
                                  rc::gen::resize(100, number), rc::gen::resize(100, number),
                                  rc::gen::resize(100, number), rc::gen::resize(100, number));
}

// A rope of many small unmergeable extents and holes.
Tree fragments(TreeWorld& world, TreeEditor& editor, std::uint32_t count, std::uint32_t salt,
               Bytes& model) {
  std::minstd_rand random(salt + 1);
  Tree rope;
  for (std::uint32_t i = 0; i < count; ++i) {
    Tree piece;
    if (random() % 4 == 0) {
      const std::uint64_t bytes = 1 + random() % 60;
      piece = TreeEditor::of_hole(bytes);
      model.insert(model.end(), bytes, 0);
    } else {
      piece = world.fresh_extent(random() % 3 == 0 ? random() % kBlockBytes : 0,
                                 1 + random() % 90, model);
    }
    rope = must(editor.concat(std::move(rope), std::move(piece)));
  }
  return rope;
}

void play(TreeWorld& world, const Step& step) {
  const auto pick = [&](std::uint32_t n) -> std::size_t { return n % world.ropes.size(); };
  if (world.ropes.size() < 2) {
    world.transact([&](TreeEditor& editor) {
      TreeWorld::Rope rope;
      rope.tree = fragments(world, editor, step.b % 400, step.c, rope.model);
      world.ropes.push_back(std::move(rope));
    });
    return;
  }
  const std::size_t target = pick(step.a);
  const std::size_t other = pick(step.b);
  const std::uint64_t size = world.ropes[target].model.size();
  const std::uint64_t from = step.c % (size + 1);
  const std::uint64_t count = (step.d * 7919ULL) % (size - from + 1);
  const auto begin = [](Bytes& bytes, std::uint64_t at) {
    return bytes.begin() + static_cast<std::ptrdiff_t>(at);
  };
  switch (step.what) {
    case 0: {  // slice into a new rope
      TreeWorld::Rope rope;
      world.transact([&](TreeEditor& editor) {
        rope.tree = must(editor.slice(world.ropes[target].tree, FileOffset(from), count));
      });
      Bytes& model = world.ropes[target].model;
      rope.model.assign(begin(model, from), begin(model, from + count));
      world.ropes.push_back(std::move(rope));
      break;
    }
    case 1:
    case 2: {  // copy a range of one rope over a range of another (perhaps the same)
      const std::uint64_t other_size = world.ropes[other].model.size();
      const std::uint64_t at = step.d % (other_size + 1);
      const std::uint64_t removed = std::min<std::uint64_t>(count, other_size - at);
      const Bytes piece(begin(world.ropes[target].model, from),
                        begin(world.ropes[target].model, from + count));
      world.transact([&](TreeEditor& editor) {
        Tree middle = must(editor.slice(world.ropes[target].tree, FileOffset(from), count));
        world.ropes[other].tree = must(editor.splice(std::move(world.ropes[other].tree),
                                                     FileOffset(at), removed, std::move(middle)));
      });
      Bytes& model = world.ropes[other].model;
      model.erase(begin(model, at), begin(model, at + removed));
      model.insert(begin(model, at), piece.begin(), piece.end());
      break;
    }
    case 3:
    case 4:
    case 5: {  // write
      Bytes& model = world.ropes[target].model;
      Bytes fresh;
      const std::uint64_t bytes = 1 + step.d % 9000;
      const std::uint64_t removed = std::min(bytes, size - from);
      world.transact([&](TreeEditor& editor) {
        world.ropes[target].tree =
            must(editor.splice(std::move(world.ropes[target].tree), FileOffset(from), removed,
                               world.fresh_extent(step.b % kBlockBytes, bytes, fresh)));
      });
      model.erase(begin(model, from), begin(model, from + removed));
      model.insert(begin(model, from), fresh.begin(), fresh.end());
      break;
    }
    case 6: {  // punch a hole
      Bytes& model = world.ropes[target].model;
      world.transact([&](TreeEditor& editor) {
        world.ropes[target].tree = must(editor.splice(std::move(world.ropes[target].tree),
                                                      FileOffset(from), count,
                                                      TreeEditor::of_hole(count)));
      });
      std::fill(begin(model, from), begin(model, from + count), std::uint8_t{0});
      break;
    }
    case 7: {  // remove
      Bytes& model = world.ropes[target].model;
      world.transact([&](TreeEditor& editor) {
        world.ropes[target].tree = must(
            editor.splice(std::move(world.ropes[target].tree), FileOffset(from), count, Tree{}));
      });
      model.erase(begin(model, from), begin(model, from + count));
      break;
    }
    case 8: {  // insert fragments
      Bytes fresh;
      world.transact([&](TreeEditor& editor) {
        Tree middle = fragments(world, editor, step.d % 300, step.b, fresh);
        world.ropes[target].tree = must(editor.splice(std::move(world.ropes[target].tree),
                                                      FileOffset(from), 0, std::move(middle)));
      });
      Bytes& model = world.ropes[target].model;
      model.insert(begin(model, from), fresh.begin(), fresh.end());
      break;
    }
    case 9: {  // clone
      TreeWorld::Rope rope;
      world.transact([&](TreeEditor& editor) {
        rope.tree = must(editor.clone(world.ropes[target].tree));
      });
      rope.model = world.ropes[target].model;
      world.ropes.push_back(std::move(rope));
      break;
    }
    case 10: {  // truncate, the tail perhaps kept as a rope of its own
      TreeWorld::Rope tail;
      world.transact([&](TreeEditor& editor) {
        Tree& tree = world.ropes[target].tree;
        if (step.b % 2 == 0) {
          tail.tree = must(editor.slice(tree, FileOffset(from), size - from));
        }
        tree = must(editor.splice(std::move(tree), FileOffset(from), size - from, Tree{}));
      });
      Bytes& model = world.ropes[target].model;
      tail.model.assign(begin(model, from), model.end());
      model.resize(from);
      if (step.b % 2 == 0) {
        world.ropes.push_back(std::move(tail));
      }
      break;
    }
    case 11: {  // drop a rope, reclaim a little
      world.transact([&](TreeEditor& editor) {
        must(editor.drop(std::move(world.ropes[target].tree)));
      });
      world.ropes.erase(world.ropes.begin() + static_cast<std::ptrdiff_t>(target));
      if (step.b % 3 == 0) {
        world.reclaim_all();
      }
      break;
    }
    default:  // a reader comes, or the oldest one goes
      if (step.b % 2 == 0 || world.views.empty()) {
        world.views.push_back(
            {world.ropes[target].tree, world.ropes[target].model, world.seq()});
      } else {
        world.views.erase(world.views.begin());
      }
  }
  while (world.ropes.size() > 12 || (world.ropes.size() > 2 && size > 3'000'000)) {
    world.transact([&](TreeEditor& editor) {
      must(editor.drop(std::move(world.ropes.back().tree)));
    });
    world.ropes.pop_back();
    if (world.ropes.size() <= 12) {
      break;
    }
  }
}

}  // namespace

TEST_CASE("random operations on shared ropes agree with plain bytes") {
  const bool ok = rc::check("ropes", [] {
    const auto steps = *rc::gen::resize(
        120, rc::gen::container<std::vector<Step>>(any_step()));
    TreeWorld world;
    for (const Step& step : steps) {
      play(world, step);
    }
    world.check_contents();
    world.check_references();
    world.views.clear();
    while (!world.ropes.empty()) {
      world.transact([&](TreeEditor& editor) {
        must(editor.drop(std::move(world.ropes.back().tree)));
      });
      world.ropes.pop_back();
    }
    world.reclaim_all();
    world.check_references();
    REQUIRE(world.used_blocks() == 0);
    REQUIRE(world.nodes() == 0);
  });
  REQUIRE(ok);
}

TEST_CASE("every step of a long sequence leaves a consistent world") {
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  TreeWorld world;
  for (int i = 0; i < 400; ++i) {
    play(world, Step{static_cast<std::uint8_t>(random() % 13), static_cast<std::uint32_t>(random()),
                     static_cast<std::uint32_t>(random()), static_cast<std::uint32_t>(random()),
                     static_cast<std::uint32_t>(random())});
    if (i % 10 == 0) {
      world.check_contents();
      world.check_references();
    }
  }
  world.check_contents();
  world.check_references();
}

TEST_CASE("the cost of a slice or a splice is a few paths, whatever the size") {
  TreeWorld world(4096);
  constexpr std::uint64_t kExtents = 1'000'000;
  constexpr std::uint64_t kEach = 512;
  Tree tree;
  for (std::uint64_t made = 0; made < kExtents;) {
    world.transact([&](TreeEditor& editor) {
      Tree batch;
      for (int i = 0; i < 10'000; ++i, ++made) {
        batch = must(editor.concat(std::move(batch), world.fresh_extent(0, kEach)));
      }
      tree = must(editor.concat(std::move(tree), std::move(batch)));
    });
  }
  const unsigned depth = tree.depth();
  INFO("depth " << depth);
  REQUIRE(depth >= 4);
  const std::uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  std::size_t most = 0;
  for (int i = 0; i < 300; ++i) {
    const std::uint64_t size = tree.bytes();
    const std::uint64_t at = random() % size;
    // Ranges of every magnitude, cut at any byte.
    const std::uint64_t bytes = 1 + random() % std::min(size - at, std::uint64_t{1} << (1 + random() % 30));
    Tree piece;
    world.transact([&](TreeEditor& editor) {
      piece = must(editor.slice(tree, FileOffset(at), bytes));
    });
    REQUIRE(world.last_touched <= 6 * depth);
    most = std::max(most, world.last_touched);
    const std::uint64_t to = random() % (size - bytes + 1);
    world.transact([&](TreeEditor& editor) {
      tree = must(editor.splice(std::move(tree), FileOffset(to), bytes, std::move(piece)));
    });
    REQUIRE(world.last_touched <= 6 * depth);
    most = std::max(most, world.last_touched);
    world.transact([&](TreeEditor& editor) {
      Tree copy = must(editor.clone(tree));
      must(editor.drop(std::move(copy)));
    });
    REQUIRE(world.last_touched <= 1);
  }
  REQUIRE(tree.bytes() == kExtents * kEach);
  WARN("1,000,000 extents: depth " << depth << ", at most " << most << " nodes touched");
}

TEST_CASE("a single small change in a large rope rewrites one path under the same ids") {
  TreeWorld world;
  world.ropes.emplace_back();
  world.transact([&](TreeEditor& editor) {
    world.ropes[0].tree = fragments(world, editor, 20'000, 1, world.ropes[0].model);
  });
  const std::size_t nodes = world.nodes();
  const unsigned depth = world.ropes[0].tree.depth();
  const NodeId root = world.ropes[0].tree.root->id;
  for (std::uint64_t at : {1000ULL, 100'000ULL, 500'000ULL}) {
    Bytes fresh;
    world.transact([&](TreeEditor& editor) {
      world.ropes[0].tree = must(editor.splice(std::move(world.ropes[0].tree), FileOffset(at), 10,
                                               world.fresh_extent(0, 10, fresh)));
    });
    std::copy(fresh.begin(), fresh.end(),
              world.ropes[0].model.begin() + static_cast<std::ptrdiff_t>(at));
    REQUIRE(world.last_touched <= depth + 2);
    REQUIRE(world.ropes[0].tree.root->id == root);
  }
  REQUIRE(world.nodes() <= nodes + 3);
  world.check_contents();
  world.check_references();
}

TEST_CASE("a tall rope can be emptied, from either end and all at once") {
  TreeWorld world;
  for (const std::uint64_t keep : {0ULL, 1ULL, 4000ULL}) {
    for (const bool front : {false, true}) {
      TreeWorld::Rope rope;
      world.transact([&](TreeEditor& editor) {
        rope.tree = fragments(world, editor, 6000, 3, rope.model);
        REQUIRE(rope.tree.depth() >= 2);
        const std::uint64_t size = rope.tree.bytes();
        rope.tree = must(editor.splice(std::move(rope.tree), FileOffset(front ? 0 : keep),
                                       size - keep, Tree{}));
      });
      const auto gone = static_cast<std::ptrdiff_t>(rope.model.size() - keep);
      front ? rope.model.erase(rope.model.begin(), rope.model.begin() + gone)
            : rope.model.erase(rope.model.end() - gone, rope.model.end());
      world.ropes.push_back(std::move(rope));
    }
  }
  world.check_contents();
  world.check_references();
  world.reclaim_all();
  world.check_references();
}

TEST_CASE("nodes and roots survive encoding, and damage is refused") {
  TreeNode leaf{0, {TreeEntry::data(PhysAddr(8192), 100), TreeEntry::hole(5)}};
  const std::string raw = leaf.encode();
  const TreeNode back = must(TreeNode::decode(raw));
  REQUIRE(back.entries == leaf.entries);
  for (std::size_t cut = 0; cut < raw.size(); ++cut) {
    REQUIRE_FALSE(TreeNode::decode(std::string_view(raw).substr(0, cut)));
  }
  REQUIRE_FALSE(TreeNode::decode(raw + "x"));
  TreeNode zero = leaf;
  zero.entries[1].bytes = 0;
  REQUIRE_FALSE(TreeNode::decode(zero.encode()));
  TreeNode huge = leaf;
  huge.entries[0].bytes = UINT64_MAX;
  REQUIRE_FALSE(TreeNode::decode(huge.encode()));
}
