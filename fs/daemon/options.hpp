// The command line of odxfs.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "store/device/segment_device.hpp"

namespace odx::daemon {

enum class AccessTime { kNever, kRelative, kStrict };

struct Options {
  std::string store;
  std::string mount_point;
  std::string subdir;  // what of the store is mounted, without slashes at the ends; empty: all
  bool join = false;   // if a daemon has the store mounted, this is one more mount point of it
  bool foreground = false;
  bool help = false;
  bool version = false;

  bool read_only = false;
  bool allow_other = false;       // always, for root
  unsigned long mount_flags = 0;  // MS_NODEV and the like; set below
  bool writeback = true;          // the kernel may keep written data for a while
  AccessTime access_time = AccessTime::kRelative;

  bool offload = true;
  bool extend = false;  // odx_extend
  bool tokens_bound_to_user = false;
  std::optional<std::chrono::milliseconds> ttl_max;
  std::optional<std::uint64_t> tokens_max;  // live, of all users
  std::optional<std::uint64_t> tokens_max_per_user;
  std::optional<std::uint64_t> pinned_max;  // bytes that live tokens stand for
  std::optional<std::uint64_t> pinned_max_per_user;

  SegmentDeviceOptions device;
  std::optional<std::chrono::milliseconds> flush_interval;

  Options();
};

// EINVAL, with a text to show, if something is not understood.
Result<Options> parse_command_line(int argc, const char* const* argv);

// One `-o` argument: options separated by commas.
Result<void> parse_mount_options(std::string_view list, Options& options);

[[nodiscard]] std::string_view usage_text();

}  // namespace odx::daemon
