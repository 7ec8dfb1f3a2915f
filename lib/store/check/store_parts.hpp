// The parts of a store below its state: superblocks, files of data, lock, metadata base. For check/
// only.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "store/check/check.hpp"
#include "store/meta/meta_store.hpp"
#include "store/superblock.hpp"

namespace odx::check {

struct Superblocks {
  std::optional<Superblock> newest;  // nothing: neither copy says what the store is
  std::vector<std::string> problems;
  // The newest one, written with these generations in this order, mends all that can be mended.
  std::vector<std::uint64_t> generations;
};
// Fails where this build may not look further: no store, a version or a feature from the future.
Result<Superblocks> check_superblocks(const std::string& dir);

// Holds LOCK shared or (for a repair) exclusively: EBUSY if a daemon has the store. A reader may
// find that there is no lock file yet.
Result<Fd> lock_parts(const std::string& dir, bool exclusive);

struct Segments {
  std::uint64_t blocks = 0;  // as if nothing were missing
  std::uint64_t files = 0;
  std::vector<std::string> problems;
  // Files that must be at least this long, in bytes: what is missing of them, or all.
  struct Wanted {
    std::string path;
    std::uint64_t bytes;
  };
  std::vector<Wanted> wanted;
};
// `needed_blocks`: what the state names must exist.
Result<Segments> check_segments(const std::string& dir, std::uint64_t needed_blocks);

// Whether an error says that something is damaged or missing, rather than that this process could
// not do its work.
[[nodiscard]] bool is_damage(const Error& error);

}  // namespace odx::check
