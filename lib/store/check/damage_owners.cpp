// Nothing leads from a block to its files, so this goes the other way, once for all blocks: leaves
// that name one, level by level the nodes above them, and last the files and tokens whose root is
// among these. Only run when there is damage, so its cost (a scan of the nodes for each level of
// the highest tree) matters less than that people learn which files to restore. From a root down,
// only marked nodes are looked at, and each of them once for all owners but for their ranges.
#include "store/check/damage_owners.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>
#include <utility>

#include "store/inode/directory.hpp"
#include "store/inode/inode.hpp"
#include "store/meta/keys.hpp"
#include "store/token/token_record.hpp"

namespace odx::check {

namespace {

class Tracer {
 public:
  Tracer(const KvReader& kv, const std::vector<std::uint64_t>& blocks, const TraceLimits& limits,
         const std::function<void(const DamageOwner&)>& each)
      : kv_(kv), blocks_(blocks), limits_(limits), each_(each) {}

  Result<DamageTrace> run() {
    for (unsigned level = 0; level <= kMaxTreeLevel; ++level) {
      const std::size_t before = nodes_.size();
      ODX_TRY(trace_level(level));
      if (nodes_.size() == before) {
        break;
      }
    }
    ODX_TRY(find_files());
    ODX_TRY(name_files());
    ODX_TRY(name_tokens());
    trace_.owned.assign(owned_.begin(), owned_.end());
    trace_.complete = ignored_.report.problem_count == 0;
    return std::move(trace_);
  }

 private:
  // Damaged blocks of an extent, as a part of blocks_.
  using Blocks = std::pair<std::vector<std::uint64_t>::const_iterator,
                           std::vector<std::uint64_t>::const_iterator>;
  [[nodiscard]] Blocks damage_in(const TreeEntry& extent) const {
    if (extent.is_hole()) {
      return {blocks_.end(), blocks_.end()};
    }
    const BlockRun run = blocks_of(extent);
    const auto first = std::lower_bound(blocks_.begin(), blocks_.end(), run.first.value());
    return {first, std::lower_bound(first, blocks_.end(), run.end().value())};
  }
  [[nodiscard]] bool damaged(const std::vector<TreeEntry>& extents) const {
    return std::any_of(extents.begin(), extents.end(), [&](const TreeEntry& extent) {
      const Blocks found = damage_in(extent);
      return found.first != found.second;
    });
  }
  [[nodiscard]] bool damaged(const Tree& tree) const {
    return tree.root ? nodes_.contains(tree.root->id) : damaged(tree.extents);
  }

  // Marks the nodes of one level that lead to damage.
  Result<void> trace_level(unsigned level) {
    return for_each(keys::kNode, [&](const KeyValue& record) {
      const Result<TreeNode> node = TreeNode::decode(record.value);
      if (!node) {
        ignored_.problem("tree node");
        return;
      }
      if (node->level != level) {
        return;
      }
      const auto& entries = node->entries;
      if (level == 0 ? damaged(entries)
                     : std::any_of(entries.begin(), entries.end(), [&](const TreeEntry& entry) {
                         return nodes_.contains(entry.child());
                       })) {
        nodes_.insert(NodeId(keys::number_of(record.key)));
      }
    });
  }

  // A marked node; nothing if it cannot be read.
  Result<std::optional<TreeNode>> node(NodeId id) {
    const auto record = kv_.get(keys::node(id));
    if (!record && !record.error().is_corruption()) {
      return std::unexpected(record.error());
    }
    const auto node = record && *record ? TreeNode::decode(**record) : fail(EIO);
    return node ? std::optional<TreeNode>(*node) : std::nullopt;
  }

  // Notes the blocks below a root as owned.
  Result<void> own(const Tree& tree) {
    if (tree.root) {
      return own(tree.root->id);
    }
    own(tree.extents);
    return {};
  }
  void own(const std::vector<TreeEntry>& extents) {
    for (const TreeEntry& extent : extents) {
      const Blocks found = damage_in(extent);
      owned_.insert(found.first, found.second);
    }
  }
  Result<void> own(NodeId id) {
    if (!nodes_.contains(id) || !seen_.insert(id).second) {
      return {};
    }
    const std::optional<TreeNode> here = ODX_TRY(node(id));
    if (!here || here->level == 0) {
      own(here ? here->entries : std::vector<TreeEntry>());
      return {};
    }
    for (const TreeEntry& entry : here->entries) {
      ODX_TRY(own(entry.child()));
    }
    return {};
  }

  // Adds what is damaged of a part of a rope that begins at `at`.
  Result<void> find_ranges(const Tree& tree, DamageOwner& owner) {
    if (tree.root) {
      return find_ranges(tree.root->id, tree.root->level, 0, owner);
    }
    find_ranges(tree.extents, 0, owner);
    return {};
  }
  void find_ranges(const std::vector<TreeEntry>& extents, std::uint64_t at, DamageOwner& owner) {
    for (const TreeEntry& extent : extents) {
      const Blocks found = damage_in(extent);
      for (auto block = found.first; block != found.second; ++block) {
        // The part of the extent that lies in the block.
        const std::uint64_t address = extent.address().value();
        const std::uint64_t from = std::max(*block * kBlockBytes, address) - address;
        const std::uint64_t to =
            std::min((*block + 1) * kBlockBytes, address + extent.bytes) - address;
        add_range({at + from, to - from}, owner);
      }
      at += extent.bytes;
    }
  }
  Result<void> find_ranges(NodeId id, unsigned level, std::uint64_t at, DamageOwner& owner) {
    if (!nodes_.contains(id) || owner.more_ranges) {
      return {};
    }
    const std::optional<TreeNode> here = ODX_TRY(node(id));
    if (!here || here->level != level) {
      return {};
    }
    if (level == 0) {
      find_ranges(here->entries, at, owner);
      return {};
    }
    for (const TreeEntry& entry : here->entries) {
      ODX_TRY(find_ranges(entry.child(), level - 1, at, owner));
      at += entry.bytes;
    }
    return {};
  }
  void add_range(DamagedRange range, DamageOwner& owner) const {
    auto& ranges = owner.ranges;
    if (!ranges.empty() && ranges.back().offset + ranges.back().bytes == range.offset) {
      ranges.back().bytes += range.bytes;
    } else if (ranges.size() < limits_.ranges) {
      ranges.push_back(range);
    } else {
      owner.more_ranges = true;
    }
  }

  Result<void> find_files() {
    Result<void> failed;
    ODX_TRY(for_each(keys::kInode, [&](const KeyValue& record) {
      const InodeNo ino(keys::number_of(record.key));
      const Result<Inode> inode = Inode::decode(ino, record.value);
      if (!inode) {
        ignored_.problem("inode");
      }
      if (!inode || !damaged(inode->tree) || !failed) {
        return;
      }
      failed = own(inode->tree);
      ++trace_.owners;
      if (files_.size() < limits_.owners) {
        files_.insert(ino);
      }
    }));
    return failed;
  }

  Result<void> name_files() {
    struct Place {
      InodeNo dir;
      std::string name;
    };
    std::map<InodeNo, Place> places;  // one name of each file
    ODX_TRY(for_each(keys::kDirent, [&](const KeyValue& record) {
      const Result<DirectoryEntry> entry = decode_entry(record);
      if (entry && files_.contains(entry->ino)) {
        places.emplace(entry->ino, Place{InodeNo(keys::number_of(record.key)), entry->name});
      }
    }));
    for (const InodeNo ino : files_) {
      DamageOwner owner;
      owner.ino = ino;
      const auto place = places.find(ino);
      if (place != places.end()) {
        owner.path = quoted(ODX_TRY(path_of(place->second.dir)) + "/" + place->second.name);
      }
      const auto record = ODX_TRY(kv_.get(keys::inode(ino)));
      const auto inode = record ? Inode::decode(ino, *record) : fail(ENOENT);
      if (inode) {
        ODX_TRY(find_ranges(inode->tree, owner));
      }
      each_(owner);
    }
    return {};
  }

  // "" for the root. Where the way up is damaged itself, the path begins with "...".
  Result<std::string> path_of(InodeNo dir) {
    std::string path;
    for (int depth = 0; dir != kRootInode; ++depth) {
      constexpr int kMaxDepth = 1000;
      const auto record = kv_.get(keys::inode(dir));
      if (!record && !record.error().is_corruption()) {
        return std::unexpected(record.error());
      }
      const auto inode = record && *record ? Inode::decode(dir, **record) : fail(ENOENT);
      const std::string name = inode ? ODX_TRY(name_in(inode->parent, dir)) : std::string();
      if (name.empty() || depth == kMaxDepth) {
        return "..." + path;
      }
      path = "/" + name + path;
      dir = inode->parent;
    }
    return path;
  }
  Result<std::string> name_in(InodeNo parent, InodeNo dir) {
    std::string name;
    Findings ignored(kQuiet);  // named by the check before
    ODX_TRY(for_each_record(kv_, keys::dirent(parent, 0), keys::dirent(parent, UINT64_MAX), ignored,
                            [&](const KeyValue& record) {
                              const Result<DirectoryEntry> entry = decode_entry(record);
                              if (entry && entry->ino == dir) {
                                name = entry->name;
                              }
                            }));
    return name;
  }

  Result<void> name_tokens() {
    Result<void> failed;
    ODX_TRY(for_each(keys::kToken, [&](const KeyValue& record) {
      const Result<TokenId> id = token_id_of_key(record.key);
      const auto token = id ? TokenRecord::decode(*id, record.value) : fail(EIO);
      if (!token) {
        ignored_.problem("token");
      }
      if (!token || !damaged(token->tree) || !failed) {
        return;
      }
      failed = own(token->tree);
      if (++trace_.owners > limits_.owners || !failed) {
        return;
      }
      DamageOwner owner;
      owner.token = token_text(*id);
      failed = find_ranges(token->tree, owner);
      each_(owner);
    }));
    return failed;
  }

  Result<void> for_each(char table, const std::function<void(const KeyValue&)>& each) {
    return for_each_record(kv_, table, "owners of damage", ignored_, each);
  }

  inline static const CheckOptions kQuiet{.data = false, .progress = {}, .max_problems = 0};

  const KvReader& kv_;
  const std::vector<std::uint64_t>& blocks_;
  const TraceLimits& limits_;
  const std::function<void(const DamageOwner&)>& each_;
  Findings ignored_{kQuiet};  // what cannot be read, which is others' to report
  DamageTrace trace_;
  std::unordered_set<NodeId> nodes_;  // marked
  std::unordered_set<NodeId> seen_;   // of these, by own()
  std::set<std::uint64_t> owned_;
  std::set<InodeNo> files_;
};

}  // namespace

std::string DamageOwner::text() const {
  if (!token.empty()) {
    return token;
  }
  return path.empty() ? fmt::format("inode {}, which has no name", ino.value())
                      : fmt::format("inode {}, {}", ino.value(), path);
}

Result<DamageTrace> trace_damage(const KvReader& kv, const std::vector<std::uint64_t>& blocks,
                                 const TraceLimits& limits,
                                 const std::function<void(const DamageOwner&)>& each) {
  return blocks.empty() ? Result<DamageTrace>() : Tracer(kv, blocks, limits, each).run();
}

Result<void> name_damage_owners(const CheckSubject& subject,
                                const std::vector<std::uint64_t>& blocks, Findings& findings) {
  ODX_TRY(trace_damage(subject.kv, blocks, {}, [&](const DamageOwner& owner) {
    findings.problem("{}{} has damaged data", owner.text(), owner.token.empty() ? "," : "");
  }));
  return {};
}

}  // namespace odx::check
