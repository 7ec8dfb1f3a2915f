// What is found here is mended in this order (see Stage): the root directory; entries and other
// records that lead nowhere go; every directory gets one name, in the directory that it takes for
// its parent, and what has no name gets one below lost+found; then the counts.
//
// A record that cannot be read may be anything, so whatever leads to one, or lies in it, stays.
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

bool NamespaceCheck::is_unreadable(InodeNo ino) const {
  return findings_.is_unreadable(keys::inode(ino));
}

// Takes down a change of an inode's record.
Result<void> NamespaceCheck::mend(const Facts& facts, std::string what,
                                  const std::function<void(Inode&)>& change, Stage stage) {
  if (!findings_.repairing()) {
    return {};
  }
  const std::string key = keys::inode(facts.ino);
  const auto record = ODX_TRY(kv_.get(key));
  if (!record) {
    return corrupt("an inode vanished while it was looked at");
  }
  Inode inode = ODX_TRY(Inode::decode(facts.ino, *record));
  change(inode);
  findings_.fix(stage, std::move(what), {{key, inode.encode()}});
  return {};
}

Result<void> NamespaceCheck::read_inodes(const std::function<void(const Inode&)>& content) {
  ODX_TRY(for_each_record(kv_, keys::kInode, "inodes", findings_, [&](const KeyValue& record) {
    if (record.key.size() != 9) {
      findings_.problem("inode record with a malformed key");
      findings_.unreadable(record.key);
      return;
    }
    const InodeNo ino(keys::number_of(record.key));
    highest_ = std::max(highest_, ino);
    const Result<Inode> inode = Inode::decode(ino, record.value);
    if (!inode) {
      findings_.problem("inode {}: {}", ino.value(), inode.error().detail());
      findings_.unreadable(record.key);
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
  }));
  findings_.for_each_unreadable(keys::kInode, [&](const std::string& key) {
    highest_ = std::max(highest_, InodeNo(keys::number_of(key)));
  });
  return {};
}

Result<void> NamespaceCheck::read_names() {
  ODX_TRY(for_each_record(kv_, keys::kDirent, "names", findings_,
                          [&](const KeyValue& record) { see_entry(record); }));
  findings_.for_each_unreadable(keys::kDirent, [&](const std::string& key) {
    // It keeps its directory from being listed, and what it led to gets a name below lost+found.
    findings_.fix(
        Stage::kRecords,
        fmt::format("directory {}: an entry that cannot be read is removed", keys::number_of(key)),
        {{key, std::nullopt}});
  });
  return {};
}

void NamespaceCheck::drop_entry(const KeyValue& record, InodeNo dir, const DirectoryEntry& entry,
                                std::string_view why) {
  if (findings_.repairing()) {
    findings_.fix(
        Stage::kRecords,
        fmt::format("directory {}: entry {} {}: removed", dir.value(), quoted(entry.name), why),
        {{record.key, std::nullopt}});
  }
}

void NamespaceCheck::see_entry(const KeyValue& record) {
  const InodeNo dir(keys::number_of(record.key));
  const Result<DirectoryEntry> entry = decode_entry(record);
  if (!entry) {
    findings_.problem("directory {}: {}", dir.value(), entry.error().detail());
    findings_.unreadable(record.key);
    return;
  }
  ++findings_.report.entries;
  highest_ = std::max(highest_, entry->ino);
  const std::uint64_t first = first_cookie(store_, entry->name);
  if (dir != group_dir_ || first != group_first_) {
    group_dir_ = dir;
    group_first_ = first;
    group_names_.clear();
  }
  const bool twice =
      std::find(group_names_.begin(), group_names_.end(), entry->name) != group_names_.end();
  group_names_.push_back(entry->name);
  if (twice) {
    findings_.problem("directory {}: entry {} is there twice", dir.value(), quoted(entry->name));
    drop_entry(record, dir, *entry, "is there twice");
  } else if (entry->cookie < first || entry->cookie - first >= kMaxEqualHashes) {
    findings_.problem("directory {}: entry {} is filed under a hash that is not its own",
                      dir.value(), quoted(entry->name));
    if (findings_.repairing()) {
      KvOverlay changes(kv_);
      changes.erase(record.key);
      const auto same = find_entry(changes, store_, dir, entry->name);
      if (same &&
          (*same || add_entry(changes, store_, dir, entry->name, entry->ino, entry->mode))) {
        findings_.fix(
            Stage::kRecords,
            fmt::format(
                "directory {}: entry {} is filed under {}", dir.value(), quoted(entry->name),
                *same ? "another hash, where its name is taken: removed" : "its own hash now"),
            changes.take_writes());
      }
    }
  }
  see_target(*entry, record, dir);
  const Facts* const directory = find(dir);
  if (directory == nullptr && is_unreadable(dir)) {
    findings_.problem("entry {} lies in inode {}, which cannot be read", quoted(entry->name),
                      dir.value());
  } else if (directory == nullptr || !directory->is_directory()) {
    const char* const what = directory == nullptr ? "does not exist" : "is not a directory";
    findings_.problem("entry {} lies in inode {}, which {}", quoted(entry->name), dir.value(),
                      what);
    // The root comes back.
    if (dir != kRootInode) {
      drop_entry(record, dir, *entry, fmt::format("lies in an inode that {}", what));
    }
  } else {
    see_place(*entry, dir);
  }
}

// What an entry means for the inode that it leads to.
void NamespaceCheck::see_target(const DirectoryEntry& entry, const KeyValue& record, InodeNo dir) {
  Facts* const inode = find(entry.ino);
  if (inode == nullptr) {
    const bool there = is_unreadable(entry.ino);
    findings_.problem("directory {}: entry {} leads to inode {}, which {}", dir.value(),
                      quoted(entry.name), entry.ino.value(),
                      there ? "cannot be read" : "does not exist");
    if (!there) {
      drop_entry(record, dir, entry, "leads to an inode that does not exist");
    }
    return;
  }
  if ((inode->mode & S_IFMT) != entry.mode) {
    findings_.problem("directory {}: entry {} has type {:#o}, its inode {} has {:#o}", dir.value(),
                      quoted(entry.name), entry.mode, entry.ino.value(), inode->mode & S_IFMT);
    if (findings_.repairing()) {
      KvOverlay changes(kv_);
      replace_entry(changes, dir, entry, entry.ino, inode->mode & S_IFMT);
      findings_.fix(Stage::kRecords,
                    fmt::format("directory {}: entry {} has the type of its inode now", dir.value(),
                                quoted(entry.name)),
                    changes.take_writes());
    }
  }
  ++inode->names;
  if (inode->is_directory()) {
    if (inode->parent != dir) {
      findings_.problem("directory {} lies in directory {}, but takes {} for its parent",
                        inode->ino.value(), dir.value(), inode->parent.value());
    }
    const ExtraName this_one{entry.ino, dir, entry.cookie};
    if (inode->is_root()) {
      extra_names_.push_back(this_one);
      return;
    }
    if (inode->names > 1 && (inode->named_in == inode->parent || inode->parent != dir)) {
      extra_names_.push_back(this_one);  // the name before is as good or better
      return;
    }
    if (inode->names > 1) {
      extra_names_.push_back({entry.ino, inode->named_in, inode->named_at});
    }
  }
  inode->named_in = dir;
  inode->named_at = entry.cookie;
}

// What an entry means for the directory that it lies in.
void NamespaceCheck::see_place(const DirectoryEntry& entry, InodeNo dir) {
  Facts* const directory = find(dir);
  const Facts* const inode = find(entry.ino);
  ++directory->entries;
  const std::uint32_t type = inode != nullptr           ? inode->mode
                             : is_unreadable(entry.ino) ? entry.mode
                                                        : 0;
  directory->directories += S_ISDIR(type) ? 1 : 0;
}

Result<void> NamespaceCheck::read_xattrs() {
  return for_each_record(
      kv_, keys::kXattr, "extended attributes", findings_, [&](const KeyValue& record) {
        constexpr std::size_t kNameAt = 9;
        const InodeNo ino(keys::number_of(record.key));
        highest_ = std::max(highest_, ino);
        if (record.key.size() <= kNameAt || record.key.size() > kNameAt + kMaxNameBytes) {
          findings_.problem("inode {}: extended attribute with a malformed name", ino.value());
          return;
        }
        const std::string name = quoted(record.key.substr(kNameAt));
        if (record.value.size() > kMaxXattrBytes) {
          findings_.problem("inode {}: extended attribute {} is too large", ino.value(), name);
        }
        ++findings_.report.xattrs;
        if (Facts* const facts = find(ino)) {
          ++facts->xattrs;
          return;
        }
        findings_.problem("extended attribute {} of inode {}, which {}", name, ino.value(),
                          is_unreadable(ino) ? "cannot be read" : "does not exist");
        if (!is_unreadable(ino)) {
          findings_.fix(
              Stage::kRecords,
              fmt::format("extended attribute {} of inode {}, which does not exist: removed", name,
                          ino.value()),
              {{record.key, std::nullopt}});
        }
      });
}

Result<void> NamespaceCheck::read_orphans() {
  const auto drop = [&](const std::string& key, std::string_view why) {
    findings_.fix(Stage::kRecords,
                  fmt::format("orphan record of inode {}, {}: removed", keys::number_of(key), why),
                  {{key, std::nullopt}});
  };
  ODX_TRY(for_each_record(kv_, keys::kOrphan, "orphans", findings_, [&](const KeyValue& record) {
    const InodeNo ino(keys::number_of(record.key));
    highest_ = std::max(highest_, ino);
    const bool malformed = record.key.size() != 9 || !decode_orphan(record.value);
    if (malformed) {
      findings_.problem("inode {}: malformed orphan record", ino.value());
      drop(record.key, "which is malformed");
    }
    ++findings_.report.orphans;
    if (Facts* const facts = find(ino)) {
      facts->orphan = facts->orphan || !malformed;
      return;
    }
    findings_.problem("orphan record of inode {}, which {}", ino.value(),
                      is_unreadable(ino) ? "cannot be read" : "does not exist");
    if (!is_unreadable(ino)) {
      drop(record.key, "which does not exist");
    }
  }));
  findings_.for_each_unreadable(keys::kOrphan,
                                [&](const std::string& key) { drop(key, "which cannot be read"); });
  return {};
}

Result<void> NamespaceCheck::compare() {
  compare_root(find(kRootInode));
  const bool names_known = findings_.all_readable(keys::kDirent);
  for (const Facts& facts : facts_) {
    if (facts.is_directory()) {
      compare_directory(facts);
    } else if (facts.nlink != facts.names) {
      findings_.problem("inode {}: link count is {}, but it has {} names", facts.ino.value(),
                        facts.nlink, facts.names);
    }
    compare_orphan(facts);
    if (facts.xattr_count != facts.xattrs) {
      findings_.problem("inode {}: extended attribute count is {}, but it has {}",
                        facts.ino.value(), facts.xattr_count, facts.xattrs);
    }
    const bool nameless = facts.names == 0 && !facts.is_root() &&
                          (facts.nlink != 0 || (facts.is_directory() && facts.entries != 0));
    if (nameless && names_known) {
      lost_.push_back(facts.ino);
    }
    if (findings_.repairing()) {
      ODX_TRY(fix_inode(facts));
    }
  }
  find_loops();
  fix_extra_names();
  return {};
}

void NamespaceCheck::compare_root(const Facts* root) {
  if (root != nullptr && root->is_directory()) {
    return;
  }
  if (root != nullptr) {
    findings_.problem("the root is not a directory");
    return;
  }
  findings_.problem("there is no root directory");
  Inode inode;  // its owner and its permissions are lost; its entries are not
  inode.ino = kRootInode;
  inode.mode = S_IFDIR | 0700;
  inode.nlink = 2;
  inode.parent = kRootInode;
  findings_.fix(Stage::kRoot,
                "the root directory is made anew; it belongs to root, and nobody else may look in",
                {{keys::inode(kRootInode), inode.encode()}});
}

void NamespaceCheck::compare_directory(const Facts& facts) {
  const std::uint64_t ino = facts.ino.value();
  const bool removed = facts.nlink == 0 && !facts.is_root();
  const std::uint64_t names = facts.is_root() || removed ? 0 : 1;
  if (facts.names != names) {
    findings_.problem("directory {} has {} names instead of {}", ino, facts.names, names);
  }
  if (facts.is_root() && facts.parent != kRootInode) {
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

void NamespaceCheck::compare_orphan(const Facts& facts) {
  const std::uint64_t ino = facts.ino.value();
  if (facts.nlink == 0 && !facts.orphan) {
    findings_.problem("inode {} has no links, but is not recorded as an orphan", ino);
  }
  if (facts.nlink != 0 && facts.orphan) {
    findings_.problem("inode {} is recorded as an orphan, but has links", ino);
  }
  if (!findings_.repairing()) {
    return;
  }
  const bool orphan =
      facts.names == 0 && facts.nlink == 0 && facts.entries == 0 && !facts.is_root();
  if (orphan && !facts.orphan) {
    // Its own record says that its last name was removed.
    findings_.fix(
        Stage::kCounts, fmt::format("inode {} is recorded as an orphan", ino),
        {{keys::orphan(facts.ino), std::string(1, static_cast<char>(OrphanKind::kRemoved))}});
  } else if (!orphan && facts.orphan) {
    findings_.fix(Stage::kCounts, fmt::format("inode {} is no orphan: its record is removed", ino),
                  {{keys::orphan(facts.ino), std::nullopt}});
  }
}

// The inode's own record as the count has it.
Result<void> NamespaceCheck::fix_inode(const Facts& facts) {
  const bool directory = facts.is_directory();
  if (facts.is_root() && !directory) {
    return {};  // whatever it is, it is not for a count to say
  }
  const std::uint64_t links = facts.is_removed() ? 0
                              : directory        ? facts.directories + 2
                                                 : facts.names;
  // What has no name gets one before its links are counted.
  const bool links_known = facts.is_root() || facts.names != 0 || facts.is_removed();
  const InodeNo parent = facts.is_root()    ? kRootInode
                         : facts.names != 0 ? facts.named_in
                                            : facts.parent;
  const bool fix_links = links_known && facts.nlink != links && links <= kMaxLinks;
  const bool fix_parent = directory && facts.parent != parent;
  const bool fix_entries = directory && facts.entry_count != facts.entries;
  const bool fix_xattrs = facts.xattr_count != facts.xattrs && findings_.all_readable(keys::kXattr);
  if (!fix_links && !fix_parent && !fix_entries && !fix_xattrs) {
    return {};
  }
  std::string what = fmt::format("inode {}:", facts.ino.value());
  const auto add = [&](bool wanted, std::string_view name, std::uint64_t value) {
    if (wanted) {
      what += fmt::format("{} {} is {} now", what.back() == ':' ? "" : ",", name, value);
    }
  };
  add(fix_parent, "parent", parent.value());
  add(fix_links, "link count", links);
  add(fix_entries, "entry count", facts.entries);
  add(fix_xattrs, "extended attribute count", facts.xattrs);
  return mend(
      facts, std::move(what),
      [&](Inode& inode) {
        inode.parent = directory ? parent : inode.parent;
        inode.nlink = fix_links ? static_cast<std::uint32_t>(links) : inode.nlink;
        inode.entry_count = fix_entries ? facts.entries : inode.entry_count;
        inode.xattr_count = fix_xattrs ? facts.xattrs : inode.xattr_count;
      },
      Stage::kCounts);
}

// A directory keeps the name in the directory that it takes for its parent, or else its first one.
void NamespaceCheck::fix_extra_names() {
  for (const ExtraName& extra : extra_names_) {
    findings_.fix(Stage::kNames,
                  fmt::format("directory {}: a further name of directory {} is removed",
                              extra.dir.value(), extra.ino.value()),
                  {{keys::dirent(extra.dir, extra.cookie), std::nullopt}});
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
        findings_.fix(Stage::kNames,
                      fmt::format("directory {} lies below itself: its name in directory {} is "
                                  "removed",
                                  at->ino.value(), at->named_in.value()),
                      {{keys::dirent(at->named_in, at->named_at), std::nullopt}});
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
