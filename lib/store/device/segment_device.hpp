// BlockDevice over segment files `data/NNNN.seg`.
#pragma once

#include <memory>
#include <string>

#include "store/device/block_device.hpp"

namespace odx {

enum class IoMode { kDirect, kBuffered };  // O_DIRECT falls back to buffered where the host refuses
enum class IoEngineKind { kUring, kSync };  // io_uring falls back to pread/pwrite where forbidden

struct SegmentDeviceOptions {
  IoMode mode = IoMode::kDirect;
  IoEngineKind engine = IoEngineKind::kUring;
  bool read_only = false;
};

// Opens all segments below `data_dir` (an existing directory), in number order; other names are
// ignored. Fails with corruption if one is missing in the middle, one has no whole block, or one
// before the last is shorter than kSegmentBlocks. A part of a block at the end of the last one is
// what a crash left of its growth, and does not count.
Result<std::unique_ptr<BlockDevice>> open_segment_device(const std::string& data_dir,
                                                         const SegmentDeviceOptions& options);

// The same with an engine of the caller's, for tests; options.engine is ignored.
class IoEngine;
Result<std::unique_ptr<BlockDevice>> open_segment_device(const std::string& data_dir,
                                                         const SegmentDeviceOptions& options,
                                                         std::unique_ptr<IoEngine> engine);

}  // namespace odx
