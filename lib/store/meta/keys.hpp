// The key of every record: one table byte, then big-endian fields, so that a table is one range.
// FORMAT.md lists the values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/codec.hpp"
#include "base/types.hpp"

namespace odx::keys {

inline constexpr char kBitmap = 'B';
inline constexpr char kChecksums = 'C';
inline constexpr char kDirent = 'D';
inline constexpr char kReclaim = 'G';
inline constexpr char kInode = 'I';
inline constexpr char kLongOperation = 'L';
inline constexpr char kNode = 'N';
inline constexpr char kNodeRefs = 'P';
inline constexpr char kBlockRefs = 'R';
inline constexpr char kCounter = 'S';
inline constexpr char kToken = 'T';
inline constexpr char kXattr = 'X';
inline constexpr char kTokenExpiry = 'Y';
inline constexpr char kOrphan = 'Z';

inline constexpr std::uint64_t kChecksumsPerRecord = 64;

// The names of the `S` records that number things.
inline constexpr std::string_view kInodeCounter = "inode";
inline constexpr std::string_view kNodeCounter = "node";

// [begin, end) of a whole table.
inline std::string table_begin(char table) { return std::string(1, table); }
inline std::string table_end(char table) { return std::string(1, static_cast<char>(table + 1)); }

inline std::string numbered(char table, std::uint64_t number) {
  std::string key(1, table);
  put_be(key, number);
  return key;
}
// The number behind the table byte.
inline std::uint64_t number_of(std::string_view key) {
  return key.size() >= 9 ? load_be<std::uint64_t>(key.data() + 1) : 0;
}

inline std::string inode(InodeNo ino) { return numbered(kInode, ino.value()); }
inline std::string orphan(InodeNo ino) { return numbered(kOrphan, ino.value()); }
inline std::string node(NodeId id) { return numbered(kNode, id.value()); }
inline std::string node_refs(NodeId id) { return numbered(kNodeRefs, id.value()); }
inline std::string reclaim(NodeId id) { return numbered(kReclaim, id.value()); }
// A run of blocks with equally many references is filed under its LAST block, so that the first
// record at or behind a block is the one that may cover it.
inline std::string block_refs(BlockNo last) { return numbered(kBlockRefs, last.value()); }
inline std::string checksums(BlockNo block) {
  return numbered(kChecksums, block.value() / kChecksumsPerRecord);
}
inline std::string bitmap(std::uint64_t segment) { return numbered(kBitmap, segment); }
inline std::string counter(std::string_view name) { return std::string(1, kCounter).append(name); }

inline std::string long_operation(std::string_view name) {
  return std::string(1, kLongOperation).append(name);
}

// `cookie` is the entry's readdir cookie: hash of the name and a number among equals.
inline std::string dirent(InodeNo dir, std::uint64_t cookie) {
  std::string key = numbered(kDirent, dir.value());
  put_be(key, cookie);
  return key;
}
inline std::string xattr(InodeNo ino, std::string_view name) {
  return numbered(kXattr, ino.value()).append(name);
}
inline std::string token(const TokenId& id) {
  return std::string(1, kToken).append(reinterpret_cast<const char*>(id.data()), id.size());
}
inline std::string token_expiry(std::uint64_t expires_ns, const TokenId& id) {
  return numbered(kTokenExpiry, expires_ns)
      .append(reinterpret_cast<const char*>(id.data()), id.size());
}

}  // namespace odx::keys
