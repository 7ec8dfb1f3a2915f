// The records of table `D`: one per directory entry. For Names and check only.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/inode/names.hpp"
#include "store/meta/kv.hpp"

namespace odx {

// Entries of one directory whose names hash alike: as many as the cookie's low bits can number.
inline constexpr std::uint64_t kMaxEqualHashes = 128;

// EINVAL: empty, or with a slash or NUL inside; ENAMETOOLONG. "." and ".." pass.
Result<void> check_name(std::string_view name);

// The first of the kMaxEqualHashes cookies that an entry of this name may have. At least 128.
[[nodiscard]] std::uint64_t first_cookie(const Uuid& store, std::string_view name);

// Corruption if the record is not one that add_entry() can have made in some store.
Result<DirectoryEntry> decode_entry(const KeyValue& record);

// `dir` has an entry for `name` in at most one record.
Result<std::optional<DirectoryEntry>> find_entry(const KvReader& kv, const Uuid& store, InodeNo dir,
                                                 std::string_view name);

// The name must not exist. ENOSPC if kMaxEqualHashes others hash alike.
Result<void> add_entry(KvOverlay& kv, const Uuid& store, InodeNo dir, std::string_view name,
                       InodeNo ino, std::uint32_t mode);
// Makes an existing entry lead to another inode; name and cookie stay.
void replace_entry(KvOverlay& kv, InodeNo dir, const DirectoryEntry& entry, InodeNo ino,
                   std::uint32_t mode);
void remove_entry(KvOverlay& kv, InodeNo dir, const DirectoryEntry& entry);

// Up to `limit` entries with cookies above `cookie`, in cookie order.
Result<std::vector<DirectoryEntry>> list_entries(const KvReader& kv, InodeNo dir,
                                                 std::uint64_t cookie, std::size_t limit);

}  // namespace odx
