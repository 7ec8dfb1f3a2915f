#include "store/journal/ring_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/types.hpp"

namespace odx {

namespace {

constexpr std::uint64_t kReadAhead = 1ULL << 20;

Result<void> sync_directory_of(const std::string& path) {
  std::string directory = std::filesystem::path(path).parent_path().string();
  if (directory.empty()) {
    directory = ".";
  }
  const Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return fail(errno, "cannot sync " + directory);
  }
  return {};
}

// Whether blocks can be read through this descriptor; some hosts take O_DIRECT at open and refuse
// it only at the first transfer.
bool can_read(int fd) {
  AlignedBuffer block(kBlockBytes);
  return ::pread(fd, block.data(), kBlockBytes, 0) >= 0;
}

}  // namespace

Result<void> RingFile::create(const std::string& path, std::uint64_t bytes) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) {
    return fail(errno, "cannot create " + path);
  }
  // Real zeros: a block that is merely reserved costs the host a journal commit of its own when it
  // is first written, which would double the flushes of every commit in the first lap.
  AlignedBuffer zeros(kReadAhead);
  std::memset(zeros.data(), 0, zeros.size());
  for (std::uint64_t at = 0; at < bytes;) {
    const ssize_t done =
        ::pwrite(fd.get(), zeros.data(), std::min<std::uint64_t>(zeros.size(), bytes - at),
                 static_cast<off_t>(at));
    if (done < 0 && errno != EINTR) {
      return fail(errno, "cannot fill " + path);
    }
    at += static_cast<std::uint64_t>(std::max<ssize_t>(done, 0));
  }
  if (::fsync(fd.get()) != 0) {
    return fail(errno, "cannot sync " + path);
  }
  return sync_directory_of(path);
}

Result<RingFile> RingFile::open(const std::string& path, bool read_only) {
  const int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  bool direct = true;
  Fd fd(::open(path.c_str(), flags | O_DIRECT));
  if ((!fd.valid() && errno == EINVAL) || (fd.valid() && !can_read(fd.get()) && errno == EINVAL)) {
    direct = false;
    fd.reset(::open(path.c_str(), flags));
  }
  if (!fd.valid()) {
    return fail(errno, "cannot open " + path);
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) {
    return fail(errno, "cannot stat " + path);
  }
  return RingFile(std::move(fd), static_cast<std::uint64_t>(status.st_size), direct);
}

Result<void> RingFile::read(std::uint64_t offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    const ssize_t done = ::pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      return fail(done < 0 ? errno : EIO,
                  "cannot read the journal at offset " + std::to_string(offset));
    }
    offset += static_cast<std::uint64_t>(done);
    into = into.subspan(static_cast<std::size_t>(done));
  }
  return {};
}

Result<void> RingFile::write(std::uint64_t offset, std::span<const std::byte> from) const {
  const std::string what = "cannot write the journal at offset " + std::to_string(offset);
  bool by_flag = direct_;
  while (!from.empty()) {
    // The kernel takes the buffer as non-const although it only reads it.
    const iovec part{const_cast<std::byte*>(from.data()), from.size()};
    const ssize_t done =
        ::pwritev2(fd_.get(), &part, 1, static_cast<off_t>(offset), by_flag ? RWF_DSYNC : 0);
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done < 0 && errno == EOPNOTSUPP && by_flag) {
      by_flag = false;  // the host knows no per-write sync
      continue;
    }
    if (done <= 0) {
      return fail(done < 0 ? errno : EIO, what);
    }
    offset += static_cast<std::uint64_t>(done);
    from = from.subspan(static_cast<std::size_t>(done));
  }
  if (!by_flag) {
    return sync();
  }
  return {};
}

Result<void> RingFile::sync() const {
  if (::fdatasync(fd_.get()) != 0) {
    return fail(errno, "cannot sync the journal");
  }
  return {};
}

Result<std::span<const std::byte>> RingReader::view(std::uint64_t offset, std::uint64_t bytes) {
  if (offset < begin_ || offset + bytes > end_) {
    const std::uint64_t ahead = std::min(std::max(bytes, kReadAhead), file_.bytes() - offset);
    window_.ensure(ahead);
    begin_ = end_ = 0;
    // A bad place in the read-ahead must not take what was asked for with it.
    if (file_.read(offset, window_.span().first(ahead))) {
      begin_ = offset;
      end_ = offset + ahead;
    } else {
      ODX_TRY(file_.read(offset, window_.span().first(bytes)));
      begin_ = offset;
      end_ = offset + bytes;
    }
  }
  return std::span<const std::byte>(window_.data() + (offset - begin_), bytes);
}

}  // namespace odx
