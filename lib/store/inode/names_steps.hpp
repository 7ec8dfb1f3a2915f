// Steps that the operations of Names are made of. For the .cpp files of Names only.
#pragma once

#include <string_view>

#include "store/core.hpp"
#include "store/inode/directory.hpp"
#include "store/inode/names.hpp"
#include "store/mutation.hpp"

namespace odx {

// What an orphan's record says about how it lost its names.
enum class OrphanKind : std::uint8_t {
  kRemoved = 0,  // its last name went; nothing brings it back
  kUnnamed = 1,  // it never had one, so link() may still give it one
};
void put_orphan(Mutation& m, InodeNo ino, OrphanKind kind);
Result<OrphanKind> decode_orphan(std::string_view value);

[[nodiscard]] inline bool is_dots(std::string_view name) { return name == "." || name == ".."; }

// A new inode with one name, numbered but not put yet. A set-group-id directory passes on its group
// (and, to directories, the bit).
Result<Inode> make_inode(Mutation& m, const NewInode& what, const Inode* dir);

// Puts the inode and answers with what was put.
InodePtr put_back(Mutation& m, Inode inode);

// ENOENT, ENOTDIR.
Result<Inode> get_directory(Mutation& m, InodeNo dir);
// The inode that an existing entry leads to; its absence is corruption.
Result<Inode> get_named(Mutation& m, InodeNo dir, const DirectoryEntry& entry);
// ENOENT: `dir` is removed and takes no more entries. EMLINK if `mode` is a directory's and `dir`
// holds as many as it can.
Result<void> check_room(const Inode& dir, std::uint32_t mode);

// `dir` changed: it has that many entries more, of which that many are directories. Reads and
// puts the inode afresh, so an operation may name one directory in two roles.
Result<InodePtr> count_entries(Mutation& m, InodeNo dir, int entries, int directories);

// One name less; the last one (of a directory: the only one) makes the inode an orphan.
Result<InodePtr> lose_name(Mutation& m, InodeNo ino);

}  // namespace odx
