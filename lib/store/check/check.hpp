// Consistency check of a store: recounts everything that the store counts, from the records alone,
// and names each difference.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/device/block_device.hpp"
#include "store/meta/kv.hpp"

namespace odx {

struct CheckOptions {
  bool data = false;  // also read every block in use and compare it with its checksum
  // Told now and then, by the calling thread: what is being looked at, and how much of it is done
  // (of `total`; 0 where that is not known).
  std::function<void(std::string_view what, std::uint64_t done, std::uint64_t total)> progress;
  std::size_t max_problems = 1000;  // further ones are counted, not described
};

struct CheckReport {
  std::uint64_t inodes = 0;
  std::uint64_t directories = 0;  // of the inodes
  std::uint64_t entries = 0;
  std::uint64_t xattrs = 0;
  std::uint64_t orphans = 0;
  std::uint64_t tokens = 0;
  std::uint64_t nodes = 0;
  std::uint64_t queued = 0;          // subtrees that wait for the reclaimer
  std::uint64_t extents = 0;         // leaf entries that are not holes
  std::uint64_t blocks = 0;          // that exist
  std::uint64_t end_of_extents = 0;  // behind the last block that anything names
  std::uint64_t used_blocks = 0;
  std::uint64_t data_bytes = 0;       // of all files, holes left out, sharing not
  std::uint64_t verified_blocks = 0;  // read and found to match their checksum

  // Of the store's journal; left alone by check_state().
  std::uint64_t replayed_batches = 0;
  std::uint64_t segments = 0;  // files of data

  std::vector<std::string> problems;  // one line each
  std::uint64_t problem_count = 0;
  [[nodiscard]] bool clean() const { return problem_count == 0; }
};

// Checks a store that nobody has mounted (EBUSY); changes nothing, replays the journal in memory.
// Damage is part of the report, whatever it is; an error means that the check could not be made.
Result<CheckReport> check_store(const std::string& dir, const CheckOptions& options);

// What check_store() looks at once it has opened everything. Must not change meanwhile.
struct CheckSubject {
  const KvReader& kv;
  Uuid store{};
  std::uint64_t blocks = 0;       // of the device
  BlockDevice* device = nullptr;  // needed for CheckOptions::data only
};
Result<CheckReport> check_state(const CheckSubject& subject, const CheckOptions& options);

}  // namespace odx
