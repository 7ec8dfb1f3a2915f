// Recounts who refers to a tree node, and who to a block, twice: by reading the table of nodes from
// end to end, and by walking down from every root. The two share no more than the records'
// decoders.
#pragma once

#include <string>
#include <vector>

#include "store/check/findings.hpp"
#include "store/check/space_check.hpp"
#include "store/extent/tree.hpp"

namespace odx::check {

class TreeCheck {
 public:
  // Extents found in leaves go to `space`.
  TreeCheck(const CheckSubject& subject, SpaceCheck& space, Findings& findings)
      : kv_(subject.kv), space_(space), findings_(findings) {}

  // First.
  Result<void> read_nodes();
  // Then the roots: of files and tokens, and the reclaimer's queue. `owner` is how to call it.
  void see_tree(const Tree& tree, const std::string& owner);
  Result<void> read_queue();
  // Then what nodes refer to.
  Result<void> read_children();
  // The other way round: everything again, downwards from the roots. After all of the above.
  Result<void> walk();
  // Last.
  Result<void> compare();

  // Trees that nobody names, by their root nodes; after compare(). Empty if not everything that
  // could name one was readable.
  [[nodiscard]] const std::vector<Tree::Root>& lost() const { return lost_; }

  // Of the node ids that any record names.
  [[nodiscard]] NodeId highest() const { return highest_; }

 private:
  struct Facts {
    NodeId id;
    std::uint64_t bytes = 0;
    std::uint64_t data_bytes = 0;
    std::uint64_t refs = 0;    // counted
    std::uint64_t walked = 0;  // counted the other way
    std::uint64_t recorded = 1;
    std::uint8_t level = 0;
    std::uint8_t entries = 0;
    bool is_child = false;
    bool visited = false;
  };

  Facts* find(NodeId id);
  // Somebody refers to a node; null if it does not exist.
  Facts* refer(NodeId id, const std::string& owner);
  Result<void> walk_below(NodeId root);
  void fix_count(const Facts& facts, bool record_is_good);

  const KvReader& kv_;
  SpaceCheck& space_;
  Findings& findings_;
  std::vector<Facts> facts_;   // by node id
  std::vector<NodeId> roots_;  // as often as they are named
  std::vector<Tree::Root> lost_;
  std::uint64_t walked_nodes_ = 0;
  NodeId highest_;
};

}  // namespace odx::check
