// Each worker owns a clone of the device, so that the kernel need not take one lock for all, and
// two buffers: requests land so that the data of a WRITE starts on a page boundary, and READ data
// is put together page-aligned too. Nothing is allocated for either.
//
// There are as many workers as processors and two more. When all of them are busy with requests
// that may wait for the disk, more are added, up to kMaxWorkers: that is what gives the store a
// queue of reads, and fsync a group to commit. Workers are never taken away; idle ones cost their
// stacks.
//
// libfuse does the long tail of operations on this session, but not the mount, the loop or the
// writing: its INIT answer leaves out flags that it does not know, so we send our own.
#include "transport.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/log.hpp"
#include "operations.hpp"
#include "reply.hpp"

namespace odx::daemon {

namespace {

constexpr unsigned kMinWorkers = 4;
constexpr std::size_t kMaxWorkers = 32;
constexpr int kWakeSignal = SIGUSR1;
constexpr std::uint16_t kMaxBackground = 256;

// Set while this thread has libfuse answer an INIT request.
thread_local const fuse_init_in* t_init = nullptr;

unsigned initial_workers() {
  return std::max(kMinWorkers, std::thread::hardware_concurrency() + 2);
}

bool may_wait_for_disk(std::uint32_t opcode) {
  switch (opcode) {
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_SYNCFS:
    case FUSE_COPY_FILE_RANGE:
    case abi::kOpCopyFileRange64:
      return true;
    default:
      return false;
  }
}

void install_wake_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // its one effect: a blocking read ends with EINTR
  ::sigaction(kWakeSignal, &action, nullptr);
}

std::uint64_t offered_flags(const fuse_init_in& in) {
  return in.flags | (static_cast<std::uint64_t>(in.flags2) << 32);
}

std::uint64_t wanted_flags(const Options& options) {
  constexpr std::uint64_t kAlways = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT |
                                    FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_DO_READDIRPLUS |
                                    FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                                    FUSE_POSIX_ACL | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |
                                    FUSE_EXPLICIT_INVAL_DATA | FUSE_HANDLE_KILLPRIV_V2 |
                                    FUSE_SETXATTR_EXT | FUSE_INIT_EXT | abi::kInitDirectIoAllowMmap;
  return kAlways | (options.writeback ? std::uint64_t{FUSE_WRITEBACK_CACHE} : 0);
}

void set_terms(const fuse_init_in& in, const Options& options, fuse_init_out& out) {
  const std::uint64_t flags = offered_flags(in) & wanted_flags(options);
  out.flags = static_cast<std::uint32_t>(flags);
  out.flags2 = static_cast<std::uint32_t>(flags >> 32);
  out.max_readahead = in.max_readahead;
  out.max_write = abi::kMaxPayloadBytes;
  out.max_pages = static_cast<std::uint16_t>(abi::kMaxPayloadBytes / kBlockBytes);
  out.max_background = kMaxBackground;
  out.congestion_threshold = kMaxBackground / 4 * 3;
  out.time_gran = 1;
}

}  // namespace

Result<std::unique_ptr<Transport>> Transport::create(Fd device, Filesystem& fs) {
  std::unique_ptr<Transport> transport(new Transport(fs));
  fuse_lowlevel_ops ops{};
  add_lookup_operations(ops);
  add_name_operations(ops);
  add_file_operations(ops);
  add_directory_operations(ops);
  add_xattr_operations(ops);
  add_ioctl_operation(ops);

  char program[] = "odxfs";
  char* argv[] = {program, nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(1, argv);
  transport->session_.reset(::fuse_session_new(&arguments, &ops, sizeof ops, &fs));
  ::fuse_opt_free_args(&arguments);  // libfuse made a copy of its own
  if (transport->session_ == nullptr) {
    return fail(ENOMEM, "libfuse");
  }
  const fuse_custom_io io{&write_reply, &read_request, nullptr, nullptr};
  const int error = ::fuse_session_custom_io(transport->session_.get(), &io, device.get());
  if (error != 0) {
    return fail(-error, "libfuse");
  }
  transport->device_ = device.release();
  transport->ended_ = Fd(::eventfd(0, EFD_CLOEXEC));
  if (!transport->ended_.valid()) {
    return fail(errno, "eventfd");
  }
  return transport;
}

Transport::~Transport() { stop(); }

Result<void> Transport::start() {
  install_wake_handler();
  {
    const std::lock_guard lock(mutex_);
    for (unsigned i = 0; i < initial_workers(); ++i) {
      if (Result<void> added = add_worker(); !added) {
        stopping_ = true;  // before any of them serves
        return added;
      }
    }
  }
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [this] { return agreed_ || stopping_; });
  if (!agreed_) {
    return fail(EPROTO, "the kernel's FUSE is too old or does not answer");
  }
  return {};
}

void Transport::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  // A worker may be about to block when the signal comes, so it is sent until it has had effect.
  for (Worker& worker : workers_) {
    while (!worker.finished) {
      ::pthread_kill(worker.thread.native_handle(), kWakeSignal);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    if (worker.thread.joinable()) {
      worker.thread.join();
    }
  }
}

// Under mutex_.
Result<void> Transport::add_worker() {
  if (stopping_ || workers_.size() >= kMaxWorkers) {
    return {};
  }
  Worker& worker = workers_.emplace_back();
  const Result<void> started = guarded([&]() -> Result<void> {
    worker.incoming = AlignedBuffer(kBlockBytes + abi::kMaxPayloadBytes);
    worker.scratch = AlignedBuffer(abi::kMaxPayloadBytes);
    worker.own_device = Fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    auto main_device = static_cast<std::uint32_t>(device_);
    if (worker.own_device.valid() &&
        ::ioctl(worker.own_device.get(), FUSE_DEV_IOC_CLONE, &main_device) != 0) {
      worker.own_device.reset();
    }
    worker.thread = std::thread([this, &worker] { run(worker); });
    return {};
  });
  if (!started) {
    workers_.pop_back();  // no memory, or no more threads
  }
  return started;
}

void Transport::run(Worker& worker) {
  const int device = worker.own_device.valid() ? worker.own_device.get() : device_;
  ReplyDevice::use(device);
  // At the start nobody serves before it is sure that there are enough of us.
  { const std::lock_guard lock(mutex_); }
  while (!stopping_ && receive(worker, device)) {
  }
  if (!stopping_) {
    const std::uint64_t one = 1;
    if (::write(ended_.get(), &one, sizeof one) < 0) {
      log::error("eventfd: {}", errno);
    }
    const std::lock_guard lock(mutex_);
    ready_.notify_all();
  }
  worker.finished = true;
}

bool Transport::receive(Worker& worker, int device) {
  std::byte* const base = worker.incoming.data() + kBlockBytes - abi::kWriteHeaderBytes;
  idle_.fetch_add(1, std::memory_order_relaxed);
  const ssize_t n = ::read(device, base, abi::kWriteHeaderBytes + abi::kMaxPayloadBytes);
  const int error = errno;
  const bool was_last_idle = idle_.fetch_sub(1, std::memory_order_relaxed) == 1;
  if (n < 0) {
    if (error == EINTR || error == EAGAIN || error == ENOENT) {
      return true;  // ENOENT: the request was withdrawn while it was being read
    }
    if (error != ENODEV && error != ECONNABORTED) {
      log::error("reading from the kernel: {}", Error(error).message());
    }
    return false;
  }
  const std::span<std::byte> message(base, static_cast<std::size_t>(n));
  const auto* header = reinterpret_cast<const fuse_in_header*>(base);
  if (message.size() < sizeof(fuse_in_header) || header->len != message.size()) {
    log::error("the kernel sent a malformed request of {} bytes", n);
    return false;
  }
  fs_.requests.fetch_add(1, std::memory_order_relaxed);
  if (was_last_idle && may_wait_for_disk(header->opcode)) {
    const std::lock_guard lock(mutex_);
    (void)add_worker();  // those that there are will do
  }
  dispatch(message, worker);
  return true;
}

void Transport::dispatch(std::span<std::byte> message, Worker& worker) {
  RawRequest request(message, worker.scratch);
  switch (request.header().opcode) {
    case FUSE_INIT:
      negotiate(message, worker);
      return;
    case FUSE_INTERRUPT:
      // No request of ours waits for long; this answer makes the kernel stop asking.
      request.reply_error(ENOSYS);
      return;
    default:
      break;
  }
  if (!serve_raw(fs_, request)) {
    pass_to_libfuse(message);
  }
}

// libfuse answers INIT; write_reply() puts our own terms in place of its.
void Transport::negotiate(std::span<std::byte> message, Worker& worker) {
  const RawRequest request(message, worker.scratch);
  const auto init = request.argument<fuse_init_in>();
  if (init) {
    t_init = *init;
    const std::uint64_t agreed = offered_flags(*t_init) & wanted_flags(fs_.options);
    fs_.long_setxattr = (agreed & FUSE_SETXATTR_EXT) != 0;
    fs_.needs_opendir = (offered_flags(*t_init) & FUSE_NO_OPENDIR_SUPPORT) == 0;
  }
  pass_to_libfuse(message);
  t_init = nullptr;
  const std::lock_guard lock(mutex_);
  agreed_ = init.has_value();
  ready_.notify_all();
}

void Transport::pass_to_libfuse(std::span<std::byte> message) {
  fuse_buf buffer{};
  buffer.size = message.size();
  buffer.mem = message.data();
  ::fuse_session_process_buf(session_.get(), &buffer);
}

ssize_t Transport::write_reply(int device, iovec* parts, int count, void* userdata) {
  const auto* header = static_cast<const fuse_out_header*>(parts[0].iov_base);
  if (header->unique == 0) {  // a notification
    return ::writev(device, parts, count);
  }
  if (t_init != nullptr && header->error == 0 && count == 2 &&
      parts[1].iov_len == sizeof(fuse_init_out)) {
    fuse_init_out terms{};
    std::memcpy(&terms, parts[1].iov_base, sizeof terms);
    set_terms(*t_init, static_cast<const Filesystem*>(userdata)->options, terms);
    iovec own[2] = {parts[0], {&terms, sizeof terms}};
    return ::writev(ReplyDevice::current(), own, 2);
  }
  return ::writev(ReplyDevice::current(), parts, count);
}

ssize_t Transport::read_request(int device, void* buffer, size_t bytes, void* /*userdata*/) {
  return ::read(device, buffer, bytes);
}

}  // namespace odx::daemon
