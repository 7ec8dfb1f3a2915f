// Inodes by name: directories, links, attributes, extended attributes, orphans.
//
// The store checks what keeps it consistent (types, emptiness, loops, name length); permissions
// are the kernel's (default_permissions). Every call is one transaction and may be made from any
// thread at once. Answers are the inodes as of that transaction.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/core.hpp"
#include "store/inode/inode.hpp"

namespace odx {

class Mutation;

inline constexpr std::size_t kMaxNameBytes = 255;
inline constexpr std::size_t kMaxXattrBytes = 65536;
inline constexpr std::uint32_t kMaxLinks = 1U << 31;

struct NewInode {
  std::uint32_t mode = 0;  // type and permissions; any type but a socketless unknown one
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t rdev = 0;
  std::string symlink_target;  // symlinks: 1 to 4095 bytes
};

// Set what is to change.
struct AttrChange {
  std::optional<std::uint32_t> mode;  // permission bits only; the type stays
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::int64_t> atime_ns;
  std::optional<std::int64_t> mtime_ns;
  std::optional<std::int64_t> ctime_ns;  // default: now, if anything else changes
  bool keep_ctime = false;               // ctime stays as it is: reading renews atime only
  bool drop_set_id = false;              // clear set-user-id, and set-group-id if group-executable
};

struct DirectoryEntry {
  std::string name;
  InodeNo ino;
  std::uint32_t mode = 0;    // type bits only
  std::uint64_t cookie = 0;  // where to go on behind this entry
};

enum class RenameMode { kReplace, kNoReplace, kExchange };

class Names {
 public:
  explicit Names(Core& core) : core_(core) {}

  Result<InodePtr> get(InodeNo ino) { return core_.inode(ino); }
  // "." and ".." too.
  Result<InodePtr> lookup(InodeNo dir, std::string_view name);
  // Any type of file. A set-group-id directory passes on its group (and, to directories, the bit).
  Result<InodePtr> create(InodeNo dir, std::string_view name, const NewInode& what);
  // A regular file without a name (O_TMPFILE): an orphan from birth, until link() names it. It
  // gets its group as if it were made in `dir`, if one is given.
  Result<InodePtr> create_unnamed(const NewInode& what, std::optional<InodeNo> dir = {});
  Result<InodePtr> link(InodeNo ino, InodeNo dir, std::string_view name);
  // Answers with the inode that lost the name. When its last name went it is an orphan until
  // reap(): its content stays readable and writable.
  Result<InodePtr> unlink(InodeNo dir, std::string_view name);
  Result<InodePtr> rmdir(InodeNo dir, std::string_view name);
  // Answers with the inode whose name was replaced, if any. `whiteout` (not with kExchange): a new
  // inode that takes the old name in the same transaction, not a directory.
  Result<InodePtr> rename(InodeNo from_dir, std::string_view from, InodeNo to_dir,
                          std::string_view to, RenameMode mode, const NewInode* whiteout = nullptr);
  // Up to `limit` entries behind `cookie` (0 = from the start; "." and ".." are not among them).
  // Cookies are stable: an entry that exists throughout is listed exactly once.
  Result<std::vector<DirectoryEntry>> list(InodeNo dir, std::uint64_t cookie, std::size_t limit);

  Result<InodePtr> change(InodeNo ino, const AttrChange& what);

  Result<std::string> xattr(InodeNo ino, std::string_view name);  // ENODATA if there is none
  enum class XattrMode { kAny, kCreate, kReplace };
  Result<void> set_xattr(InodeNo ino, std::string_view name, std::string_view value,
                         XattrMode mode);
  Result<void> remove_xattr(InodeNo ino, std::string_view name);  // ENODATA
  Result<std::vector<std::string>> list_xattrs(InodeNo ino);

  // The kernel has forgotten the inode and nobody has it open: frees it if it has no name left,
  // else does nothing. Idempotent.
  Result<void> reap(InodeNo ino);
  // At mount: nobody has anything open, so every orphan goes.
  Result<void> reap_all_orphans();

  // Makes everything that was committed before this call durable.
  Result<void> sync();

 private:
  Core& core_;
};

}  // namespace odx
