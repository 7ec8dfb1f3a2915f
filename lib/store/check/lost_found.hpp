// Gives what nobody can reach a name below /lost+found.
#pragma once

#include <vector>

#include "store/check/findings.hpp"
#include "store/extent/tree.hpp"
#include "store/inode/inode.hpp"

namespace odx::check {

struct LostThings {
  std::vector<InodeNo> inodes;    // without a name: called #INO
  std::vector<Tree::Root> trees;  // without an owner: become files, called #node-ID
  InodeNo highest;                // of the inode numbers in use
};

// Takes down what is to be changed; nothing is lost if that cannot be said (no root, no room).
Result<void> find_places(const CheckSubject& subject, const LostThings& lost, Findings& findings);

}  // namespace odx::check
