// Recounts the namespace: inodes, directory entries, extended attributes, orphans.
#pragma once

#include <vector>

#include "store/check/findings.hpp"
#include "store/inode/inode.hpp"

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
  void compare();

  [[nodiscard]] InodeNo highest() const { return facts_.empty() ? InodeNo{} : facts_.back().ino; }

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
    InodeNo named_in;  // the directory of one of its names
    bool orphan = false;

    [[nodiscard]] bool is_directory() const { return S_ISDIR(mode); }
  };

  Facts* find(InodeNo ino);
  void see_entry(const KeyValue& record);
  void compare_directory(const Facts& facts);
  void find_loops();

  const KvReader& kv_;
  const Uuid store_;
  Findings& findings_;
  std::vector<Facts> facts_;  // by inode number

  // Names of the directory and hash that the scan is at.
  InodeNo group_dir_;
  std::uint64_t group_first_ = 0;
  std::vector<std::string> group_names_;
};

}  // namespace odx::check
