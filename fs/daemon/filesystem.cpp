#include "filesystem.hpp"

#include "base/log.hpp"
#include "reply.hpp"

namespace odx::daemon {

namespace {
constexpr unsigned kSeekers = 2;
constexpr unsigned kControllers = 4;
}  // namespace

Filesystem::Filesystem(Store& store_in, const Options& options_in)
    : store(store_in),
      options(options_in),
      coherence(store_in, inodes, options_in.writeback),
      seekers(kSeekers),
      controllers(kControllers) {}

void Filesystem::forget(InodeNo ino, std::uint64_t count) {
  if (inodes.forget(ino, count)) {
    reap(ino);
  }
}

void Filesystem::released(InodeNo ino, bool for_writing) {
  if (inodes.closed(ino, for_writing)) {
    reap(ino);
  }
}

void Filesystem::lost_name(const Inode& inode) {
  if (inode.nlink == 0 && inodes.has_no_name(inode.ino)) {
    reap(inode.ino);
  }
}

void Filesystem::reap(InodeNo ino) {
  const Result<void> reaped = guarded([&] { return store.names().reap(ino); });
  if (!reaped) {
    (void)guarded([&]() -> Result<void> {
      log::warn("inode {} stays until the next mount: {}", ino.value(), reaped.error().message());
      return {};
    });
  }
}

}  // namespace odx::daemon
