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
// Locks: sync_mutex_ (held over fdatasync) and grow_mutex_ (held over the making of a segment)
// are independent; table_mutex_ is the leaf, guards the table only and is never held over I/O.
// Segments are never removed, so a pointer found in the table stays good.
#include "store/device/segment_device.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
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
  const std::uint64_t blocks;
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
  void discard(std::span<const BlockRun> runs) override;
  [[nodiscard]] std::uint64_t host_free_bytes() const override;

 private:
  struct Place {
    Segment* segment;
    std::uint64_t offset;  // bytes into the segment
    std::uint64_t bytes;
  };

  [[nodiscard]] bool contains(BlockRun run) const;
  [[nodiscard]] std::vector<Segment*> table() const;
  template <class Visit>
  void for_each_place(BlockRun run, Visit visit) const;
  Result<std::vector<std::size_t>> list_segments() const;
  Result<Fd> open_file(const char* name, int flags);
  Result<void> reserve(int fd, std::uint64_t bytes);
  Result<Fd> make_file(std::uint64_t bytes);
  Result<void> name_file(std::size_t number);
  void append(std::unique_ptr<Segment> segment);

  const Fd directory_;
  const bool read_only_;
  bool direct_;  // changes only while the first segment is opened or made
  const std::unique_ptr<IoEngine> engine_;

  mutable std::shared_mutex table_mutex_;
  std::vector<std::unique_ptr<Segment>> segments_;
  std::atomic<std::uint64_t> blocks_{0};

  std::mutex grow_mutex_;
  std::mutex sync_mutex_;
  int sync_errno_ = 0;  // of the first failed flush; under sync_mutex_
};

bool SegmentDevice::contains(BlockRun run) const {
  const std::uint64_t end = blocks_.load();
  return run.first.value() <= end && run.count <= end - run.first.value();
}

std::vector<Segment*> SegmentDevice::table() const {
  const std::shared_lock lock(table_mutex_);
  std::vector<Segment*> segments;
  segments.reserve(segments_.size());
  for (const auto& segment : segments_) {
    segments.push_back(segment.get());
  }
  return segments;
}

// Calls visit(place) for each part of a run, which must exist.
template <class Visit>
void SegmentDevice::for_each_place(BlockRun run, Visit visit) const {
  const std::shared_lock lock(table_mutex_);
  BlockNo at = run.first;
  while (at < run.end()) {
    const std::uint64_t index = at.value() % kSegmentBlocks;
    const std::uint64_t count = std::min(kSegmentBlocks - index, run.end() - at);
    visit(Place{segments_[at.value() / kSegmentBlocks].get(), index * kBlockBytes,
                count * kBlockBytes});
    at += count;
  }
}

Result<void> SegmentDevice::read(std::span<const BlockRead> runs) {
  std::vector<IoRequest> requests;
  requests.reserve(runs.size());
  for (const BlockRead& read : runs) {
    if (!contains(read.run)) {
      return fail(EIO, "read behind the last block of the store");
    }
    std::byte* into = read.data;
    for_each_place(read.run, [&](const Place& place) {
      requests.push_back(IoRequest::read(place.segment->fd.get(), place.offset, into, place.bytes));
      into += place.bytes;
    });
  }
  return engine_->run(requests);
}

Result<void> SegmentDevice::write(std::span<const BlockWrite> runs) {
  if (read_only_) {
    return fail(EROFS, "write to a read-only device");
  }
  std::vector<IoRequest> requests;
  std::vector<Segment*> touched;
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
  for (Segment* segment : touched) {
    segment->writes.fetch_add(1);
  }
  return outcome;
}

Result<void> SegmentDevice::sync() {
  struct Seen {
    Segment* segment;
    std::uint64_t writes;
  };
  const std::scoped_lock turn(sync_mutex_);
  if (sync_errno_ != 0) {
    return fail(sync_errno_, "an earlier sync of the store's segments failed");
  }
  std::vector<Seen> dirty;
  std::vector<int> fds;
  for (Segment* segment : table()) {
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
      (void)::fallocate(place.segment->fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(place.offset), static_cast<off_t>(place.bytes));
    }
  }
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
    const auto bytes = static_cast<std::uint64_t>(status.st_size);
    if (!S_ISREG(status.st_mode) || bytes == 0 || bytes % kBlockBytes != 0 ||
        bytes > kSegmentBlocks * kBlockBytes) {
      return corrupt(
          fmt::format("segment {} is not a file of 1 to {} whole blocks", name, kSegmentBlocks));
    }
    if (i + 1 < numbers.size() && bytes != kSegmentBlocks * kBlockBytes) {
      return corrupt(fmt::format("segment {} is short", name));
    }
    append(std::make_unique<Segment>(std::move(fd), bytes / kBlockBytes));
  }
  // The last one may have been named by a process that died before its name was durable.
  if (!read_only_ && !numbers.empty() && ::fsync(directory_.get()) != 0) {
    return fail(errno, "cannot sync the segments' directory");
  }
  return {};
}

void SegmentDevice::append(std::unique_ptr<Segment> segment) {
  const std::unique_lock lock(table_mutex_);
  segments_.push_back(std::move(segment));
  blocks_ += segments_.back()->blocks;
}

// Makes the host set aside the whole file. Where it cannot promise space, writing zeros takes it.
Result<void> SegmentDevice::reserve(int fd, std::uint64_t bytes) {
  while (::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0) {
    if (errno == EOPNOTSUPP) {
      constexpr std::uint64_t kStep = 1 << 20;
      AlignedBuffer zeros(kStep);
      std::fill(zeros.span().begin(), zeros.span().end(), std::byte{0});
      for (std::uint64_t at = 0; at < bytes; at += kStep) {
        const IoRequest part = IoRequest::write(fd, at, zeros.data(), std::min(kStep, bytes - at));
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
  Result<void> outcome = reserve(fd->get(), bytes);
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
    const std::scoped_lock turn(sync_mutex_);
    sync_errno_ = sync_errno_ != 0 ? sync_errno_ : reason;
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
  auto segment = std::make_unique<Segment>(ODX_TRY(make_file(blocks * kBlockBytes)), blocks);
  ODX_TRY(name_file(number));
  append(std::move(segment));
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
