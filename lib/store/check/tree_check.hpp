// Walks every tree node once and recounts who refers to it.
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
  // After all of the above.
  Result<void> compare();

  // Of the node ids that any record names.
  [[nodiscard]] NodeId highest() const { return highest_; }

 private:
  struct Facts {
    NodeId id;
    std::uint64_t bytes = 0;
    std::uint64_t data_bytes = 0;
    std::uint64_t refs = 0;  // counted
    std::uint64_t recorded = 1;
    std::uint8_t level = 0;
    std::uint8_t entries = 0;
    bool is_child = false;
  };

  Facts* find(NodeId id);
  // Somebody refers to a node; null if it does not exist.
  Facts* refer(NodeId id, const std::string& owner);

  const KvReader& kv_;
  SpaceCheck& space_;
  Findings& findings_;
  std::vector<Facts> facts_;  // by node id
  NodeId highest_;
};

}  // namespace odx::check
