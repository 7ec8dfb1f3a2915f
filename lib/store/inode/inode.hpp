// The inode record.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/extent/tree.hpp"

namespace odx {

struct Inode {
  InodeNo ino;
  std::uint32_t mode = 0;  // type and permission bits, as st_mode
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t nlink = 0;
  std::uint32_t rdev = 0;
  std::int64_t atime_ns = 0;
  std::int64_t mtime_ns = 0;
  std::int64_t ctime_ns = 0;
  std::int64_t btime_ns = 0;
  InodeNo parent;                   // directories: where ".." leads
  std::uint64_t entry_count = 0;    // directories: entries besides "." and ".."
  std::uint64_t data_version = 0;   // regular files: moves with every change of the tree
  std::uint64_t xattr_count = 0;    // 0 lets look-ups answer without a search
  std::string symlink_target;
  Tree tree;                        // regular files; its length is the file's size

  [[nodiscard]] bool is_regular() const { return S_ISREG(mode); }
  [[nodiscard]] bool is_directory() const { return S_ISDIR(mode); }
  [[nodiscard]] bool is_symlink() const { return S_ISLNK(mode); }
  [[nodiscard]] std::uint64_t size() const;

  [[nodiscard]] std::string encode() const;
  static Result<Inode> decode(InodeNo ino, std::string_view bytes);
};
using InodePtr = std::shared_ptr<const Inode>;

}  // namespace odx
