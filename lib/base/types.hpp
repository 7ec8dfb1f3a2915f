// Strong integer types shared by the whole store. A number that counts blocks and a number that
// counts bytes must not meet by accident, so each has its own type; `.value()` is the one way out.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace odx {

// An opaque 64-bit name: equality, order, hashing, no arithmetic.
template <class Tag>
class Id {
 public:
  constexpr Id() = default;
  constexpr explicit Id(std::uint64_t value) : value_(value) {}
  [[nodiscard]] constexpr std::uint64_t value() const { return value_; }
  friend constexpr auto operator<=>(Id, Id) = default;

 private:
  std::uint64_t value_ = 0;
};

// A position on a line: positions differ by plain distances, and a distance moves a position.
template <class Tag>
class Position {
 public:
  constexpr Position() = default;
  constexpr explicit Position(std::uint64_t value) : value_(value) {}
  [[nodiscard]] constexpr std::uint64_t value() const { return value_; }
  friend constexpr auto operator<=>(Position, Position) = default;

  constexpr Position& operator+=(std::uint64_t distance) {
    value_ += distance;
    return *this;
  }
  friend constexpr Position operator+(Position at, std::uint64_t distance) {
    return Position(at.value_ + distance);
  }
  friend constexpr Position operator-(Position at, std::uint64_t distance) {
    return Position(at.value_ - distance);
  }
  friend constexpr std::uint64_t operator-(Position to, Position from) {
    return to.value_ - from.value_;
  }

 private:
  std::uint64_t value_ = 0;
};

using InodeNo = Id<struct InodeNoTag>;
using NodeId = Id<struct NodeIdTag>;  // an extent-tree node; never reused
using Lsn = Position<struct LsnTag>;  // a journal batch; consecutive from 1
using TxnSeq = Position<struct TxnSeqTag>;  // a committed transaction, consecutive from 1 per mount
using BlockNo = Position<struct BlockNoTag>;  // a 4 KiB block of the store, over all segments
using FileOffset = Position<struct FileOffsetTag>;  // bytes from the start of a file
using PhysAddr = Position<struct PhysAddrTag>;  // bytes from the start of block 0

inline constexpr std::uint64_t kBlockBytes = 4096;
inline constexpr std::uint64_t kSegmentBlocks = (1ULL << 30) / kBlockBytes;
inline constexpr InodeNo kRootInode{1};
// Largest offset any file can have: off_t is signed.
inline constexpr std::uint64_t kMaxFileBytes = INT64_MAX;

[[nodiscard]] constexpr BlockNo block_of(PhysAddr at) { return BlockNo(at.value() / kBlockBytes); }
[[nodiscard]] constexpr PhysAddr address_of(BlockNo block) {
  return PhysAddr(block.value() * kBlockBytes);
}
[[nodiscard]] constexpr std::uint64_t round_down(std::uint64_t n, std::uint64_t unit) {
  return n / unit * unit;
}
// Wraps to 0 only when n is within `unit` of 2^64; callers bound n first.
[[nodiscard]] constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t unit) {
  return (n + unit - 1) / unit * unit;
}

// A run of consecutive blocks.
struct BlockRun {
  BlockNo first;
  std::uint64_t count = 0;
  [[nodiscard]] BlockNo end() const { return first + count; }
  friend bool operator==(const BlockRun&, const BlockRun&) = default;
};

using Uuid = std::array<std::uint8_t, 16>;
using TokenId = std::array<std::uint8_t, 16>;

}  // namespace odx

template <class Tag>
struct std::hash<odx::Id<Tag>> {
  std::size_t operator()(odx::Id<Tag> id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value() * 0x9E3779B97F4A7C15ULL);
  }
};
