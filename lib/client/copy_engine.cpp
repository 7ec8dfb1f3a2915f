// Purpose: odx_copy(). The engine moves one cursor, at_, from 0 to the size that the source had at
// the start; whatever moves it, tokens or an ordinary copy, everything before it is in place and
// never copied again. The destination is cut to nothing and then given its full size first, so
// everything behind the cursor is zeros, and known zeros at the end need no work.
//
// Tokens pin the source's data and count against a limit, so each is dropped when it has been used,
// not left to expire.
#include "client/copy_engine.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/types.hpp"
#include "client/negative_cache.hpp"
#include "client/plain_copy.hpp"
#include "odx/odx.h"

namespace odx::client {

namespace {

constexpr std::uint64_t kDefaultThreshold = 256 << 10;
constexpr std::uint64_t kDefaultStep = 256 << 20;
// A step of an ordinary copy: short enough for a live progress bar.
constexpr std::uint64_t kPlainStep = 16 << 20;
constexpr unsigned kMostStalls = 4;
// A multiple of every possible sector.
constexpr std::uint64_t kUnit = 4096;

class DropToken {
 public:
  DropToken(int fd, const odx_token& token) : fd_(fd), known_(odx_token_id(&token, id_) == 0) {}
  ~DropToken() {
    if (known_) {
      odx_drop_token(fd_, id_);
    }
  }
  DropToken(const DropToken&) = delete;
  DropToken& operator=(const DropToken&) = delete;

 private:
  int fd_;
  std::uint8_t id_[16];
  bool known_;
};

template <class Call>
int repeat_if_interrupted(const Call& call) {
  int error = 0;
  do {
    error = call();
  } while (error == -EINTR);
  return error;
}

}  // namespace

Result<void> CopyEngine::run() {
  ODX_TRY(prepare());
  if (worth_trying()) {
    ODX_TRY(offload());
  }
  if (report_.note == ODX_COPY_WHOLE || report_.note == ODX_COPY_SOURCE_CHANGED) {
    return {};
  }
  if ((options_.flags & ODX_COPY_REQUIRE_OFFLOAD) != 0) {
    return fail(refusal_errno(), odx_copy_note_text(report_.note));
  }
  const Result<void> copied = copy_rest();
  tell_fallback();
  return copied;
}

Result<void> CopyEngine::prepare() {
  if (::fstat(source_, &source_stat_) != 0 || ::fstat(destination_, &destination_stat_) != 0) {
    return fail(errno);
  }
  if (S_ISDIR(source_stat_.st_mode) || S_ISDIR(destination_stat_.st_mode)) {
    return fail(EISDIR);
  }
  if (!S_ISREG(source_stat_.st_mode) || !S_ISREG(destination_stat_.st_mode)) {
    return fail(EINVAL, "not a regular file");
  }
  if (source_stat_.st_dev == destination_stat_.st_dev &&
      source_stat_.st_ino == destination_stat_.st_ino) {
    return fail(EINVAL, "source and destination are the same file");
  }
  size_ = static_cast<std::uint64_t>(source_stat_.st_size);
  report_.bytes_total = size_;
  if (destination_stat_.st_size != 0 && ::ftruncate(destination_, 0) != 0) {
    return fail(errno, "emptying the destination");
  }
  return {};
}

bool CopyEngine::same_store() {
  const auto what = [this] {
    struct odx_stat source;
    if (odx_statistics(source_, &source) != 0) {
      return ODX_COPY_NOT_ODXFS;
    }
    if (source_stat_.st_dev == destination_stat_.st_dev) {
      return ODX_COPY_WHOLE;
    }
    struct odx_stat destination;
    if (odx_statistics(destination_, &destination) != 0) {
      return ODX_COPY_NOT_ODXFS;
    }
    return std::memcmp(source.uuid, destination.uuid, sizeof source.uuid) == 0
               ? ODX_COPY_WHOLE
               : ODX_COPY_OTHER_STORE;
  }();
  if (what == ODX_COPY_WHOLE) {
    return true;
  }
  note(what);
  NegativeCache::of_process().remember(source_stat_.st_dev, destination_stat_.st_dev,
                                       {what, 0, {}});
  return false;
}

bool CopyEngine::worth_trying() {
  if ((options_.flags & ODX_COPY_NO_OFFLOAD) != 0) {
    note(ODX_COPY_SWITCHED_OFF);
    return false;
  }
  const std::uint64_t threshold = options_.threshold == 0 ? kDefaultThreshold : options_.threshold;
  if ((options_.flags & ODX_COPY_REQUIRE_OFFLOAD) == 0 && size_ < threshold) {
    note(ODX_COPY_BELOW_THRESHOLD);
    return false;
  }
  // A token for another store would be refused anyway, but only after it was made.
  return !known_hopeless() && same_store();
}

bool CopyEngine::known_hopeless() {
  NegativeCache& cache = NegativeCache::of_process();
  if ((options_.flags & ODX_COPY_REQUIRE_OFFLOAD) != 0) {
    cache.forget(source_stat_.st_dev, destination_stat_.st_dev);
    return false;
  }
  const auto known = cache.find(source_stat_.st_dev, destination_stat_.st_dev);
  if (!known) {
    return false;
  }
  note(known->note, known->error, known->result);
  return true;
}

void CopyEngine::remember_if_hopeless(int error, const odx_result& result) const {
  // ENOTTY: no odxfs. EPERM: switched off by the mount. EXDEV: the source cannot be reached. All
  // others are about the file, the range, the token or the moment.
  if (error == ENOTTY || error == EPERM || error == EXDEV) {
    NegativeCache::of_process().remember(source_stat_.st_dev, destination_stat_.st_dev,
                                         {ODX_COPY_REFUSED, error, result});
  }
}

Result<void> CopyEngine::offload() {
  ODX_TRY(set_full_size());
  while (at_ < size_) {
    odx_token token;
    std::uint64_t span = 0;
    std::uint32_t flags = 0;
    odx_result result{};
    const int error = repeat_if_interrupted([&] {
      return odx_offload_read(source_, at_, round_up(size_ - at_, kUnit), options_.ttl_ms, 0,
                              &token, &span, &flags, &result);
    });
    if (error != 0) {
      note(ODX_COPY_REFUSED, -error, result);
      remember_if_hopeless(-error, result);
      return {};
    }
    ++report_.tokens;
    const DropToken drop(source_, token);
    if (span == 0) {
      if (stalled()) {
        return {};
      }
      continue;
    }
    const std::uint64_t end = std::min(size_, at_ + span);
    if (!ODX_TRY(redeem(token, span))) {
      return {};
    }
    if (at_ == end && at_ < size_ && (flags & ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE) != 0) {
      ODX_TRY(advance_offloaded(ODX_WAY_ZEROS, size_ - at_, 0));
    }
  }
  return notice_shrinking();
}

// To tokens, what was cut off the source meanwhile looks like zeros.
Result<void> CopyEngine::notice_shrinking() {
  struct stat now {};
  if (::fstat(source_, &now) != 0) {
    return fail(errno);
  }
  if (static_cast<std::uint64_t>(now.st_size) < size_) {
    ODX_TRY(end_at(static_cast<std::uint64_t>(now.st_size)));
  }
  return {};
}

Result<bool> CopyEngine::redeem(const odx_token& token, std::uint64_t span) {
  const std::uint64_t step = options_.step == 0 ? kDefaultStep : round_up(options_.step, kUnit);
  std::uint64_t used = 0;
  while (used < span && at_ < size_) {
    std::uint64_t written = 0;
    odx_result result{};
    const int error = repeat_if_interrupted([&] {
      return odx_offload_write(destination_, at_, std::min(step, span - used), &token, used,
                               &written, &result);
    });
    if (error == -EKEYEXPIRED && may_renew_) {
      may_renew_ = false;
      return true;
    }
    if (error != 0) {
      note(ODX_COPY_REFUSED, -error, result);
      remember_if_hopeless(-error, result);
      return false;
    }
    if (written == 0) {
      if (stalled()) {
        return false;
      }
      continue;
    }
    used += written;
    ODX_TRY(advance_offloaded(ODX_WAY_TOKEN, written, result.bytes_shared));
  }
  return true;
}

Result<void> CopyEngine::copy_rest() {
  PlainCopy job{source_, destination_, at_, size_, false, kPlainStep};
  const auto allocated = static_cast<std::uint64_t>(source_stat_.st_blocks) * 512;
  if (allocated < size_) {
    // Within one store copy_file_range keeps holes by itself, at any size.
    if (same_store()) {
      job.step = kDefaultStep;
    } else {
      job.sparse = true;
      ODX_TRY(set_full_size());
    }
  }
  const std::uint64_t end = ODX_TRY(
      copy_plainly(job, [this](odx_copy_way way, std::uint64_t offset, std::uint64_t bytes) {
        return advance_plainly(way, offset, bytes);
      }));
  return end < size_ ? end_at(end) : Result<void>{};
}

Result<void> CopyEngine::end_at(std::uint64_t end) {
  report_.note = ODX_COPY_SOURCE_CHANGED;
  if (::ftruncate(destination_, static_cast<off_t>(end)) != 0) {
    return fail(errno, "setting the destination's size");
  }
  return {};
}

Result<void> CopyEngine::set_full_size() {
  if (::ftruncate(destination_, static_cast<off_t>(size_)) != 0) {
    return fail(errno, "setting the destination's size");
  }
  return {};
}

Result<void> CopyEngine::advance_offloaded(odx_copy_way way, std::uint64_t bytes,
                                           std::uint64_t shared) {
  // Tokens count whole sectors; the file may end inside the last one.
  const odx_copy_range step{at_, std::min(bytes, size_ - at_), shared, way, ODX_COPY_WHOLE};
  at_ += step.length;
  report_.bytes_offloaded += step.length;
  report_.bytes_shared += shared;
  stalls_ = 0;
  may_renew_ = true;
  return tell(step);
}

Result<void> CopyEngine::advance_plainly(odx_copy_way way, std::uint64_t offset,
                                         std::uint64_t bytes) {
  (way == ODX_WAY_CLONE  ? report_.bytes_cloned
   : way == ODX_WAY_COPY ? report_.bytes_copied
                         : report_.bytes_skipped) += bytes;
  return tell({offset, bytes, 0, way, report_.note});
}

bool CopyEngine::stalled() {
  if (++stalls_ < kMostStalls) {
    return false;
  }
  note(ODX_COPY_NO_PROGRESS);
  return true;
}

void CopyEngine::note(odx_copy_note why, int error, const odx_result& result) {
  if (report_.note == ODX_COPY_WHOLE) {
    report_.note = why;
    report_.error = error;
    report_.status = result.status;
    report_.reason = result.reason;
  }
}

Result<void> CopyEngine::tell(const odx_copy_range& step) const {
  if (options_.progress != nullptr && options_.progress(&report_, &step, options_.context) != 0) {
    return fail(ECANCELED);
  }
  return {};
}

void CopyEngine::tell_fallback() const {
  const std::uint64_t bytes = report_.bytes_cloned + report_.bytes_copied;
  if (bytes == 0) {
    return;
  }
  struct odx_fallback told {};
  told.note = report_.note;
  told.bytes = bytes;
  if (::ioctl(destination_, ODX_IOC_FALLBACK, &told) != 0) {
    ::ioctl(source_, ODX_IOC_FALLBACK, &told);
  }
}

int CopyEngine::refusal_errno() const {
  switch (report_.note) {
    case ODX_COPY_NOT_ODXFS:
      return ENOTTY;
    case ODX_COPY_OTHER_STORE:
      return EXDEV;
    case ODX_COPY_REFUSED:
      return report_.error;
    default:
      return EIO;
  }
}

namespace {

struct NoteWords {
  const char* name;
  const char* text;
};

NoteWords words_for(std::uint32_t note) {
  switch (note) {
    case ODX_COPY_WHOLE:
      return {"WHOLE", "all of it was offloaded"};
    case ODX_COPY_BELOW_THRESHOLD:
      return {"BELOW_THRESHOLD", "too small to be worth a token"};
    case ODX_COPY_SWITCHED_OFF:
      return {"SWITCHED_OFF", "offload was not wanted"};
    case ODX_COPY_NOT_ODXFS:
      return {"NOT_ODXFS", "not within odxfs"};
    case ODX_COPY_OTHER_STORE:
      return {"OTHER_STORE", "source and destination are on different stores"};
    case ODX_COPY_REFUSED:
      return {"REFUSED", "the filesystem refused to offload"};
    case ODX_COPY_NO_PROGRESS:
      return {"NO_PROGRESS", "offload made no progress"};
    case ODX_COPY_SOURCE_CHANGED:
      return {"SOURCE_CHANGED", "the source was cut short during the copy"};
    default:
      return {"UNKNOWN", "unknown note"};
  }
}

}  // namespace

}  // namespace odx::client

extern "C" {

const char* odx_copy_note_name(uint32_t note) { return odx::client::words_for(note).name; }

const char* odx_copy_note_text(uint32_t note) { return odx::client::words_for(note).text; }

int odx_copy(int source_fd, int destination_fd, const odx_copy_options* options,
             odx_copy_report* report) {
  const odx_copy_options chosen = options != nullptr ? *options : odx_copy_options{};
  odx_copy_report own{};
  odx_copy_report& kept = report != nullptr ? *report : own;
  kept = {};
  constexpr std::uint32_t kKnownFlags = ODX_COPY_REQUIRE_OFFLOAD | ODX_COPY_NO_OFFLOAD;
  constexpr decltype(chosen.reserved) kNothing{};
  if ((chosen.flags & ~kKnownFlags) != 0 || chosen.flags == kKnownFlags ||
      chosen.step > odx::kMaxFileBytes ||
      std::memcmp(chosen.reserved, kNothing, sizeof kNothing) != 0) {
    return -EINVAL;
  }
  try {
    const auto result = odx::client::CopyEngine(source_fd, destination_fd, chosen, kept).run();
    return result ? 0 : -result.error().errno_value();
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  } catch (...) {
    return -EIO;
  }
}

}  // extern "C"
