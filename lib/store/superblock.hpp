// The superblock: two 4 KiB files SUPER.0 and SUPER.1, written in turn with rising generations, so
// that one of them is always whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "base/types.hpp"

namespace odx {

inline constexpr std::uint32_t kFormatVersion = 1;

// The feature bits that this build knows; none so far. An unknown compat bit changes nothing, an
// unknown ro_compat bit allows reading only, an unknown incompat bit allows nothing.
inline constexpr std::uint64_t kKnownRoCompat = 0;
inline constexpr std::uint64_t kKnownIncompat = 0;
inline constexpr std::size_t kMaxLabelBytes = 31;

struct Superblock {
  std::uint64_t generation = 1;
  Uuid uuid{};
  std::string label;                 // at most 31 bytes
  std::uint32_t sector_bytes = 512;  // 512 to 4096, power of two
  std::uint64_t limit_blocks = 0;    // the store grows up to this many data blocks
  std::uint64_t compat = 0;
  std::uint64_t ro_compat = 0;
  std::uint64_t incompat = 0;

  // True if the store has a ro_compat feature that this build does not know.
  [[nodiscard]] bool read_only_features() const { return (ro_compat & ~kKnownRoCompat) != 0; }
};

// "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx".
[[nodiscard]] std::string to_text(const Uuid& uuid);

// The newest valid copy. ENOENT: no store there (neither file); corruption: both damaged;
// ENOTSUP: a version or an incompat feature that this build does not know (the text says which).
Result<Superblock> read_superblock(const std::string& store_dir);

// Both copies, each as it is; ENOENT where there is no file. For check.
struct SuperblockCopies {
  Result<Superblock> copy[2] = {Result<Superblock>(fail(ENOENT)), Result<Superblock>(fail(ENOENT))};
};
Result<SuperblockCopies> read_superblock_copies(const std::string& store_dir);

// Writes the copy that `super.generation` selects (odd and even in turn), durable on return.
// EINVAL if a field is out of its range.
Result<void> write_superblock(const std::string& store_dir, const Superblock& super);

}  // namespace odx
