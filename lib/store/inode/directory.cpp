// Directory entries are filed under directory and cookie. The cookie is 56 bits of a keyed hash of
// the name, then 7 bits that number the names of one directory that hash alike:
//
//   63 bits:  |------------- hash, never 0 -------------|-- number --|
//
// So one short range of keys answers a look-up, a listing is one range in cookie order, and a
// cookie never changes while its entry exists. Hash 0 is not used, which keeps all cookies at 128
// or more: below are the protocol's own (start, ".", ".."). The hash is SipHash under the store's
// uuid: nobody finds 128 names that keep one more name out of a shared directory.
#include "store/inode/directory.hpp"

#include <sodium.h>

#include <bitset>

#include "base/codec.hpp"
#include "store/meta/keys.hpp"

namespace odx {

namespace {

static_assert(std::tuple_size_v<Uuid> == crypto_shorthash_KEYBYTES);

constexpr unsigned kNumberBits = 7;
static_assert(kMaxEqualHashes == 1U << kNumberBits);
constexpr std::size_t kDirentKeyBytes = 1 + 8 + 8;
constexpr std::uint64_t kMaxCookie = INT64_MAX;

std::string encode(InodeNo ino, std::uint32_t mode, std::string_view name) {
  std::string value;
  value.reserve(12 + name.size());
  put_le(value, ino.value());
  put_le(value, static_cast<std::uint32_t>(mode & S_IFMT));
  value.append(name);
  return value;
}

bool known_type(std::uint32_t type) {
  return type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFCHR ||
         type == S_IFBLK || type == S_IFIFO || type == S_IFSOCK;
}

// All records that an entry of this name could be in, or share its hash with.
Result<std::vector<KeyValue>> scan_hash(const KvReader& kv, InodeNo dir, std::uint64_t first) {
  return kv.scan(keys::dirent(dir, first), keys::dirent(dir, first + kMaxEqualHashes),
                 kMaxEqualHashes);
}

}  // namespace

Result<void> check_name(std::string_view name) {
  if (name.empty() || name.find_first_of(std::string_view("/\0", 2)) != std::string_view::npos) {
    return fail(EINVAL);
  }
  if (name.size() > kMaxNameBytes) {
    return fail(ENAMETOOLONG);
  }
  return {};
}

std::uint64_t first_cookie(const Uuid& store, std::string_view name) {
  unsigned char digest[crypto_shorthash_BYTES];
  crypto_shorthash(digest, reinterpret_cast<const unsigned char*>(name.data()), name.size(),
                   store.data());
  const std::uint64_t hash = load_le<std::uint64_t>(digest) >> 8;
  return (hash == 0 ? 1 : hash) << kNumberBits;
}

Result<DirectoryEntry> decode_entry(const KeyValue& record) {
  Decoder in(record.value);
  DirectoryEntry entry;
  entry.ino = InodeNo(in.le<std::uint64_t>());
  entry.mode = in.le<std::uint32_t>();
  entry.name = in.bytes(in.remaining());
  if (in.failed() || record.key.size() != kDirentKeyBytes) {
    return corrupt("malformed directory entry");
  }
  entry.cookie = load_be<std::uint64_t>(record.key.data() + 9);
  if (entry.ino == InodeNo{} || !known_type(entry.mode) || !check_name(entry.name) ||
      entry.name == "." || entry.name == ".." || entry.cookie < kMaxEqualHashes ||
      entry.cookie > kMaxCookie) {
    return corrupt("impossible directory entry");
  }
  return entry;
}

Result<std::optional<DirectoryEntry>> find_entry(const KvReader& kv, const Uuid& store, InodeNo dir,
                                                 std::string_view name) {
  for (const KeyValue& record : ODX_TRY(scan_hash(kv, dir, first_cookie(store, name)))) {
    DirectoryEntry entry = ODX_TRY(decode_entry(record));
    if (entry.name == name) {
      return entry;
    }
  }
  return std::nullopt;
}

Result<void> add_entry(KvOverlay& kv, const Uuid& store, InodeNo dir, std::string_view name,
                       InodeNo ino, std::uint32_t mode) {
  const std::uint64_t first = first_cookie(store, name);
  std::bitset<kMaxEqualHashes> taken;
  for (const KeyValue& record : ODX_TRY(scan_hash(kv, dir, first))) {
    taken.set(ODX_TRY(decode_entry(record)).cookie - first);
  }
  for (std::uint64_t number = 0; number < kMaxEqualHashes; ++number) {
    if (!taken.test(number)) {
      kv.put(keys::dirent(dir, first + number), encode(ino, mode, name));
      return {};
    }
  }
  return fail(ENOSPC, "too many names of one directory hash alike");
}

void replace_entry(KvOverlay& kv, InodeNo dir, const DirectoryEntry& entry, InodeNo ino,
                   std::uint32_t mode) {
  kv.put(keys::dirent(dir, entry.cookie), encode(ino, mode, entry.name));
}

void remove_entry(KvOverlay& kv, InodeNo dir, const DirectoryEntry& entry) {
  kv.erase(keys::dirent(dir, entry.cookie));
}

Result<std::vector<DirectoryEntry>> list_entries(const KvReader& kv, InodeNo dir,
                                                 std::uint64_t cookie, std::size_t limit) {
  std::vector<DirectoryEntry> entries;
  if (cookie >= kMaxCookie || limit == 0) {
    return entries;
  }
  const std::vector<KeyValue> records =
      ODX_TRY(kv.scan(keys::dirent(dir, cookie + 1), keys::dirent(dir, kMaxCookie + 1), limit));
  entries.reserve(records.size());
  for (const KeyValue& record : records) {
    entries.push_back(ODX_TRY(decode_entry(record)));
  }
  return entries;
}

}  // namespace odx
