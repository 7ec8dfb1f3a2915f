// Purpose: one line of blocks over files of up to 1 GiB each, `0000.seg`, `0001.seg`, ...
//
// Block b is block b % kSegmentBlocks of segment b / kSegmentBlocks; that needs every segment but
// the last to be full size, which opening checks. A new segment is made under another name and
// renamed when it is complete and durable, so a crash never leaves a short one behind.
//
// Durability. Every segment counts the writes that have completed on it. sync() flushes a segment
// if its count differs from the one seen when its last successful flush began; a write counts
// before it returns, so whatever returned before sync() began is covered. Flushes take turns:
// the kernel reports a lost write to one fdatasync per descriptor only, so a second flush beside
// the one that gets the error would see success. After any failed flush the kernel may have
// dropped what it could not write, so the device fails every later sync() until it is opened
// again.
//
// The last segment may be made longer, and the end of the line may be cut off. A size that was
// never made durable may be found at the next open, and its blocks used: opening syncs the last
// segment for that. What is not a whole block at its end was never used.
//
// Locks: grow_mutex_ (held over growth and cuts) comes before sync_mutex_ (held over fdatasync);
// table_mutex_ is the leaf, guards the table only and is never held over I/O. Whoever uses a
// segment without the lock shares in it, so that its descriptor outlives a cut.
#include "store/device/segment_device.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string_view>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "base/fd.hpp"
#include "store/device/io_engine.hpp"

namespace odx {

namespace {

constexpr std::string_view kSuffix = ".seg";
constexpr const char* kUnfinishedName = "new.seg";
constexpr mode_t kFileMode = 0600;

std::string segment_name(std::size_t number) { return fmt::format("{:04}{}", number, kSuffix); }

// The number in a segment's file name; nothing for any other name.
std::optional<std::size_t> segment_number(std::string_view name) {
  if (!name.ends_with(kSuffix)) {
    return std::nullopt;
  }
  name.remove_suffix(kSuffix.size());
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc{} || end != name.data() + name.size() ||
      segment_name(number) != std::string(name) + std::string(kSuffix)) {
    return std::nullopt;
  }
  return number;
}

struct Segment {
  Segment(Fd file, std::uint64_t size_blocks) : fd(std::move(file)), blocks(size_blocks) {}

  const Fd fd;
  std::atomic<std::uint64_t> blocks;
  std::atomic<std::uint64_t> writes{0};  // completed
  std::uint64_t synced_writes = 0;       // of those, known durable; under sync_mutex_
};

class SegmentDevice final : public BlockDevice {
 public:
  SegmentDevice(Fd directory, const SegmentDeviceOptions& options, std::unique_ptr<IoEngine> engine)
      : directory_(std::move(directory)),
        read_only_(options.read_only),
        direct_(options.mode == IoMode::kDirect),
        engine_(std::move(engine)) {}

  Result<void> open_segments();

  [[nodiscard]] std::uint64_t blocks() const override { return blocks_.load(); }
  Result<void> read(std::span<const BlockRead> runs) override;
  Result<void> write(std::span<const BlockWrite> runs) override;
  Result<void> sync() override;
  Result<void> add_segment(std::uint64_t blocks) override;
  Result<void> extend(std::uint64_t blocks) override;
  Result<void> cut(std::uint64_t blocks) override;
  [[nodiscard]] bool can_discard() const override { return can_discard_.load(); }
  Result<void> back(std::span<const BlockRun> runs) override;
  std::vector<BlockRun> holes() override;
  void discard(std::span<const BlockRun> runs) override;
  [[nodiscard]] std::uint64_t host_free_bytes() const override;

 private:
  using SegmentPtr = std::shared_ptr<Segment>;
  struct Place {
    SegmentPtr segment;
    std::uint64_t offset;  // bytes into the segment
    std::uint64_t bytes;
  };

  [[nodiscard]] bool contains(BlockRun run) const;
  [[nodiscard]] std::vector<SegmentPtr> table() const;
  template <class Visit>
  void for_each_place(BlockRun run, Visit visit) const;
  Result<std::vector<std::size_t>> list_segments() const;
  Result<Fd> open_file(const char* name, int flags);
  Result<void> reserve(int fd, std::uint64_t from, std::uint64_t bytes);
  void sync_failed(int errno_value);
  Result<Fd> make_file(std::uint64_t bytes);
  Result<void> name_file(std::size_t number);
  void append(SegmentPtr segment);

  const Fd directory_;
  const bool read_only_;
  bool direct_;  // changes only while the first segment is opened or made
  const std::unique_ptr<IoEngine> engine_;

  mutable std::shared_mutex table_mutex_;
  std::vector<SegmentPtr> segments_;
  std::atomic<std::uint64_t> blocks_{0};
  std::atomic<bool> can_discard_{true};

  std::mutex grow_mutex_;
  std::mutex sync_mutex_;
  int sync_errno_ = 0;  // of the first failed flush; under sync_mutex_
};

bool SegmentDevice::contains(BlockRun run) const {
  const std::uint64_t end = blocks_.load();
  return run.first.value() <= end && run.count <= end - run.first.value();
}

std::vector<SegmentDevice::SegmentPtr> SegmentDevice::table() const {
  const std::shared_lock lock(table_mutex_);
  return segments_;
}

// Calls visit(place) for each part of a run that exists.
template <class Visit>
void SegmentDevice::for_each_place(BlockRun run, Visit visit) const {
  const std::shared_lock lock(table_mutex_);
  BlockNo at = run.first;
  while (at < run.end() && at.value() / kSegmentBlocks < segments_.size()) {
    const std::uint64_t index = at.value() % kSegmentBlocks;
    const std::uint64_t count = std::min(kSegmentBlocks - index, run.end() - at);
    visit(Place{segments_[at.value() / kSegmentBlocks], index * kBlockBytes, count * kBlockBytes});
    at += count;
  }
}

Result<void> SegmentDevice::read(std::span<const BlockRead> runs) {
  std::vector<IoRequest> requests;
  std::vector<SegmentPtr> used;
  requests.reserve(runs.size());
  for (const BlockRead& read : runs) {
    if (!contains(read.run)) {
      return fail(EIO, "read behind the last block of the store");
    }
    std::byte* into = read.data;
    for_each_place(read.run, [&](const Place& place) {
      requests.push_back(IoRequest::read(place.segment->fd.get(), place.offset, into, place.bytes));
      into += place.bytes;
      if (used.empty() || used.back() != place.segment) {
        used.push_back(place.segment);
      }
    });
  }
  return engine_->run(requests);
}

Result<void> SegmentDevice::write(std::span<const BlockWrite> runs) {
  if (read_only_) {
    return fail(EROFS, "write to a read-only device");
  }
  std::vector<IoRequest> requests;
  std::vector<SegmentPtr> touched;
  requests.reserve(runs.size());
  for (const BlockWrite& write : runs) {
    if (!contains(write.run)) {
      return fail(EIO, "write behind the last block of the store");
    }
    const std::byte* from = write.data;
    for_each_place(write.run, [&](const Place& place) {
      requests.push_back(
          IoRequest::write(place.segment->fd.get(), place.offset, from, place.bytes));
      from += place.bytes;
      if (touched.empty() || touched.back() != place.segment) {
        touched.push_back(place.segment);
      }
    });
  }
  Result<void> outcome = engine_->run(requests);
  // Also after an error: some of it may have been written.
  for (const SegmentPtr& segment : touched) {
    segment->writes.fetch_add(1);
  }
  return outcome;
}

Result<void> SegmentDevice::sync() {
  struct Seen {
    SegmentPtr segment;
    std::uint64_t writes;
  };
  const std::scoped_lock turn(sync_mutex_);
  if (sync_errno_ != 0) {
    return fail(sync_errno_, "an earlier sync of the store's segments failed");
  }
  std::vector<Seen> dirty;
  std::vector<int> fds;
  for (const SegmentPtr& segment : table()) {
    const std::uint64_t writes = segment->writes.load();
    if (writes != segment->synced_writes) {
      dirty.push_back({segment, writes});
      fds.push_back(segment->fd.get());
    }
  }
  if (Result<void> outcome = engine_->sync(fds); !outcome) {
    sync_errno_ = outcome.error().errno_value();
    return outcome;
  }
  for (const Seen& seen : dirty) {
    seen.segment->synced_writes = seen.writes;
  }
  return {};
}

void SegmentDevice::discard(std::span<const BlockRun> runs) {
  if (read_only_) {
    return;
  }
  for (const BlockRun& run : runs) {
    if (!contains(run)) {
      continue;
    }
    std::vector<Place> places;
    for_each_place(run, [&](const Place& place) { places.push_back(place); });
    for (const Place& place : places) {
      // A host that cannot do it keeps the space; nothing depends on it.
      if (::fallocate(place.segment->fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(place.offset), static_cast<off_t>(place.bytes)) != 0 &&
          (errno == EOPNOTSUPP || errno == ENOSYS || errno == EPERM)) {
        can_discard_.store(false);
        return;
      }
    }
  }
}

Result<void> SegmentDevice::back(std::span<const BlockRun> runs) {
  for (const BlockRun& run : runs) {
    std::vector<Place> places;
    for_each_place(run, [&](const Place& place) { places.push_back(place); });
    for (const Place& place : places) {
      while (::fallocate(place.segment->fd.get(), FALLOC_FL_KEEP_SIZE,
                         static_cast<off_t>(place.offset), static_cast<off_t>(place.bytes)) != 0) {
        if (errno == EOPNOTSUPP) {
          return {};  // no promise to be had; writing tells
        }
        if (errno != EINTR) {
          return fail(errno, "cannot set space aside again");
        }
      }
    }
  }
  return {};
}

// The host's map of a file tells space that was set aside and never written from none, which
// SEEK_HOLE does not. A host without such maps is taken to hold everything.
std::vector<BlockRun> SegmentDevice::holes() {
  std::vector<BlockRun> holes;
  std::uint64_t first_block = 0;
  for (const SegmentPtr& segment : table()) {
    const std::uint64_t blocks = segment->blocks;
    const std::uint64_t bytes = blocks * kBlockBytes;
    struct stat status {};
    const bool whole = ::fstat(segment->fd.get(), &status) != 0 ||
                       static_cast<std::uint64_t>(status.st_blocks) * 512 >= bytes;
    std::uint64_t at = 0;  // everything before is known
    const auto hole_until = [&](std::uint64_t end) {
      const std::uint64_t first = round_up(at, kBlockBytes) / kBlockBytes;
      if (const std::uint64_t last = end / kBlockBytes; last > first) {
        holes.push_back({BlockNo(first_block + first), last - first});
      }
    };
    constexpr std::size_t kExtents = 512;
    std::vector<std::uint64_t> memory((sizeof(fiemap) + kExtents * sizeof(fiemap_extent)) / 8 + 1);
    while (!whole && at < bytes) {
      std::fill(memory.begin(), memory.end(), 0);
      auto* map = reinterpret_cast<fiemap*>(memory.data());
      map->fm_start = at;
      map->fm_length = bytes - at;
      map->fm_extent_count = kExtents;
      if (::ioctl(segment->fd.get(), FS_IOC_FIEMAP, map) != 0) {
        break;
      }
      for (std::uint32_t i = 0; i < map->fm_mapped_extents; ++i) {
        const fiemap_extent& extent = map->fm_extents[i];
        hole_until(std::min<std::uint64_t>(extent.fe_logical, bytes));
        at = std::max<std::uint64_t>(at, extent.fe_logical + extent.fe_length);
      }
      if (map->fm_mapped_extents < kExtents) {
        hole_until(bytes);
        at = bytes;
      }
    }
    first_block += blocks;
  }
  return holes;
}

std::uint64_t SegmentDevice::host_free_bytes() const {
  struct statvfs host {};
  if (::fstatvfs(directory_.get(), &host) != 0) {
    return 0;
  }
  return std::uint64_t{host.f_bavail} * host.f_frsize;
}

// Opens a file for the device's way of I/O. A host that takes no O_DIRECT turns it off for good;
// it may have created the file before it refused.
Result<Fd> SegmentDevice::open_file(const char* name, int flags) {
  const int common = flags | O_NOFOLLOW | O_CLOEXEC | (read_only_ ? O_RDONLY : O_RDWR);
  if (direct_) {
    Fd fd(::openat(directory_.get(), name, common | O_DIRECT, kFileMode));
    if (fd.valid()) {
      return fd;
    }
    if (errno != EINVAL) {
      return fail(errno, fmt::format("cannot open segment {}", name));
    }
    direct_ = false;
  }
  Fd fd(::openat(directory_.get(), name, common, kFileMode));
  if (!fd.valid()) {
    return fail(errno, fmt::format("cannot open segment {}", name));
  }
  return fd;
}

Result<std::vector<std::size_t>> SegmentDevice::list_segments() const {
  const int listing = ::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (listing < 0) {
    return fail(errno, "cannot list the segments");
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(listing), &::closedir);
  if (stream == nullptr) {
    const int reason = errno;
    ::close(listing);
    return fail(reason, "cannot list the segments");
  }
  std::vector<std::size_t> numbers;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) {
      break;
    }
    if (const auto number = segment_number(entry->d_name)) {
      numbers.push_back(*number);
    }
  }
  if (errno != 0) {
    return fail(errno, "cannot list the segments");
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Result<void> SegmentDevice::open_segments() {
  const std::vector<std::size_t> numbers = ODX_TRY(list_segments());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const std::string name = segment_name(i);
    if (numbers[i] != i) {
      return corrupt(fmt::format("segment {} is missing", name));
    }
    Fd fd = ODX_TRY(open_file(name.c_str(), 0));
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) {
      return fail(errno, fmt::format("cannot stat segment {}", name));
    }
    auto bytes = static_cast<std::uint64_t>(status.st_size);
    if (i + 1 == numbers.size() && bytes > kBlockBytes) {
      bytes = round_down(bytes, kBlockBytes);
    }
    if (!S_ISREG(status.st_mode) || bytes == 0 || bytes % kBlockBytes != 0 ||
        bytes > kSegmentBlocks * kBlockBytes) {
      return corrupt(
          fmt::format("segment {} is not a file of 1 to {} whole blocks", name, kSegmentBlocks));
    }
    if (i + 1 < numbers.size() && bytes != kSegmentBlocks * kBlockBytes) {
      return corrupt(fmt::format("segment {} is short", name));
    }
    append(std::make_shared<Segment>(std::move(fd), bytes / kBlockBytes));
  }
  // The last one may have been named, or made longer, by a process that died before that was
  // durable.
  if (!read_only_ && !numbers.empty() &&
      (::fsync(segments_.back()->fd.get()) != 0 || ::fsync(directory_.get()) != 0)) {
    return fail(errno, "cannot sync the segments and their directory");
  }
  return {};
}

void SegmentDevice::append(SegmentPtr segment) {
  const std::unique_lock lock(table_mutex_);
  segments_.push_back(std::move(segment));
  blocks_ += segments_.back()->blocks;
}

// Makes the host set aside the whole file. Where it cannot promise space, writing zeros takes it.
Result<void> SegmentDevice::reserve(int fd, std::uint64_t from, std::uint64_t bytes) {
  while (::fallocate(fd, 0, static_cast<off_t>(from), static_cast<off_t>(bytes)) != 0) {
    if (errno == EOPNOTSUPP) {
      constexpr std::uint64_t kStep = 1 << 20;
      AlignedBuffer zeros(kStep);
      std::fill(zeros.span().begin(), zeros.span().end(), std::byte{0});
      for (std::uint64_t at = 0; at < bytes; at += kStep) {
        const IoRequest part =
            IoRequest::write(fd, from + at, zeros.data(), std::min(kStep, bytes - at));
        ODX_TRY(engine_->run({&part, 1}));
      }
      return {};
    }
    if (errno != EINTR) {
      return fail(errno, "cannot reserve space for a segment");
    }
  }
  return {};
}

// A complete, durable file without its final name yet, or none at all.
Result<Fd> SegmentDevice::make_file(std::uint64_t bytes) {
  const int dir = directory_.get();
  // Left over from a crash, perhaps.
  if (::unlinkat(dir, kUnfinishedName, 0) != 0 && errno != ENOENT) {
    return fail(errno, "cannot remove an unfinished segment");
  }
  Result<Fd> fd = open_file(kUnfinishedName, O_CREAT);
  if (!fd) {
    (void)::unlinkat(dir, kUnfinishedName, 0);
    return fd;
  }
  Result<void> outcome = reserve(fd->get(), 0, bytes);
  if (outcome && ::fsync(fd->get()) != 0) {
    outcome = fail(errno, "cannot sync a new segment");
  }
  if (!outcome) {
    (void)::unlinkat(dir, kUnfinishedName, 0);
    return std::unexpected(std::move(outcome).error());
  }
  return fd;
}

// Gives it the name, durably. If the directory cannot be synced nobody knows what it will hold
// after a crash, and as with a file's data no later sync that succeeds can be believed.
Result<void> SegmentDevice::name_file(std::size_t number) {
  const std::string name = segment_name(number);
  const int dir = directory_.get();
  if (::renameat(dir, kUnfinishedName, dir, name.c_str()) != 0) {
    const int reason = errno;
    (void)::unlinkat(dir, kUnfinishedName, 0);
    return fail(reason, "cannot name a new segment");
  }
  if (::fsync(dir) != 0) {
    const int reason = errno;
    (void)::unlinkat(dir, name.c_str(), 0);
    sync_failed(reason);
    return fail(reason, "cannot sync the segments' directory");
  }
  return {};
}

Result<void> SegmentDevice::add_segment(std::uint64_t blocks) {
  if (read_only_) {
    return fail(EROFS, "growing a read-only device");
  }
  if (blocks == 0 || blocks > kSegmentBlocks) {
    return fail(EINVAL, "a segment has 1 to 262144 blocks");
  }
  const std::scoped_lock lock(grow_mutex_);
  const std::uint64_t present = blocks_.load();
  if (present % kSegmentBlocks != 0) {
    return fail(EINVAL, "nothing can follow a short segment");
  }
  const std::size_t number = present / kSegmentBlocks;
  const std::string name = segment_name(number);
  if (::faccessat(directory_.get(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
    return fail(EEXIST, fmt::format("segment {} exists already", name));
  }
  // All memory first: a segment that has its name must get into the table.
  {
    const std::unique_lock table(table_mutex_);
    segments_.reserve(segments_.size() + 1);
  }
  auto segment = std::make_shared<Segment>(ODX_TRY(make_file(blocks * kBlockBytes)), blocks);
  ODX_TRY(name_file(number));
  append(std::move(segment));
  return {};
}

void SegmentDevice::sync_failed(int errno_value) {
  const std::scoped_lock turn(sync_mutex_);
  if (sync_errno_ == 0) {
    sync_errno_ = errno_value;
  }
}

Result<void> SegmentDevice::extend(std::uint64_t blocks) {
  if (read_only_) {
    return fail(EROFS, "growing a read-only device");
  }
  const std::scoped_lock lock(grow_mutex_);
  const std::uint64_t present = blocks_.load();
  const std::uint64_t there = present % kSegmentBlocks;
  if (there == 0 || blocks == 0 || blocks > kSegmentBlocks - there) {
    return fail(EINVAL, "the last segment has no room for that");
  }
  const SegmentPtr last = table().back();
  const int fd = last->fd.get();
  if (Result<void> outcome = reserve(fd, there * kBlockBytes, blocks * kBlockBytes); !outcome) {
    // Whatever it got must not be taken for blocks by the next open.
    (void)::ftruncate(fd, static_cast<off_t>(there * kBlockBytes));
    return outcome;
  }
  if (::fsync(fd) != 0) {
    // It may have been data that the kernel could not write.
    const int reason = errno;
    sync_failed(reason);
    return fail(reason, "cannot sync a segment that grew");
  }
  last->blocks += blocks;
  blocks_ += blocks;
  return {};
}

// From the end, so that what is left is a line of segments at any moment.
Result<void> SegmentDevice::cut(std::uint64_t blocks) {
  if (read_only_) {
    return fail(EROFS, "cutting a read-only device");
  }
  const std::scoped_lock lock(grow_mutex_);
  if (blocks > blocks_.load()) {
    return fail(EINVAL, "there is nothing to cut");
  }
  while (blocks_.load() > blocks) {
    const SegmentPtr last = table().back();
    const std::uint64_t there = last->blocks;
    const std::uint64_t first = blocks_.load() - there;
    if (blocks <= first) {
      if (::unlinkat(directory_.get(), segment_name(first / kSegmentBlocks).c_str(), 0) != 0) {
        return fail(errno, "cannot remove a segment");
      }
      const std::unique_lock table_lock(table_mutex_);
      segments_.pop_back();
      blocks_ -= there;
      continue;
    }
    const std::uint64_t keep = blocks - first;
    if (::ftruncate(last->fd.get(), static_cast<off_t>(keep * kBlockBytes)) != 0) {
      return fail(errno, "cannot cut a segment");
    }
    last->blocks = keep;
    blocks_ -= there - keep;
    if (::fsync(last->fd.get()) != 0) {
      const int reason = errno;
      sync_failed(reason);
      return fail(reason, "cannot sync a segment that was cut");
    }
  }
  if (::fsync(directory_.get()) != 0) {
    const int reason = errno;
    sync_failed(reason);
    return fail(reason, "cannot sync the segments' directory");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<BlockDevice>> open_segment_device(const std::string& data_dir,
                                                         const SegmentDeviceOptions& options,
                                                         std::unique_ptr<IoEngine> engine) {
  Fd directory(::open(data_dir.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory.valid()) {
    return fail(errno, fmt::format("cannot open {}", data_dir));
  }
  auto device = std::make_unique<SegmentDevice>(std::move(directory), options, std::move(engine));
  ODX_TRY(device->open_segments());
  return device;
}

Result<std::unique_ptr<BlockDevice>> open_segment_device(const std::string& data_dir,
                                                         const SegmentDeviceOptions& options) {
  return open_segment_device(data_dir, options, make_io_engine(options.engine));
}

}  // namespace odx
