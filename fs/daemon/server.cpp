// Order matters at both ends.
//
// Start: store, mount, receiving threads, agreement with the kernel, tuning.
// End: unmount (the kernel writes everything back, and receiving threads must serve that), then the
// executors (their last requests need receiving threads, too), then the threads, then the device,
// then the store.
#include "server.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/log.hpp"
#include "mount.hpp"
#include "reply.hpp"
#include "subtree.hpp"

namespace odx::daemon {

namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 15s;  // with a predecessor that is still closing the store
constexpr auto kPollInterval = 50ms;

OpenOptions open_options(const Options& options) {
  OpenOptions out;
  out.read_only = options.read_only;
  out.device = options.device;
  out.device.read_only = options.read_only;
  if (options.flush_interval) {
    out.meta.flush_interval = *options.flush_interval;
  }
  out.tokens.extend = options.extend;
  out.tokens.bind_to_user = options.tokens_bound_to_user;
  if (options.ttl_max) {
    out.tokens.ttl_max_ms = static_cast<std::uint64_t>(options.ttl_max->count());
  }
  out.tokens.max_total = options.tokens_max.value_or(out.tokens.max_total);
  out.tokens.max_per_uid = options.tokens_max_per_user.value_or(out.tokens.max_per_uid);
  out.tokens.max_pinned_bytes = options.pinned_max.value_or(out.tokens.max_pinned_bytes);
  out.tokens.max_pinned_bytes_per_uid =
      options.pinned_max_per_user.value_or(out.tokens.max_pinned_bytes_per_uid);
  return out;
}

// By a living daemon, that is. One of another user's cannot be asked, as it need not answer.
bool is_mounted_somewhere(const std::string& store) {
  return std::ranges::any_of(find_mounts_of(store), [](const MountEntry& entry) {
    return entry.owner != ::geteuid() || !is_dead(entry);
  });
}

}  // namespace

Result<std::unique_ptr<Server>> Server::start(Options options) {
  // The kernel may wait for us when it is short of memory; we must not wait for it in turn.
  ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  std::unique_ptr<Server> server(new Server(std::move(options)));
  ODX_TRY(guarded([&]() -> Result<void> {
    ODX_TRY(server->open_store());
    return server->mount();
  }));
  return server;
}

Server::~Server() {
  if (fs_ != nullptr) {
    fs_->controllers.stop();
    fs_->seekers.stop();
  }
}

// umount(8) returns before the daemon has closed its store, so a mount that follows at once finds
// it in use: that is waited for. A store that is mounted somewhere is not, but for the moment that
// a daemon which was killed takes to die: its mount looks alive until then.
Result<void> Server::open_store() {
  constexpr std::chrono::seconds kDying(3);
  const auto began = std::chrono::steady_clock::now();
  for (;;) {
    Result<std::unique_ptr<Store>> store = Store::open(options_.store, open_options(options_));
    if (store) {
      store_ = std::move(*store);
      // Its last daemon may have died only now, and be in the way.
      detach_dead_mounts(options_.store, options_.mount_point);
      return {};
    }
    const auto waited = std::chrono::steady_clock::now() - began;
    if (store.error().errno_value() != EBUSY || waited > kPatience ||
        (waited > kDying && is_mounted_somewhere(options_.store))) {
      return std::unexpected(store.error());
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

Result<void> Server::mount() {
  const bool read_only = options_.read_only || store_->core().read_only;
  if (read_only && !options_.read_only) {
    log::warn("the store is damaged; mounting it read-only");
  }
  fs_ = std::make_unique<Filesystem>(*store_, options_);
  if (options_.subdir.empty()) {
    return serve_at(options_.mount_point, read_only);
  }
  // The whole is mounted where nobody sees it, until there is a mount of the part.
  const PrivatePlace place = ODX_TRY(PrivatePlace::make());
  ODX_TRY(serve_at(place.path(), read_only));
  const Result<Fd> part = clone_subtree(place.path(), options_.subdir, options_);
  const Result<void> attached =
      part ? attach_mount(*part, options_.mount_point) : std::unexpected(part.error());
  (void)unmount_filesystem(place.path(), UnmountMode::kDetach);
  return attached;
}

Result<void> Server::serve_at(const std::string& mount_point, bool read_only) {
  Fd device = ODX_TRY(mount_filesystem(options_, mount_point, read_only));
  const std::optional<MountEntry> entry = find_mount_at(mount_point);
  fs_->device = entry ? entry->device : 0;
  view_ = std::make_unique<OwnView>(options_.mount_point, fs_->device);
  const Result<void> started = guarded([&]() -> Result<void> {
    transport_ = ODX_TRY(Transport::create(std::move(device), *fs_));
    fs_->coherence.attach(transport_->session(), view_.get());
    return transport_->start();
  });
  if (!started) {
    // The threads first: if it is threads that are short, fusermount3 cannot be started either.
    fs_->controllers.stop();
    fs_->seekers.stop();
    transport_.reset();
    (void)unmount_filesystem(mount_point, UnmountMode::kDetach);
    return started;
  }
  if (entry && ::geteuid() == 0) {
    tune_read_ahead(entry->device);
  }
  if (entry) {
    const Result<void> watched = watchdog_.start(options_.mount_point, entry->device);
    if (!watched) {
      log::warn("{}", watched.error().message());  // served all the same
    }
  }
  return {};
}

Result<void> Server::run() {
  if (wait_for_end()) {
    unmount();
  } else {
    clear_dead_mount();
  }
  watchdog_.stop();
  fs_->controllers.stop();
  fs_->seekers.stop();
  transport_->stop();
  transport_.reset();
  return close_store();
}

bool Server::wait_for_end() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  const Fd asked(::signalfd(-1, &signals, SFD_CLOEXEC));
  pollfd events[2] = {{transport_->ended_event(), POLLIN, 0}, {asked.get(), POLLIN, 0}};
  while (::poll(events, 2, -1) < 0 && errno == EINTR) {
  }
  return (events[0].revents & POLLIN) == 0;
}

void Server::unmount() {
  bool written_back = false;
  for (const MountEntry& entry : find_mounts_with(fs_->device)) {
    const Result<void> clean = unmount_filesystem(entry.mount_point, UnmountMode::kIfIdle);
    if (clean) {
      continue;
    }
    // Somebody still uses it. They lose their files, but nothing that they have written.
    log::warn("unmounting while in use: {}", clean.error().message());
    if (!std::exchange(written_back, true)) {
      fs_->coherence.write_back_all();
    }
    const Result<void> detached = unmount_filesystem(entry.mount_point, UnmountMode::kDetach);
    if (!detached) {
      log::warn("{}", detached.error().message());
    }
  }
  // Who holds files of a mount that was detached, or that lives on in another mount namespace, has
  // written to it like anybody else. If nobody does, the connection is gone, and this does nothing.
  fs_->coherence.write_back_all();
}

// The kernel ended the connection: after an unmount, or because somebody aborted it, which leaves
// mounts behind that nobody can use.
void Server::clear_dead_mount() {
  for (const MountEntry& entry : find_mounts_with(fs_->device)) {
    log::warn("the connection to the kernel was aborted");
    (void)unmount_filesystem(entry.mount_point, UnmountMode::kDetach);
  }
}

Result<void> Server::close_store() {
  if (!store_->core().read_only) {
    const Result<void> reaped = store_->names().reap_all_orphans();
    if (!reaped) {
      log::warn("nameless files stay until the next mount: {}", reaped.error().message());
    }
  }
  return store_->close();
}

}  // namespace odx::daemon
