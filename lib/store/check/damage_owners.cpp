// Nothing leads from a block to its files, so this goes the other way, once for all blocks: leaves
// that name one, level by level the nodes above them, and last the files and tokens whose root is
// among these. Only run when there is damage, so its cost (a scan of the nodes for each level of
// the highest tree) matters less than that people learn which files to restore.
#include "store/check/damage_owners.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_set>

#include "store/inode/directory.hpp"
#include "store/inode/inode.hpp"
#include "store/meta/keys.hpp"
#include "store/token/token_record.hpp"

namespace odx::check {

namespace {

class Tracer {
 public:
  Tracer(const CheckSubject& subject, const std::vector<std::uint64_t>& blocks, Findings& findings)
      : kv_(subject.kv), blocks_(blocks), findings_(findings) {}

  Result<void> run() {
    for (unsigned level = 0; level <= kMaxTreeLevel; ++level) {
      const std::size_t before = nodes_.size();
      ODX_TRY(trace_level(level));
      if (nodes_.size() == before) {
        break;
      }
    }
    ODX_TRY(find_files());
    ODX_TRY(name_files());
    return name_tokens();
  }

 private:
  [[nodiscard]] bool damaged(const std::vector<TreeEntry>& extents) const {
    return std::any_of(extents.begin(), extents.end(), [&](const TreeEntry& extent) {
      if (extent.is_hole()) {
        return false;
      }
      const BlockRun run = blocks_of(extent);
      const auto at = std::lower_bound(blocks_.begin(), blocks_.end(), run.first.value());
      return at != blocks_.end() && *at < run.end().value();
    });
  }
  [[nodiscard]] bool damaged(const Tree& tree) const {
    return tree.root ? nodes_.contains(tree.root->id) : damaged(tree.extents);
  }

  // Marks the nodes of one level that lead to damage.
  Result<void> trace_level(unsigned level) {
    return for_each(keys::kNode, [&](const KeyValue& record) {
      const Result<TreeNode> node = TreeNode::decode(record.value);
      if (!node || node->level != level) {
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

  Result<void> find_files() {
    return for_each(keys::kInode, [&](const KeyValue& record) {
      const InodeNo ino(keys::number_of(record.key));
      const Result<Inode> inode = Inode::decode(ino, record.value);
      if (inode && damaged(inode->tree)) {
        files_.insert(ino);
      }
    });
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
      const auto place = places.find(ino);
      if (place == places.end()) {
        findings_.problem("inode {}, which has no name, has damaged data", ino.value());
        continue;
      }
      const std::string path = ODX_TRY(path_of(place->second.dir)) + "/" + place->second.name;
      findings_.problem("inode {}, {}, has damaged data", ino.value(), quoted(path));
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
    return for_each(keys::kToken, [&](const KeyValue& record) {
      const Result<TokenId> id = token_id_of_key(record.key);
      const auto token = id ? TokenRecord::decode(*id, record.value) : fail(EIO);
      if (token && damaged(token->tree)) {
        findings_.problem("{} has damaged data", token_text(*id));
      }
    });
  }

  Result<void> for_each(char table, const std::function<void(const KeyValue&)>& each) {
    Findings ignored(kQuiet);
    return for_each_record(kv_, table, "owners of damage", ignored, each);
  }

  inline static const CheckOptions kQuiet{.data = false, .progress = {}, .max_problems = 0};

  const KvReader& kv_;
  const std::vector<std::uint64_t>& blocks_;
  Findings& findings_;
  std::unordered_set<NodeId> nodes_;
  std::set<InodeNo> files_;
};

}  // namespace

Result<void> name_damage_owners(const CheckSubject& subject,
                                const std::vector<std::uint64_t>& blocks, Findings& findings) {
  return blocks.empty() ? Result<void>{} : Tracer(subject, blocks, findings).run();
}

}  // namespace odx::check
