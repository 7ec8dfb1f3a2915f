// A small store with a bit of everything in it, the same in every process (random numbers and time
// are the target's), and fresh copies of it, each opened over records that the input has changed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.hpp"
#include "folder.hpp"
#include "input.hpp"
#include "map_kv.hpp"
#include "store/device/fault_device.hpp"
#include "store/store.hpp"

namespace odx::fuzz {

class StoreSample {
 public:
  enum class Content { kEmptyFiles, kEverything };
  explicit StoreSample(Content content);

  // As the store was when it was closed.
  [[nodiscard]] const Records& records() const { return records_; }
  [[nodiscard]] const Uuid& uuid() const { return uuid_; }
  [[nodiscard]] std::uint64_t blocks() const { return device_->blocks(); }
  [[nodiscard]] std::unique_ptr<FaultDevice> device() const { return device_->crashed_copy(0); }
  // The same for those who only read.
  [[nodiscard]] BlockDevice& shared_device() const { return *device_; }
  // The numbers of the files f0 to f3.
  [[nodiscard]] const std::array<InodeNo, 4>& files() const { return files_; }

  // The store's files as they were, with one journal batch that makes `changes`.
  void restore(const WriteSet& changes) const;
  // Of what restore() left. No thread of its own but the metadata's.
  Result<std::unique_ptr<Store>> open(std::unique_ptr<BlockDevice> device, const Clock& clock,
                                      bool read_only) const;

  static constexpr std::int64_t kNow = 1'700'000'000 * kNsPerSecond;

 private:
  void fill(Store& store, Content content);

  Folder folder_;
  ManualClock clock_{kNow};
  std::unique_ptr<FaultDevice> device_;
  Uuid uuid_{};
  Records records_;
  std::array<InodeNo, 4> files_{};
  std::string base_;  // of data.mdb
  std::uint64_t next_lsn_ = 0;
  std::uint64_t next_lap_ = 0;
  std::uint64_t next_offset_ = 0;
};

// The changes to the sample's records that the input asks for: some get lost, some other bytes,
// some are new.
[[nodiscard]] WriteSet changes_from(Input& in, const Records& sample);

}  // namespace odx::fuzz
