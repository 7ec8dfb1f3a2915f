// A store, opened: the one object that a daemon, a tool or a test works with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "store/check/online_check.hpp"
#include "store/check/scrub.hpp"
#include "store/core.hpp"
#include "store/device/segment_device.hpp"
#include "store/inode/files.hpp"
#include "store/inode/names.hpp"
#include "store/meta/meta_store.hpp"
#include "store/token/tokens.hpp"

namespace odx {

class Background;
struct ResizeReport;

struct FormatOptions {
  std::uint64_t limit_bytes = 0;  // 0: nine tenths of the host's free space
  std::uint32_t sector_bytes = 512;
  std::string label;
  std::uint64_t journal_bytes = 256ULL << 20;
  // The root directory's owner.
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
};

struct OpenOptions {
  bool read_only = false;  // nothing on disk changes; the journal is replayed in memory
  SegmentDeviceOptions device;
  MetaOptions meta;
  TokenOptions tokens;
  ScrubOptions scrub;
  const Clock* clock = &Clock::system();
  // For tests: used instead of the segments below data/.
  std::unique_ptr<BlockDevice> test_device;
  // False: no reclaimer thread; the test calls reclaim() itself.
  bool background = true;
};

class Store {
 public:
  // Makes a store in `dir`, which must be missing or empty (ENOTEMPTY), with an empty root
  // directory. `dir` holds nothing on failure.
  static Result<void> format(const std::string& dir, const FormatOptions& options);

  // EBUSY: another process has it open (the text names its pid). Otherwise as read_superblock().
  // Recovers from a crash, frees orphans, starts the background threads.
  static Result<std::unique_ptr<Store>> open(const std::string& dir, OpenOptions options);

  // Saves the free-space bitmaps, checkpoints and closes. Without it (a crash), the destructor
  // leaves the disk as it is.
  Result<void> close();
  ~Store();

  Names& names() { return names_; }
  Files& files() { return files_; }
  Tokens& tokens() { return tokens_; }
  Scrub& scrub() { return scrub_; }
  OnlineCheck& online_check() { return online_check_; }
  Core& core() { return core_; }

  // Works through the reclaim queue until it is empty; for tests and before giving up on space.
  Result<void> reclaim();

  // As in host_space.hpp.
  Result<void> resize(std::uint64_t bytes, ResizeReport& report);

  // Everything of odx_stat that the store knows.
  void fill_statistics(odx_stat& out);

 private:
  Store(const Store&) = delete;
  Store(std::string dir, OpenOptions& options);
  Result<void> start(OpenOptions& options);
  // What the memory has of the state: free space, tokens, the reclaim queue.
  Result<void> load_state();

  std::string dir_;
  Fd lock_;
  Core core_;
  Names names_;
  Files files_;
  Tokens tokens_;
  Scrub scrub_;
  OnlineCheck online_check_;
  std::unique_ptr<Background> background_;
};

}  // namespace odx
