#include "own_view.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "attributes.hpp"
#include "base/log.hpp"
#include "mount.hpp"

namespace odx::daemon {

namespace {

// What the kernel makes of a FUSE inode for name_to_handle_at(2): FILEID_INO64_GEN.
constexpr int kHandleType = 0x81;

}  // namespace

Fd OwnView::open_root() const {
  const auto open_at = [this](const std::string& path) {
    Fd root(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct stat place {};
    if (!root.valid() || ::fstat(root.get(), &place) != 0 || place.st_dev != device_) {
      root.reset();  // something else is mounted on top
    }
    return root;
  };
  Fd root = open_at(mount_point_);
  if (!root.valid()) {  // unmounted, but there are others
    for (const MountEntry& entry : find_mounts_with(device_)) {
      root = open_at(entry.mount_point);
      if (root.valid()) {
        break;
      }
    }
  }
  return root;
}

Fd OwnView::open(InodeNo ino, int flags) {
  if (forbidden_.load(std::memory_order_relaxed)) {
    return {};
  }
  const Fd root = open_root();
  if (!root.valid()) {
    return {};
  }
  alignas(file_handle) unsigned char raw[sizeof(file_handle) + 3 * sizeof(std::uint32_t)];
  auto* handle = reinterpret_cast<file_handle*>(raw);
  handle->handle_bytes = 3 * sizeof(std::uint32_t);
  handle->handle_type = kHandleType;
  const std::uint32_t words[3] = {static_cast<std::uint32_t>(ino.value() >> 32),
                                  static_cast<std::uint32_t>(ino.value()),
                                  static_cast<std::uint32_t>(kGeneration)};
  std::memcpy(raw + sizeof(file_handle), words, sizeof words);
  // O_NONBLOCK: a lease that somebody holds on the file is not waited for (45 s, by default).
  Fd file(::open_by_handle_at(root.get(), handle, flags | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid() && errno == EPERM && !forbidden_.exchange(true)) {
    log::info(
        "without CAP_DAC_READ_SEARCH, modification times after offload writes show late on "
        "this mount");
  }
  return file;
}

bool OwnView::touch(InodeNo ino) {
  const Fd file = open(ino, O_PATH);
  if (!file.valid()) {
    return false;
  }
  const timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  return ::utimensat(AT_FDCWD, fmt::format("/proc/self/fd/{}", file.get()).c_str(), times, 0) == 0;
}

bool OwnView::write_back(InodeNo ino) {
  const Fd file = open(ino, O_RDONLY);
  return file.valid() && ::sync_file_range(file.get(), 0, 0,
                                           SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                               SYNC_FILE_RANGE_WAIT_AFTER) == 0;
}

bool OwnView::begin_write_back_of_all() {
  const Fd root = open_root();
  return root.valid() && ::syncfs(root.get()) == 0;
}

}  // namespace odx::daemon
