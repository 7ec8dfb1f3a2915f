// The ioctls of odx/offload.h. The two offload controls run on a pool of their own, because they
// make the kernel write to us; the others answer at once.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "byte_locks.hpp"
#include "operations.hpp"
#include "proto/rules.hpp"
#include "upkeep.hpp"
#include "store/host_space.hpp"

namespace odx::daemon {

namespace {

// Everything of an offload request that outlives the message it came in.
struct OffloadJob {
  InodeNo ino;
  proto::Control control = proto::Control::kRead;
  OffloadCaller caller;
  bool synchronous = false;  // O_DSYNC, O_SYNC: what is written is durable on return
  pid_t thread = 0;
  odx_offload call{};
};

Result<int> offload_read(Filesystem& fs, OffloadJob& job) {
  if (job.caller.readable && !job.caller.disabled) {
    ODX_TRY(fs.coherence.write_back(job.ino, Coherence::Caller::kIoctl));
  }
  return fs.store.tokens().offload_read(job.ino, job.caller, job.call);
}

Result<int> offload_write(Filesystem& fs, OffloadJob& job) {
  if (!job.caller.writable || job.caller.disabled) {
    return fs.store.tokens().offload_write(job.ino, job.caller, job.call);
  }
  ODX_TRY(fs.coherence.write_back(job.ino, Coherence::Caller::kIoctl));
  const FileOffset at(job.call.body.write_in.file_offset);
  const Result<InodePtr> before = fs.store.names().get(job.ino);
  const int error = fs.store.tokens().offload_write(job.ino, job.caller, job.call);
  const std::uint64_t written = job.call.body.write_out.length_written;
  if (error == 0 && written != 0 && before) {
    fs.coherence.content_changed(job.ino, at, written, (*before)->size());
  }
  if (error == 0 && written != 0 && job.synchronous) {
    ODX_TRY(fs.store.files().sync(job.ino));
  }
  return error;
}

void run(Filesystem& fs, fuse_req_t req, OffloadJob& job) {
  int error = 0;
  const Result<void> done = guarded([&]() -> Result<void> {
    const proto::LockRange range = proto::locked_range(job.call, job.control);
    job.caller.range_locked =
        !range.empty() && range_is_locked(fs.device, job.ino, range.first, range.last,
                                          job.control == proto::Control::kWrite, job.thread);
    error = ODX_TRY(job.control == proto::Control::kRead ? offload_read(fs, job)
                                                         : offload_write(fs, job));
    return {};
  });
  if (!done) {
    error = errno_of(done.error(), "offload", job.ino);
    const proto::Verdict verdict = proto::verdict_for_errno(error, job.control);
    proto::fill_failure(job.call, verdict);
    fs.store.core().counters.refused.at(verdict.reason).fetch_add(1, std::memory_order_relaxed);
  }
  // The kernel hands the structure to the caller whatever the result.
  ::fuse_reply_ioctl(req, -error, &job.call, sizeof job.call);
}

void offload(fuse_req_t req, InodeNo ino, proto::Control control, const fuse_file_info& file,
             const void* in) {
  Filesystem& fs = filesystem_of(req);
  const fuse_ctx* context = ::fuse_req_ctx(req);
  const auto job = std::make_shared<OffloadJob>();
  const std::uint64_t access = file.fh & O_ACCMODE;
  job->ino = ino;
  job->control = control;
  job->caller.uid = context->uid;
  // The fourth mode, 3, gives neither right: a read-only mount lets it through.
  job->caller.readable = access == O_RDONLY || access == O_RDWR;
  job->caller.writable = access == O_WRONLY || access == O_RDWR;
  job->caller.disabled = !fs.options.offload;
  job->synchronous = (file.fh & O_DSYNC) != 0;
  job->thread = context->pid;
  std::memcpy(&job->call, in, sizeof job->call);
  if (!fs.controllers.submit([&fs, req, job] { run(fs, req, *job); })) {
    ::fuse_reply_err(req, ENODEV);
  }
}

void statistics(fuse_req_t req) {
  Filesystem& fs = filesystem_of(req);
  odx_stat out{};
  fs.store.fill_statistics(out);
  const auto program = std::string_view(ODX_VERSION);
  program.copy(out.program, sizeof out.program - 1);
  out.features |= fs.options.offload ? ODX_FEATURE_OFFLOAD : 0U;
  out.requests = fs.requests.load(std::memory_order_relaxed);
  ::fuse_reply_ioctl(req, 0, &out, sizeof out);
}

Result<void> list_tokens(fuse_req_t req, const void* in) {
  odx_token_list out{};
  std::memcpy(&out, in, sizeof out);
  TokenId after{};
  static_assert(sizeof after == sizeof out.after);
  std::memcpy(after.data(), out.after, sizeof out.after);
  out = {};
  std::memcpy(out.after, after.data(), sizeof out.after);
  const std::vector<odx_token_info> tokens = ODX_TRY(filesystem_of(req).store.tokens().list(
      after, std::size(out.tokens), ::fuse_req_ctx(req)->uid));
  out.count = static_cast<std::uint32_t>(std::min(tokens.size(), std::size(out.tokens)));
  std::copy_n(tokens.begin(), out.count, out.tokens);
  ::fuse_reply_ioctl(req, 0, &out, sizeof out);
  return {};
}

Result<void> count_fallback(fuse_req_t req, const void* in) {
  odx_fallback told{};
  std::memcpy(&told, in, sizeof told);
  if (told.note >= ODX_NOTE_SLOTS || told.reserved != 0) {
    return fail(EINVAL);
  }
  filesystem_of(req).store.core().counters.fallback_bytes.at(told.note).fetch_add(
      told.bytes, std::memory_order_relaxed);
  ::fuse_reply_ioctl(req, 0, nullptr, 0);
  return {};
}

Result<void> drop_token(fuse_req_t req, const void* in) {
  TokenId id{};
  static_assert(sizeof id == sizeof(odx_token_drop));
  std::memcpy(id.data(), in, sizeof id);
  ODX_TRY(filesystem_of(req).store.tokens().drop(id, ::fuse_req_ctx(req)->uid));
  ::fuse_reply_ioctl(req, 0, nullptr, 0);
  return {};
}

// Waits for the host, and perhaps for the reclaim queue: not on a receiving thread.
Result<void> resize(fuse_req_t req, const void* in) {
  Filesystem& fs = filesystem_of(req);
  odx_resize call{};
  std::memcpy(&call, in, sizeof call);
  odx_resize only_limit{};
  only_limit.limit = call.limit;
  if (std::memcmp(&call, &only_limit, sizeof call) != 0) {
    return fail(EINVAL);
  }
  const uid_t uid = ::fuse_req_ctx(req)->uid;
  if (uid != 0 && uid != ::geteuid()) {
    return fail(EPERM);
  }
  if (!fs.controllers.submit([&fs, req, wanted = call.limit] {
        ResizeReport report;
        const Result<void> done = guarded([&]() -> Result<void> {
          if (wanted == 0) {
            report = size_of(fs.store.core());
            return {};
          }
          return fs.store.resize(wanted, report);
        });
        odx_resize answer{};
        answer.limit = report.limit;
        answer.limit_before = report.limit_before;
        answer.exists = report.exists;
        answer.exists_before = report.exists_before;
        answer.least = report.least;
        const int error = done ? 0 : errno_of(done.error(), "resize", kRootInode);
        ::fuse_reply_ioctl(req, -error, &answer, sizeof answer);
      })) {
    return fail(ENODEV);
  }
  return {};
}

void ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int command, void* /*argument*/,
           fuse_file_info* file, unsigned /*flags*/, const void* in, size_t in_size,
           size_t out_size) {
  serve(req, "ioctl", InodeNo(ino), [&]() -> Result<void> {
    // The sizes are part of the command's number, and the kernel goes by that.
    if (in_size != ((command & IOC_IN) != 0 ? _IOC_SIZE(command) : 0U) ||
        out_size != ((command & IOC_OUT) != 0 ? _IOC_SIZE(command) : 0U)) {
      return fail(ENOTTY);
    }
    switch (command) {
      case ODX_IOC_OFFLOAD_READ:
        offload(req, InodeNo(ino), proto::Control::kRead, *file, in);
        return {};
      case ODX_IOC_OFFLOAD_WRITE:
        offload(req, InodeNo(ino), proto::Control::kWrite, *file, in);
        return {};
      case ODX_IOC_STAT:
        statistics(req);
        return {};
      case ODX_IOC_TOKEN_LIST:
        return list_tokens(req, in);
      case ODX_IOC_TOKEN_DROP:
        return drop_token(req, in);
      case ODX_IOC_RESIZE:
        return resize(req, in);
      case ODX_IOC_FALLBACK:
        return count_fallback(req, in);
      case ODX_IOC_SCRUB:
        return control_scrub(req, in);
      case ODX_IOC_CHECK:
        return control_check(req, in);
      default:
        return fail(ENOTTY);
    }
  });
}

}  // namespace

void add_ioctl_operation(fuse_lowlevel_ops& ops) { ops.ioctl = ioctl; }

}  // namespace odx::daemon
