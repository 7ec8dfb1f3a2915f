#include "store/check/namespace_check.hpp"

#include <algorithm>

#include "store/inode/directory.hpp"
#include "store/inode/names_steps.hpp"
#include "store/meta/keys.hpp"

namespace odx::check {

NamespaceCheck::Facts* NamespaceCheck::find(InodeNo ino) {
  const auto at = std::lower_bound(facts_.begin(), facts_.end(), ino,
                                   [](const Facts& f, InodeNo wanted) { return f.ino < wanted; });
  return at != facts_.end() && at->ino == ino ? &*at : nullptr;
}

Result<void> NamespaceCheck::read_inodes(const std::function<void(const Inode&)>& content) {
  return for_each_record(kv_, keys::kInode, "inodes", findings_, [&](const KeyValue& record) {
    if (record.key.size() != 9) {
      findings_.problem("inode record with a malformed key");
      return;
    }
    const InodeNo ino(keys::number_of(record.key));
    const Result<Inode> inode = Inode::decode(ino, record.value);
    if (!inode) {
      findings_.problem("inode {}: {}", ino.value(), inode.error().detail());
      return;
    }
    Facts facts;
    facts.ino = ino;
    facts.mode = inode->mode;
    facts.nlink = inode->nlink;
    facts.parent = inode->parent;
    facts.entry_count = inode->entry_count;
    facts.xattr_count = inode->xattr_count;
    facts_.push_back(facts);
    ++findings_.report.inodes;
    findings_.report.directories += inode->is_directory() ? 1 : 0;
    content(*inode);
  });
}

Result<void> NamespaceCheck::read_names() {
  return for_each_record(kv_, keys::kDirent, "names", findings_,
                         [&](const KeyValue& record) { see_entry(record); });
}

void NamespaceCheck::see_entry(const KeyValue& record) {
  const InodeNo dir(keys::number_of(record.key));
  const Result<DirectoryEntry> entry = decode_entry(record);
  if (!entry) {
    findings_.problem("directory {}: {}", dir.value(), entry.error().detail());
    return;
  }
  ++findings_.report.entries;

  const std::uint64_t first = first_cookie(store_, entry->name);
  if (entry->cookie < first || entry->cookie - first >= kMaxEqualHashes) {
    findings_.problem("directory {}: entry {} is filed under a hash that is not its own",
                      dir.value(), quoted(entry->name));
  }
  if (dir != group_dir_ || first != group_first_) {
    group_dir_ = dir;
    group_first_ = first;
    group_names_.clear();
  }
  if (std::find(group_names_.begin(), group_names_.end(), entry->name) != group_names_.end()) {
    findings_.problem("directory {}: entry {} is there twice", dir.value(), quoted(entry->name));
  }
  group_names_.push_back(entry->name);

  Facts* const directory = find(dir);
  Facts* const inode = find(entry->ino);
  if (inode == nullptr) {
    findings_.problem("directory {}: entry {} leads to inode {}, which does not exist", dir.value(),
                      quoted(entry->name), entry->ino.value());
  } else {
    if ((inode->mode & S_IFMT) != entry->mode) {
      findings_.problem("directory {}: entry {} has type {:#o}, its inode {} has {:#o}",
                        dir.value(), quoted(entry->name), entry->mode, entry->ino.value(),
                        inode->mode & S_IFMT);
    }
    ++inode->names;
    inode->named_in = dir;
    if (inode->is_directory() && inode->parent != dir) {
      findings_.problem("directory {} lies in directory {}, but takes {} for its parent",
                        inode->ino.value(), dir.value(), inode->parent.value());
    }
  }
  if (directory == nullptr || !directory->is_directory()) {
    findings_.problem("entry {} lies in inode {}, which {}", quoted(entry->name), dir.value(),
                      directory == nullptr ? "does not exist" : "is not a directory");
    return;
  }
  ++directory->entries;
  directory->directories += inode != nullptr && inode->is_directory() ? 1 : 0;
}

Result<void> NamespaceCheck::read_xattrs() {
  return for_each_record(
      kv_, keys::kXattr, "extended attributes", findings_, [&](const KeyValue& record) {
        constexpr std::size_t kNameAt = 9;
        const InodeNo ino(keys::number_of(record.key));
        if (record.key.size() <= kNameAt || record.key.size() > kNameAt + kMaxNameBytes) {
          findings_.problem("inode {}: extended attribute with a malformed name", ino.value());
          return;
        }
        if (record.value.size() > kMaxXattrBytes) {
          findings_.problem("inode {}: extended attribute {} is too large", ino.value(),
                            quoted(record.key.substr(kNameAt)));
        }
        ++findings_.report.xattrs;
        if (Facts* const facts = find(ino)) {
          ++facts->xattrs;
        } else {
          findings_.problem("extended attribute {} of inode {}, which does not exist",
                            quoted(record.key.substr(kNameAt)), ino.value());
        }
      });
}

Result<void> NamespaceCheck::read_orphans() {
  return for_each_record(kv_, keys::kOrphan, "orphans", findings_, [&](const KeyValue& record) {
    const InodeNo ino(keys::number_of(record.key));
    if (record.key.size() != 9 || !decode_orphan(record.value)) {
      findings_.problem("inode {}: malformed orphan record", ino.value());
    }
    ++findings_.report.orphans;
    if (Facts* const facts = find(ino)) {
      facts->orphan = true;
    } else {
      findings_.problem("orphan record of inode {}, which does not exist", ino.value());
    }
  });
}

void NamespaceCheck::compare() {
  if (find(kRootInode) == nullptr) {
    findings_.problem("there is no root directory");
  }
  for (const Facts& facts : facts_) {
    if (facts.is_directory()) {
      compare_directory(facts);
    } else if (facts.nlink != facts.names) {
      findings_.problem("inode {}: link count is {}, but it has {} names", facts.ino.value(),
                        facts.nlink, facts.names);
    }
    if (facts.nlink == 0 && !facts.orphan) {
      findings_.problem("inode {} has no links, but is not recorded as an orphan",
                        facts.ino.value());
    }
    if (facts.nlink != 0 && facts.orphan) {
      findings_.problem("inode {} is recorded as an orphan, but has links", facts.ino.value());
    }
    if (facts.xattr_count != facts.xattrs) {
      findings_.problem("inode {}: extended attribute count is {}, but it has {}",
                        facts.ino.value(), facts.xattr_count, facts.xattrs);
    }
  }
  find_loops();
}

void NamespaceCheck::compare_directory(const Facts& facts) {
  const std::uint64_t ino = facts.ino.value();
  const bool is_root = facts.ino == kRootInode;
  const bool removed = facts.nlink == 0 && !is_root;
  const std::uint64_t names = is_root || removed ? 0 : 1;
  if (facts.names != names) {
    findings_.problem("directory {} has {} names instead of {}", ino, facts.names, names);
  }
  if (is_root && facts.parent != kRootInode) {
    findings_.problem("the root directory takes directory {} for its parent", facts.parent.value());
  }
  if (!removed && facts.nlink != facts.directories + 2) {
    findings_.problem("directory {}: link count is {}, but should be {}", ino, facts.nlink,
                      facts.directories + 2);
  }
  if (facts.entry_count != facts.entries) {
    findings_.problem("directory {}: entry count is {}, but it has {} entries", ino,
                      facts.entry_count, facts.entries);
  } else if (removed && facts.entries != 0) {
    findings_.problem("directory {} is removed, but has {} entries", ino, facts.entries);
  }
}

// Directories that are named only by one another. Those without any name are found by counting.
void NamespaceCheck::find_loops() {
  enum class Mark : std::uint8_t { kUnknown, kOnPath, kDone };
  std::vector<Mark> marks(facts_.size(), Mark::kUnknown);
  std::vector<std::size_t> path;
  for (std::size_t i = 0; i < facts_.size(); ++i) {
    path.clear();
    const Facts* at = &facts_[i];
    while (at != nullptr && at->is_directory() && at->ino != kRootInode) {
      const auto index = static_cast<std::size_t>(at - facts_.data());
      if (marks[index] == Mark::kOnPath) {
        findings_.problem("directory {} lies below itself and cannot be reached from the root",
                          at->ino.value());
      }
      if (marks[index] != Mark::kUnknown) {
        break;
      }
      marks[index] = Mark::kOnPath;
      path.push_back(index);
      at = at->names == 0 ? nullptr : find(at->named_in);
    }
    for (const std::size_t index : path) {
      marks[index] = Mark::kDone;
    }
  }
}

}  // namespace odx::check
