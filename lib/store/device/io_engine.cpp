// Purpose: move whole batches between memory and segment files.
//
// Two engines. The system-call engine does one request after the other. The io_uring engine hands
// the kernel up to a ring of requests at once and waits for them in the same call, so the
// interface stays synchronous while a batch runs in parallel on the device.
//
// A ring belongs to one call at a time: a thread borrows one from a bounded pool and returns it
// when nothing is in flight, so completions never reach another thread and the rings need no lock
// of their own. Callers beyond the pool's size wait.
//
// Invariant: no call returns while the kernel may still touch its buffers. A ring that cannot be
// drained would break it, so that stops the process.
#include "store/device/io_engine.hpp"

#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <vector>

namespace odx {

namespace {

constexpr unsigned kRingEntries = 64;
constexpr std::size_t kMaxRings = 16;

// The kernel asks to try again; nothing was transferred.
bool try_again(int errno_value) { return errno_value == EINTR || errno_value == EAGAIN; }

const char* describe(IoRequest::Kind kind) {
  return kind == IoRequest::Kind::kRead ? "segment read" : "segment write";
}

// Keeps the first error of several.
void note_failure(Result<void>& outcome, int errno_value, const char* what) {
  if (outcome) {
    outcome = fail(errno_value, what);
  }
}

class SyscallEngine final : public IoEngine {
 public:
  Result<void> run(std::span<const IoRequest> requests) override {
    for (const IoRequest& request : requests) {
      ODX_TRY(run_one(request));
    }
    return {};
  }

  Result<void> sync(std::span<const int> fds) override {
    Result<void> outcome;
    for (const int fd : fds) {
      while (::fdatasync(fd) != 0) {
        if (errno != EINTR) {
          note_failure(outcome, errno, "fdatasync");
          break;
        }
      }
    }
    return outcome;
  }

  [[nodiscard]] IoEngineKind kind() const override { return IoEngineKind::kSync; }

 private:
  static Result<void> run_one(const IoRequest& request) {
    std::size_t done = 0;
    while (done < request.length) {
      std::byte* at = request.buffer + done;
      const std::size_t rest = request.length - done;
      const auto offset = static_cast<off_t>(request.offset + done);
      const ssize_t moved = request.kind == IoRequest::Kind::kRead
                                ? ::pread(request.fd, at, rest, offset)
                                : ::pwrite(request.fd, at, rest, offset);
      if (moved > 0) {
        done += static_cast<std::size_t>(moved);
      } else if (moved == 0) {
        return fail(EIO, std::string(describe(request.kind)) + " past the end");
      } else if (!try_again(errno)) {
        return fail(errno, describe(request.kind));
      }
    }
    return {};
  }
};

// An io_uring instance, used by one thread at a time.
class Ring {
 public:
  // The errno, or 0. With COOP_TASKRUN the kernel does not interrupt the thread to complete a
  // request, which only ever waits for it anyway; kernels before 5.19 do not know the flag.
  int open() {
    int outcome = ::io_uring_queue_init(kRingEntries, &ring_, IORING_SETUP_COOP_TASKRUN);
    if (outcome == -EINVAL) {
      outcome = ::io_uring_queue_init(kRingEntries, &ring_, 0);
    }
    open_ = outcome == 0;
    return -outcome;
  }

  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() {
    if (open_) {
      ::io_uring_queue_exit(&ring_);
    }
  }

  // False once the kernel has refused a submission: what was queued is still in the ring.
  [[nodiscard]] bool usable() const { return usable_; }

  // Runs `count` operations. prepare(sqe, index) fills in one; complete(index, res) looks at its
  // result and answers whether it must be prepared again. After complete() has made stop() true,
  // nothing more is begun.
  template <class Prepare, class Complete, class Stop>
  Result<void> run(std::size_t count, Prepare prepare, Complete complete, Stop stop) {
    std::vector<std::size_t> again;
    again.reserve(kRingEntries);  // nothing may throw while requests are in flight
    std::size_t next = 0;
    unsigned outstanding = 0;
    while (true) {
      while (outstanding < kRingEntries && !stop() && (!again.empty() || next < count)) {
        std::size_t index = next;
        if (again.empty()) {
          ++next;
        } else {
          index = again.back();
          again.pop_back();
        }
        io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
        ODX_CHECK(sqe != nullptr);
        prepare(sqe, index);
        ::io_uring_sqe_set_data64(sqe, index);
        ++outstanding;
      }
      if (outstanding == 0) {
        return {};
      }
      const int submitted = ::io_uring_submit_and_wait(&ring_, 1);
      if (submitted < 0 && !try_again(-submitted) && submitted != -EBUSY) {
        usable_ = false;
        drain(outstanding - ::io_uring_sq_ready(&ring_));
        return fail(-submitted, "io_uring submission");
      }
      io_uring_cqe* cqe = nullptr;
      while (::io_uring_peek_cqe(&ring_, &cqe) == 0) {
        const auto index = static_cast<std::size_t>(::io_uring_cqe_get_data64(cqe));
        const int res = cqe->res;
        ::io_uring_cqe_seen(&ring_, cqe);
        --outstanding;
        if (complete(index, res)) {
          again.push_back(index);
        }
      }
    }
  }

 private:
  void drain(unsigned in_kernel) {
    while (in_kernel > 0) {
      io_uring_cqe* cqe = nullptr;
      const int outcome = ::io_uring_wait_cqe(&ring_, &cqe);
      ODX_CHECK(outcome == 0 || try_again(-outcome));
      if (outcome == 0) {
        ::io_uring_cqe_seen(&ring_, cqe);
        --in_kernel;
      }
    }
  }

  io_uring ring_{};
  bool open_ = false;
  bool usable_ = true;
};

// At most kMaxRings rings, made when first needed.
class RingPool {
 public:
  RingPool() { idle_.reserve(kMaxRings); }

  // Null if there are none and none can be made: the caller must do without.
  std::unique_ptr<Ring> borrow() {
    std::unique_lock lock(mutex_);
    while (idle_.empty()) {
      if (rings_ < kMaxRings && !cannot_grow_) {
        ++rings_;
        lock.unlock();
        auto ring = std::make_unique<Ring>();
        if (ring->open() == 0) {
          return ring;
        }
        lock.lock();
        --rings_;
        cannot_grow_ = true;
        returned_.notify_all();
        continue;
      }
      if (rings_ == 0) {
        return nullptr;
      }
      returned_.wait(lock);
    }
    std::unique_ptr<Ring> ring = std::move(idle_.back());
    idle_.pop_back();
    return ring;
  }

  void give_back(std::unique_ptr<Ring> ring) {
    const std::scoped_lock lock(mutex_);
    if (ring->usable()) {
      idle_.push_back(std::move(ring));
      returned_.notify_one();
    } else {
      --rings_;
      returned_.notify_all();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Ring>> idle_;
  std::size_t rings_ = 0;  // idle or borrowed
  bool cannot_grow_ = false;
};

class UringEngine final : public IoEngine {
 public:
  explicit UringEngine(std::size_t least_for_ring) : least_for_ring_(least_for_ring) {}

  // Whether the kernel lets this process have a ring.
  bool probe() {
    std::unique_ptr<Ring> ring = pool_.borrow();
    if (ring == nullptr) {
      return false;
    }
    pool_.give_back(std::move(ring));
    return true;
  }

  Result<void> run(std::span<const IoRequest> requests) override {
    if (requests.size() < least_for_ring_) {
      return syscalls_.run(requests);
    }
    return with_ring([&](Ring& ring) { return run_on(ring, requests); },
                     [&] { return syscalls_.run(requests); });
  }

  Result<void> sync(std::span<const int> fds) override {
    // The ring hands a flush to a kernel worker: that pays only if several run at once.
    if (fds.size() < 2) {
      return syscalls_.sync(fds);
    }
    return with_ring([&](Ring& ring) { return sync_on(ring, fds); },
                     [&] { return syscalls_.sync(fds); });
  }

  [[nodiscard]] IoEngineKind kind() const override { return IoEngineKind::kUring; }

 private:
  template <class Use, class Without>
  Result<void> with_ring(Use use, Without without) {
    std::unique_ptr<Ring> ring = pool_.borrow();
    if (ring == nullptr) {
      return without();
    }
    struct GiveBack {
      RingPool& pool;
      std::unique_ptr<Ring>& ring;
      ~GiveBack() { pool.give_back(std::move(ring)); }
    } const guard{pool_, ring};
    return use(*ring);
  }

  static Result<void> run_on(Ring& ring, std::span<const IoRequest> requests) {
    Result<void> outcome;
    std::vector<std::size_t> done(requests.size(), 0);
    const auto prepare = [&](io_uring_sqe* sqe, std::size_t index) {
      const IoRequest& request = requests[index];
      std::byte* at = request.buffer + done[index];
      const auto rest = static_cast<unsigned>(request.length - done[index]);
      const std::uint64_t offset = request.offset + done[index];
      if (request.kind == IoRequest::Kind::kRead) {
        ::io_uring_prep_read(sqe, request.fd, at, rest, offset);
      } else {
        ::io_uring_prep_write(sqe, request.fd, at, rest, offset);
      }
    };
    const auto complete = [&](std::size_t index, int res) {
      const IoRequest& request = requests[index];
      if (res > 0) {
        done[index] += static_cast<std::size_t>(res);
        return done[index] < request.length;
      }
      if (res == 0) {
        if (request.length > 0) {
          note_failure(outcome, EIO, describe(request.kind));
        }
        return false;
      }
      if (try_again(-res)) {
        return true;
      }
      note_failure(outcome, -res, describe(request.kind));
      return false;
    };
    ODX_TRY(ring.run(requests.size(), prepare, complete, [&] { return !outcome; }));
    return outcome;
  }

  static Result<void> sync_on(Ring& ring, std::span<const int> fds) {
    Result<void> outcome;
    const auto prepare = [&](io_uring_sqe* sqe, std::size_t index) {
      ::io_uring_prep_fsync(sqe, fds[index], IORING_FSYNC_DATASYNC);
    };
    const auto complete = [&](std::size_t, int res) {
      if (res < 0 && try_again(-res)) {
        return true;
      }
      if (res < 0) {
        note_failure(outcome, -res, "fdatasync");
      }
      return false;
    };
    ODX_TRY(ring.run(fds.size(), prepare, complete, [] { return false; }));
    return outcome;
  }

  const std::size_t least_for_ring_;
  RingPool pool_;
  SyscallEngine syscalls_;
};

}  // namespace

std::unique_ptr<IoEngine> make_io_engine(IoEngineKind wanted, std::size_t least_for_ring) {
  if (wanted == IoEngineKind::kUring) {
    auto engine = std::make_unique<UringEngine>(least_for_ring);
    if (engine->probe()) {
      return engine;
    }
  }
  return std::make_unique<SyscallEngine>();
}

}  // namespace odx
