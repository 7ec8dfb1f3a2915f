// Recounts the namespace: inodes, directory entries, extended attributes, orphans.
#pragma once

#include <vector>

#include "store/check/findings.hpp"
#include "store/inode/inode.hpp"
#include "store/inode/names.hpp"

namespace odx::check {

class NamespaceCheck {
 public:
  NamespaceCheck(const CheckSubject& subject, Findings& findings)
      : kv_(subject.kv), store_(subject.store), findings_(findings) {}

  // Calls `content` with every inode, in order.
  Result<void> read_inodes(const std::function<void(const Inode&)>& content);
  Result<void> read_names();
  Result<void> read_xattrs();
  Result<void> read_orphans();
  // After all of the above: what was counted against what is recorded.
  Result<void> compare();

  [[nodiscard]] InodeNo highest() const { return highest_; }
  // Inodes that no name leads to although they should have one; after compare().
  [[nodiscard]] const std::vector<InodeNo>& lost() const { return lost_; }

 private:
  struct Facts {
    InodeNo ino;
    // Recorded:
    std::uint32_t mode = 0;
    std::uint32_t nlink = 0;
    InodeNo parent;
    std::uint64_t entry_count = 0;
    std::uint64_t xattr_count = 0;
    // Counted:
    std::uint64_t names = 0;
    std::uint64_t entries = 0;
    std::uint64_t directories = 0;
    std::uint64_t xattrs = 0;
    InodeNo named_in;            // the directory of one of its names; where it can be, the parent
    std::uint64_t named_at = 0;  // the cookie of that name
    bool orphan = false;

    [[nodiscard]] bool is_directory() const { return S_ISDIR(mode); }
    [[nodiscard]] bool is_root() const { return ino == kRootInode; }
    // A directory that was removed and is not reaped yet.
    [[nodiscard]] bool is_removed() const {
      return is_directory() && nlink == 0 && !is_root() && names == 0 && entries == 0;
    }
  };

  Facts* find(InodeNo ino);
  [[nodiscard]] bool is_unreadable(InodeNo ino) const;
  void see_entry(const KeyValue& record);
  void see_place(const DirectoryEntry& entry, InodeNo dir);
  void see_target(const DirectoryEntry& entry, const KeyValue& record, InodeNo dir);
  void drop_entry(const KeyValue& record, InodeNo dir, const DirectoryEntry& entry,
                  std::string_view why);
  void compare_root(const Facts* root);
  void compare_directory(const Facts& facts);
  void compare_orphan(const Facts& facts);
  Result<void> fix_inode(const Facts& facts);
  void fix_extra_names();
  void find_loops();
  Result<void> mend(const Facts& facts, std::string what, const std::function<void(Inode&)>& change,
                    Stage stage);

  const KvReader& kv_;
  const Uuid store_;
  Findings& findings_;
  std::vector<Facts> facts_;  // by inode number
  std::vector<InodeNo> lost_;
  InodeNo highest_;

  // Further names of directories, which have one.
  struct ExtraName {
    InodeNo ino;
    InodeNo dir;
    std::uint64_t cookie;
  };
  std::vector<ExtraName> extra_names_;

  // Names of the directory and hash that the scan is at.
  InodeNo group_dir_;
  std::uint64_t group_first_ = 0;
  std::vector<std::string> group_names_;
};

}  // namespace odx::check
