#include "client/plain_copy.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/types.hpp"

namespace odx::client {

namespace {

constexpr std::size_t kBufferBytes = 1 << 20;

// Puts a descriptor's offset back: looking for holes moves it.
class KeepOffset {
 public:
  explicit KeepOffset(int fd) : fd_(fd), offset_(::lseek(fd, 0, SEEK_CUR)) {}
  ~KeepOffset() {
    if (offset_ >= 0) {
      ::lseek(fd_, offset_, SEEK_SET);
    }
  }
  KeepOffset(const KeepOffset&) = delete;
  KeepOffset& operator=(const KeepOffset&) = delete;

 private:
  int fd_;
  off_t offset_;
};

class Copier {
 public:
  Copier(const PlainCopy& job, const StepDone& done) : job_(job), done_(done), at_(job.from) {}

  Result<std::uint64_t> run() {
    if (job_.size == 0) {
      ODX_TRY(read_and_write(kMaxFileBytes));
      return at_;
    }
    const KeepOffset keep(job_.source);
    while (at_ < job_.size && !source_ended_) {
      std::uint64_t end = job_.size;
      if (job_.sparse) {
        const std::uint64_t data = std::min(seek(SEEK_DATA, job_.size), job_.size);
        if (data > at_) {
          ODX_TRY(advance(ODX_WAY_SKIP, data - at_));
        }
        end = std::min(seek(SEEK_HOLE, job_.size), job_.size);
      }
      ODX_TRY(copy_data(end));
    }
    return at_;
  }

 private:
  // The next data or hole from at_ on; `otherwise` if there is none. A filesystem that cannot tell
  // holes has only data.
  std::uint64_t seek(int whence, std::uint64_t otherwise) const {
    const off_t found = ::lseek(job_.source, static_cast<off_t>(at_), whence);
    if (found >= 0) {
      return std::max(static_cast<std::uint64_t>(found), at_);
    }
    return whence == SEEK_DATA && errno != ENXIO ? at_ : otherwise;
  }

  Result<void> copy_data(std::uint64_t end) {
    while (at_ < end && clone_works_) {
      auto from = static_cast<off_t>(at_);
      auto to = from;
      const ssize_t n = ::copy_file_range(job_.source, &from, job_.destination, &to,
                                          std::min(job_.step, end - at_), 0);
      if (n > 0) {
        ODX_TRY(advance(ODX_WAY_CLONE, static_cast<std::uint64_t>(n)));
      } else if (n == 0 || errno != EINTR) {
        // Whatever the reason, reading and writing either works or says it better. An answer of 0
        // may be the end, or a file that only pretends to have content.
        clone_works_ = false;
      }
    }
    return read_and_write(end);
  }

  Result<void> read_and_write(std::uint64_t end) {
    if (buffer_ == nullptr && at_ < end) {
      buffer_ = std::make_unique<std::byte[]>(kBufferBytes);
    }
    while (at_ < end) {
      const ssize_t n =
          ::pread(job_.source, buffer_.get(), std::min<std::uint64_t>(kBufferBytes, end - at_),
                  static_cast<off_t>(at_));
      if (n < 0) {
        if (errno == EINTR) {
          continue;
        }
        return fail(errno, "reading");
      }
      if (n == 0) {
        source_ended_ = true;
        return {};
      }
      ODX_TRY(write_all(static_cast<std::size_t>(n)));
      ODX_TRY(advance(ODX_WAY_COPY, static_cast<std::uint64_t>(n)));
    }
    return {};
  }

  Result<void> write_all(std::size_t count) const {
    std::size_t done = 0;
    while (done < count) {
      const ssize_t n = ::pwrite(job_.destination, buffer_.get() + done, count - done,
                                 static_cast<off_t>(at_ + done));
      if (n >= 0) {
        done += static_cast<std::size_t>(n);
      } else if (errno != EINTR) {
        return fail(errno, "writing");
      }
    }
    return {};
  }

  Result<void> advance(odx_copy_way way, std::uint64_t bytes) {
    const std::uint64_t from = std::exchange(at_, at_ + bytes);
    return done_(way, from, bytes);
  }

  const PlainCopy& job_;
  const StepDone& done_;
  std::uint64_t at_;
  bool clone_works_ = true;
  bool source_ended_ = false;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace

Result<std::uint64_t> copy_plainly(const PlainCopy& job, const StepDone& done) {
  return Copier(job, done).run();
}

}  // namespace odx::client
