#include "acl.hpp"

#include <algorithm>

#include "base/codec.hpp"

namespace odx::daemon {

namespace {

constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kEntryBytes = 8;
enum Tag : std::uint16_t {
  kUserObj = 0x01,
  kUser = 0x02,
  kGroupObj = 0x04,
  kGroup = 0x08,
  kMask = 0x10,
  kOther = 0x20,
};

}  // namespace

std::optional<Acl> Acl::decode(std::string_view xattr) {
  Decoder in(xattr);
  if (in.le<std::uint32_t>() != kVersion || in.remaining() % kEntryBytes != 0) {
    return std::nullopt;
  }
  Acl acl;
  bool named = false;
  while (in.remaining() > 0) {
    Entry entry;
    entry.tag = in.le<std::uint16_t>();
    entry.permissions = in.le<std::uint16_t>();
    entry.id = in.le<std::uint32_t>();
    if (entry.permissions > 7) {
      return std::nullopt;
    }
    named = named || entry.tag == kUser || entry.tag == kGroup;
    acl.entries_.push_back(entry);
  }
  if (acl.find(kUserObj) == nullptr || acl.find(kGroupObj) == nullptr ||
      acl.find(kOther) == nullptr || (named && acl.find(kMask) == nullptr)) {
    return std::nullopt;
  }
  return acl;
}

std::string Acl::encode() const {
  std::string out;
  put_le(out, kVersion);
  for (const Entry& entry : entries_) {
    put_le(out, entry.tag);
    put_le(out, entry.permissions);
    put_le(out, entry.id);
  }
  return out;
}

const Acl::Entry* Acl::find(std::uint16_t tag) const {
  const auto at = std::ranges::find(entries_, tag, &Entry::tag);
  return at == entries_.end() ? nullptr : &*at;
}

Acl::Entry* Acl::find(std::uint16_t tag) {
  return const_cast<Entry*>(static_cast<const Acl*>(this)->find(tag));
}

std::uint16_t Acl::group_tag() const {
  return find(kMask) != nullptr ? std::uint16_t{kMask} : std::uint16_t{kGroupObj};
}

bool Acl::is_trivial() const { return entries_.size() == 3; }

std::uint32_t Acl::permissions() const {
  return static_cast<std::uint32_t>(find(kUserObj)->permissions << 6 |
                                    find(group_tag())->permissions << 3 |
                                    find(kOther)->permissions);
}

Acl Acl::inherited(std::uint32_t mode) const {
  Acl acl = *this;
  acl.find(kUserObj)->permissions &= static_cast<std::uint16_t>((mode >> 6) & 7);
  acl.find(group_tag())->permissions &= static_cast<std::uint16_t>((mode >> 3) & 7);
  acl.find(kOther)->permissions &= static_cast<std::uint16_t>(mode & 7);
  return acl;
}

Acl Acl::with_permissions(std::uint32_t mode) const {
  Acl acl = *this;
  acl.find(kUserObj)->permissions = static_cast<std::uint16_t>((mode >> 6) & 7);
  acl.find(group_tag())->permissions = static_cast<std::uint16_t>((mode >> 3) & 7);
  acl.find(kOther)->permissions = static_cast<std::uint16_t>(mode & 7);
  return acl;
}

}  // namespace odx::daemon
