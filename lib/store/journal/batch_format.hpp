// One batch of the ring as bytes; the tables are in store/FORMAT.md.
//
// Every block of a batch begins with a mark of ours: the header in the first one, a continuation
// mark in the others. Payload (which holds bytes that users chose) thus never stands where a reader
// of the ring looks for a header, so nobody can write a value that a replay takes for a batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/types.hpp"

namespace odx::ring {

inline constexpr std::uint64_t kHeaderBytes = 48;
inline constexpr std::uint64_t kContinuationBytes = 16;

struct Header {
  Lsn lsn;
  std::uint64_t lap = 0;
  std::uint64_t payload_bytes = 0;
  std::uint32_t payload_crc = 0;
};

// Bytes of ring that a payload takes, whole blocks. `payload_bytes` below 2^60.
[[nodiscard]] std::uint64_t batch_bytes(std::uint64_t payload_bytes);

// Fills `out`, batch_bytes(payload.size()) long.
void encode(const Uuid& store, Lsn lsn, std::uint64_t lap, std::string_view payload,
            std::span<std::byte> out);

// The header in this block, if it holds an intact one of this store.
[[nodiscard]] std::optional<Header> decode_header(const Uuid& store,
                                                  std::span<const std::byte> block);

// Takes the payload out of a whole batch into `payload`; false if it is not intact.
[[nodiscard]] bool decode_payload(const Uuid& store, const Header& header,
                                  std::span<const std::byte> batch, std::string& payload);

// Whether this block claims to continue batch `lsn`. Not protected by a checksum: a hint.
[[nodiscard]] bool continues(std::span<const std::byte> block, Lsn lsn);

}  // namespace odx::ring
