#include "store/meta/batch.hpp"

#include <algorithm>
#include <utility>

#include "base/codec.hpp"
#include "store/meta/kv.hpp"

namespace odx {

namespace {

constexpr std::uint8_t kVersion = 1;
constexpr std::uint32_t kDeleted = 0xFFFFFFFF;
constexpr std::uint64_t kChangeBytes = 6;  // the two lengths

}  // namespace

void OpenBatch::reserve(std::size_t more) {
  const std::size_t wanted = changes_.size() + more;
  if (wanted > changes_.capacity()) {
    changes_.reserve(std::max(wanted, 2 * changes_.capacity()));
  }
}

void OpenBatch::add(Memtable::Map::iterator at) {
  Memtable::Entry& entry = at->second;
  if (entry.batch == number_) {
    SharedValue& value = changes_[entry.slot].value;
    payload_bytes_ -= value ? value->size() : 0;
    value = entry.value;
  } else {
    entry.batch = number_;
    entry.slot = changes_.size();
    changes_.push_back({&at->first, entry.value});
    payload_bytes_ += kChangeBytes + at->first.size();
  }
  payload_bytes_ += entry.value ? entry.value->size() : 0;
}

SealedBatch OpenBatch::seal(std::shared_ptr<const Memtable> keys) {
  ++number_;
  return {std::move(keys), std::exchange(changes_, {}), std::exchange(payload_bytes_, kEmptyBytes)};
}

void SealedBatch::encode(std::string& payload) const {
  payload.clear();
  payload.reserve(payload_bytes);
  put_le(payload, kVersion);
  put_le(payload, static_cast<std::uint32_t>(changes.size()));
  for (const Change& change : changes) {
    put_le(payload, static_cast<std::uint16_t>(change.key->size()));
    put_le(payload, change.value ? static_cast<std::uint32_t>(change.value->size()) : kDeleted);
    payload += *change.key;
    if (change.value) {
      payload += *change.value;
    }
  }
  ODX_CHECK(payload.size() == payload_bytes);
}

Result<void> decode_batch(std::string_view payload,
                          const std::function<void(std::string, SharedValue)>& change) {
  Decoder in(payload);
  if (in.le<std::uint8_t>() != kVersion) {
    return corrupt("journal batch of an unknown version");
  }
  const auto count = in.le<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && !in.failed(); ++i) {
    const auto key_bytes = in.le<std::uint16_t>();
    const auto value_bytes = in.le<std::uint32_t>();
    const std::string_view key = in.bytes(key_bytes);
    const std::string_view value = in.bytes(value_bytes == kDeleted ? 0 : value_bytes);
    if (!in.failed()) {
      // Never from a commit, and LMDB (or what the store keeps there for itself) would suffer.
      if (!key_is_valid(key) || value.size() > kMaxValueBytes) {
        return corrupt("impossible key or value in a journal batch");
      }
      change(std::string(key),
             value_bytes == kDeleted ? nullptr : std::make_shared<const std::string>(value));
    }
  }
  return in.finish("journal batch");
}

}  // namespace odx
