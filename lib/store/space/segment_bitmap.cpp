#include "store/space/segment_bitmap.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/types.hpp"

namespace odx {

namespace {

constexpr std::uint64_t kWordBits = 64;
constexpr std::uint64_t kGroupBlocks = 4096;
constexpr std::uint64_t kGroupWords = kGroupBlocks / kWordBits;
constexpr std::uint64_t kAllOnes = ~std::uint64_t{0};

std::uint64_t units(std::uint64_t count, std::uint64_t unit) { return (count + unit - 1) / unit; }

std::uint64_t bit_of(std::uint64_t index) { return std::uint64_t{1} << (index % kWordBits); }

// Calls visit(word, mask) for each word that the range touches; the mask has the range's bits.
template <class Visit>
void for_each_word(SegmentBitmap::Range range, Visit visit) {
  std::uint64_t at = range.first;
  while (at < range.end()) {
    const std::uint64_t bit = at % kWordBits;
    const std::uint64_t take = std::min(kWordBits - bit, range.end() - at);
    const std::uint64_t ones = take == kWordBits ? kAllOnes : (std::uint64_t{1} << take) - 1;
    visit(at / kWordBits, ones << bit);
    at += take;
  }
}

std::uint64_t ones_in(std::uint64_t bits) {
  return static_cast<std::uint64_t>(std::popcount(bits));
}

}  // namespace

SegmentBitmap::SegmentBitmap(std::uint64_t blocks)
    : blocks_(blocks),
      free_(blocks),
      used_(units(blocks, kWordBits), 0),
      pending_bits_(used_.size(), 0),
      free_in_group_(units(blocks, kGroupBlocks), static_cast<std::uint16_t>(kGroupBlocks)) {
  if (const std::uint64_t rest = blocks % kWordBits; rest != 0) {
    used_.back() = kAllOnes << rest;
  }
  if (const std::uint64_t rest = blocks % kGroupBlocks; rest != 0) {
    free_in_group_.back() = static_cast<std::uint16_t>(rest);
  }
}

bool SegmentBitmap::is_free(std::uint64_t index) const {
  return (used_[index / kWordBits] & bit_of(index)) == 0;
}

SegmentBitmap::Range SegmentBitmap::find_free(std::uint64_t from, std::uint64_t limit,
                                              std::uint64_t want) const {
  std::uint64_t at = from;
  while (at < limit) {
    if (free_in_group_[at / kGroupBlocks] == 0) {
      at = round_down(at, kGroupBlocks) + kGroupBlocks;
      continue;
    }
    const std::uint64_t free_bits = ~used_[at / kWordBits] & (kAllOnes << (at % kWordBits));
    if (free_bits == 0) {
      at = round_down(at, kWordBits) + kWordBits;
      continue;
    }
    const std::uint64_t first =
        round_down(at, kWordBits) + static_cast<std::uint64_t>(std::countr_zero(free_bits));
    if (first >= limit) {
      break;
    }
    return {first, find_used(first, first + std::min(want, limit - first)) - first};
  }
  return {};
}

void SegmentBitmap::resize(std::uint64_t blocks) {
  SegmentBitmap resized(blocks);
  const std::uint64_t kept = std::min(blocks, blocks_);
  for (std::uint64_t at = 0; at < kept;) {
    const std::uint64_t first = find_used(at, kept);
    const Range free = find_free(first, kept, 1);
    const std::uint64_t end = free.count == 0 ? kept : free.first;
    resized.mark_used({first, end - first});
    at = end;
  }
  std::copy(pending_bits_.begin(),
            pending_bits_.begin() + static_cast<std::ptrdiff_t>(std::min(
                                        pending_bits_.size(), resized.pending_bits_.size())),
            resized.pending_bits_.begin());
  resized.pending_ = pending_;
  *this = std::move(resized);
}

std::uint64_t SegmentBitmap::find_used(std::uint64_t from, std::uint64_t limit) const {
  std::uint64_t at = from;
  while (at < limit) {
    const std::uint64_t used_bits = used_[at / kWordBits] & (kAllOnes << (at % kWordBits));
    at = round_down(at, kWordBits);
    if (used_bits != 0) {
      return std::min(limit, at + static_cast<std::uint64_t>(std::countr_zero(used_bits)));
    }
    at += kWordBits;
  }
  return limit;
}

std::uint64_t SegmentBitmap::used_from(std::uint64_t from) const {
  if (from == 0) {
    return blocks_ - free_;
  }
  std::uint64_t used = 0;
  for (std::uint64_t at = from; at < blocks_;) {
    std::uint64_t bits = used_[at / kWordBits] & (kAllOnes << (at % kWordBits));
    const std::uint64_t next = round_down(at, kWordBits) + kWordBits;
    if (next > blocks_) {  // those behind the last block do not count
      bits &= kAllOnes >> (next - blocks_);
    }
    used += static_cast<std::uint64_t>(std::popcount(bits));
    at = next;
  }
  return used;
}

std::uint64_t SegmentBitmap::mark_used(Range range) {
  std::uint64_t were_free = 0;
  for_each_word(range, [&](std::uint64_t word, std::uint64_t mask) {
    const std::uint64_t taken = ones_in(mask & ~used_[word]);
    used_[word] |= mask;
    free_in_group_[word / kGroupWords] =
        static_cast<std::uint16_t>(free_in_group_[word / kGroupWords] - taken);
    were_free += taken;
  });
  free_ -= were_free;
  return were_free;
}

void SegmentBitmap::use(Range free_range) { ODX_CHECK(mark_used(free_range) == free_range.count); }

void SegmentBitmap::give_back(std::uint64_t word, std::uint64_t mask) {
  used_[word] &= ~mask;
  const std::uint64_t freed = ones_in(mask);
  free_in_group_[word / kGroupWords] =
      static_cast<std::uint16_t>(free_in_group_[word / kGroupWords] + freed);
  free_ += freed;
}

void SegmentBitmap::free(Range used_range) {
  for_each_word(used_range, [&](std::uint64_t word, std::uint64_t mask) {
    ODX_CHECK((used_[word] & mask) == mask);
    ODX_CHECK((pending_bits_[word] & mask) == 0);
    give_back(word, mask);
  });
}

void SegmentBitmap::defer(Range used_range) {
  for_each_word(used_range, [&](std::uint64_t word, std::uint64_t mask) {
    ODX_CHECK((used_[word] & mask) == mask);
    ODX_CHECK((pending_bits_[word] & mask) == 0);
    pending_bits_[word] |= mask;
  });
  pending_ += used_range.count;
}

bool SegmentBitmap::all_used(Range range) const {
  bool all = true;
  for_each_word(range, [&](std::uint64_t word, std::uint64_t mask) {
    all = all && (used_[word] & mask) == mask && (pending_bits_[word] & mask) == 0;
  });
  return all;
}

void SegmentBitmap::settle(Range pending_range) {
  for_each_word(pending_range, [&](std::uint64_t word, std::uint64_t mask) {
    ODX_CHECK((pending_bits_[word] & mask) == mask);
    pending_bits_[word] &= ~mask;
    give_back(word, mask);
  });
  pending_ -= pending_range.count;
}

std::string SegmentBitmap::save() const {
  std::string bitmap(units(blocks_, 8), '\0');
  // Words are little-endian, so their bytes in memory are the bitmap.
  std::memcpy(bitmap.data(), used_.data(), bitmap.size());
  if (const std::uint64_t rest = blocks_ % 8; rest != 0) {
    bitmap.back() =
        static_cast<char>(static_cast<unsigned char>(bitmap.back()) & ((1U << rest) - 1));
  }
  return bitmap;
}

Result<void> SegmentBitmap::load(std::string_view bitmap) {
  ODX_CHECK(pending_ == 0);
  if (bitmap.size() != units(blocks_, 8)) {
    return corrupt("free-space bitmap has the wrong size");
  }
  if (blocks_ % 8 != 0 && static_cast<unsigned char>(bitmap.back()) >> (blocks_ % 8) != 0) {
    return corrupt("free-space bitmap names blocks behind the end of its segment");
  }
  SegmentBitmap loaded(blocks_);
  std::vector<std::uint64_t> words(used_.size(), 0);
  std::memcpy(words.data(), bitmap.data(), bitmap.size());
  for (std::uint64_t word = 0; word < words.size(); ++word) {
    const std::uint64_t taken = words[word];
    loaded.used_[word] |= taken;
    loaded.free_in_group_[word / kGroupWords] =
        static_cast<std::uint16_t>(loaded.free_in_group_[word / kGroupWords] - ones_in(taken));
    loaded.free_ -= ones_in(taken);
  }
  *this = std::move(loaded);
  return {};
}

}  // namespace odx
