// The content of regular files. Every call may be made from any thread at once; a call that
// changes data is one transaction, and is seen wholly or not at all.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/core.hpp"
#include "store/inode/inode.hpp"

namespace odx {

class Files {
 public:
  explicit Files(Core& core) : core_(core) {}

  // Fills `into` from `at` on, cut at the end of the file; answers with the bytes read. Fastest if
  // `into` is page-aligned, `at` is a multiple of 4096 and the span a whole number of pages. Bytes
  // of `into` behind the answer may be overwritten.
  Result<std::size_t> read(InodeNo ino, FileOffset at, std::span<std::byte> into);

  // For all calls that change content.
  struct WriteOptions {
    bool drop_set_id = false;  // as in AttrChange
    bool keep_times = false;   // the caller says later when the file was modified
  };

  // Writes all of `from` (at most 16 MiB), extending the file as needed. ENOSPC is decided here.
  // Fastest if `from` is page-aligned and `at` a multiple of 4096.
  Result<void> write(InodeNo ino, FileOffset at, std::span<const std::byte> from,
                     WriteOptions options);
  Result<void> write(InodeNo ino, FileOffset at, std::span<const std::byte> from) {
    return write(ino, at, from, WriteOptions{});
  }

  Result<InodePtr> truncate(InodeNo ino, std::uint64_t bytes, WriteOptions options);
  Result<InodePtr> truncate(InodeNo ino, std::uint64_t bytes) {
    return truncate(ino, bytes, WriteOptions{});
  }

  enum class AllocateMode {
    kReserve,    // a promise of space is not possible on a store that never overwrites: checks
                 // that there is room now and extends the file (unless keep_size) with a hole
    kPunchHole,  // keep_size is implied
    kZeroRange,  // a hole as well: reads as zeros, needs no space
    kCollapse,   // the range must end before the end of the file
    kInsert,     // `at` must be inside the file
  };
  Result<InodePtr> allocate(InodeNo ino, AllocateMode mode, bool keep_size, FileOffset at,
                            std::uint64_t bytes, WriteOptions options);
  Result<InodePtr> allocate(InodeNo ino, AllocateMode mode, bool keep_size, FileOffset at,
                            std::uint64_t bytes) {
    return allocate(ino, mode, keep_size, at, bytes, WriteOptions{});
  }

  // SEEK_DATA and SEEK_HOLE; ENXIO as lseek(2).
  Result<FileOffset> seek_data(InodeNo ino, FileOffset at);
  Result<FileOffset> seek_hole(InodeNo ino, FileOffset at);

  // Shares [from_at, from_at + bytes) of one file into another (or the same; overlap is allowed:
  // the source is read before the destination changes), cut at the end of the source, extending
  // the destination as needed. Holes stay holes. Answers with the bytes copied (0 at or behind the
  // end) and how many of them now name shared extents.
  struct Copied {
    std::uint64_t bytes = 0;
    std::uint64_t shared = 0;
  };
  Result<Copied> copy_range(InodeNo from, FileOffset from_at, InodeNo to, FileOffset to_at,
                            std::uint64_t bytes, WriteOptions options);
  Result<Copied> copy_range(InodeNo from, FileOffset from_at, InodeNo to, FileOffset to_at,
                            std::uint64_t bytes) {
    return copy_range(from, from_at, to, to_at, bytes, WriteOptions{});
  }

  // Makes everything that was committed for this inode before the call durable.
  Result<void> sync(InodeNo ino);

 private:
  Core& core_;
};

}  // namespace odx
