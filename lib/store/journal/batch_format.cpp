#include "store/journal/batch_format.hpp"

#include <algorithm>
#include <cstring>

#include "base/codec.hpp"
#include "base/crc32c.hpp"

namespace odx::ring {

namespace {

constexpr std::string_view kHeaderMagic = "odxjHEAD";
constexpr std::string_view kContinuationMagic = "odxjCONT";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderCrcAt = 44;

constexpr std::uint64_t kFirstRoom = kBlockBytes - kHeaderBytes;
constexpr std::uint64_t kNextRoom = kBlockBytes - kContinuationBytes;

std::uint32_t header_crc(const Uuid& store, std::string_view header) {
  return crc32c(header.substr(0, kHeaderCrcAt), crc32c(store.data(), store.size()));
}

std::uint32_t payload_crc(const Uuid& store, Lsn lsn, std::uint64_t lap, std::string_view payload) {
  std::string salt;
  put_le(salt, lap);
  put_le(salt, lsn.value());
  return crc32c(payload, crc32c(salt, crc32c(store.data(), store.size())));
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::uint64_t batch_bytes(std::uint64_t payload_bytes) {
  if (payload_bytes <= kFirstRoom) {
    return kBlockBytes;
  }
  return kBlockBytes + round_up(payload_bytes - kFirstRoom, kNextRoom) / kNextRoom * kBlockBytes;
}

void encode(const Uuid& store, Lsn lsn, std::uint64_t lap, std::string_view payload,
            std::span<std::byte> out) {
  std::string mark(kHeaderMagic);
  put_le(mark, kVersion);
  put_le(mark, payload_crc(store, lsn, lap, payload));
  put_le(mark, lsn.value());
  put_le(mark, lap);
  put_le(mark, std::uint64_t{payload.size()});
  put_le(mark, std::uint32_t{0});
  put_le(mark, header_crc(store, mark));

  for (std::size_t at = 0; at < out.size(); at += kBlockBytes) {
    std::byte* block = out.data() + at;
    std::memcpy(block, mark.data(), mark.size());
    const std::size_t taken = std::min<std::size_t>(payload.size(), kBlockBytes - mark.size());
    std::memcpy(block + mark.size(), payload.data(), taken);
    std::memset(block + mark.size() + taken, 0, kBlockBytes - mark.size() - taken);
    payload.remove_prefix(taken);
    if (at == 0) {
      mark = kContinuationMagic;
      put_le(mark, lsn.value());
    }
  }
}

std::optional<Header> decode_header(const Uuid& store, std::span<const std::byte> block) {
  const std::string_view text = as_text(block);
  if (!text.starts_with(kHeaderMagic) ||
      load_le<std::uint32_t>(text.data() + kHeaderCrcAt) != header_crc(store, text)) {
    return std::nullopt;
  }
  Decoder in(text.substr(kHeaderMagic.size()));
  if (in.le<std::uint32_t>() != kVersion) {
    return std::nullopt;
  }
  Header header;
  header.payload_crc = in.le<std::uint32_t>();
  header.lsn = Lsn(in.le<std::uint64_t>());
  header.lap = in.le<std::uint64_t>();
  header.payload_bytes = in.le<std::uint64_t>();
  return header;
}

bool decode_payload(const Uuid& store, const Header& header, std::span<const std::byte> batch,
                    std::string& payload) {
  payload.clear();
  payload.reserve(header.payload_bytes);
  for (std::size_t at = 0; at < batch.size(); at += kBlockBytes) {
    const std::span<const std::byte> block = batch.subspan(at, kBlockBytes);
    if (at != 0 && !continues(block, header.lsn)) {
      return false;
    }
    const std::string_view room =
        as_text(block.subspan(at == 0 ? kHeaderBytes : kContinuationBytes));
    payload.append(room.substr(0, header.payload_bytes - payload.size()));
  }
  return payload.size() == header.payload_bytes &&
         payload_crc(store, header.lsn, header.lap, payload) == header.payload_crc;
}

bool continues(std::span<const std::byte> block, Lsn lsn) {
  const std::string_view text = as_text(block);
  return text.starts_with(kContinuationMagic) &&
         load_le<std::uint64_t>(text.data() + kContinuationMagic.size()) == lsn.value();
}

}  // namespace odx::ring
