#include "subtree.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "odx/offload.h"
#include "store/superblock.hpp"

namespace odx::daemon {

namespace {

Result<Fd> open_below(const std::string& root, const std::string& subdir) {
  Fd top(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!top.valid()) {
    return fail(errno, root);
  }
  if (subdir.empty()) {
    return top;
  }
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  // Whoever may write in the store chooses where its links lead.
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  Fd found(static_cast<int>(::syscall(SYS_openat2, top.get(), subdir.c_str(), &how, sizeof how)));
  if (!found.valid()) {
    return fail(errno, fmt::format("subdir={}", subdir));
  }
  return found;
}

std::uint64_t attributes_of(const Options& options) {
  std::uint64_t attributes = options.read_only ? MOUNT_ATTR_RDONLY : 0;
  attributes |= (options.mount_flags & MS_NOSUID) != 0 ? MOUNT_ATTR_NOSUID : 0;
  attributes |= (options.mount_flags & MS_NODEV) != 0 ? MOUNT_ATTR_NODEV : 0;
  attributes |= (options.mount_flags & MS_NOEXEC) != 0 ? MOUNT_ATTR_NOEXEC : 0;
  attributes |= (options.mount_flags & MS_NOSYMFOLLOW) != 0 ? MOUNT_ATTR_NOSYMFOLLOW : 0;
  return attributes;
}

// Whether the mount is a living daemon's that has this store. Anybody may call a mount of his own
// what he likes, so the name means nothing if the owner is another.
bool is_served(const MountEntry& entry, const Uuid& uuid) {
  if (entry.owner != ::geteuid()) {
    return false;
  }
  const Fd top(::open(entry.mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat place {};
  odx_stat told{};
  return top.valid() && ::fstat(top.get(), &place) == 0 && place.st_dev == entry.device &&
         ::ioctl(top.get(), ODX_IOC_STAT, &told) == 0 && std::ranges::equal(uuid, told.uuid);
}

// `subdir` as seen from a mount whose root is the directory `root` of the store; nothing if it is
// not below that.
std::optional<std::string> relative_to(std::string_view root, const std::string& subdir) {
  root.remove_prefix(root.starts_with('/') ? 1 : 0);
  if (root.empty()) {
    return subdir;
  }
  if (subdir == root) {
    return std::string();
  }
  if (!subdir.starts_with(root) || subdir[root.size()] != '/') {
    return std::nullopt;
  }
  return subdir.substr(root.size() + 1);
}

}  // namespace

Result<Fd> clone_subtree(const std::string& mounted, const std::string& subdir,
                         const Options& options) {
  const Fd directory = ODX_TRY(open_below(mounted, subdir));
  Fd mount(::open_tree(directory.get(), "",
                       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | static_cast<unsigned>(AT_EMPTY_PATH)));
  if (!mount.valid()) {
    return fail(errno, "a mount point for a part of the store");
  }
  mount_attr attributes{};
  attributes.attr_set = attributes_of(options);
  attributes.attr_clr = (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                         MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW) &
                        ~attributes.attr_set;
  if (::mount_setattr(mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
    return fail(errno, "the options of the mount point");
  }
  return mount;
}

Result<void> attach_mount(const Fd& mount, const std::string& mount_point) {
  if (::move_mount(mount.get(), "", AT_FDCWD, mount_point.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return fail(errno, fmt::format("mounting on {}", mount_point));
  }
  return {};
}

Result<bool> join_mount(const Options& options) {
  const Superblock super = ODX_TRY(read_superblock(options.store));
  const std::vector<MountEntry> mounts = find_mounts_of(options.store);
  const auto ours = std::ranges::find_if(
      mounts, [&](const MountEntry& entry) { return is_served(entry, super.uuid); });
  if (ours == mounts.end()) {
    return false;
  }
  Error why(ENOENT, fmt::format("only the directory {} of the store is mounted", ours->root));
  for (const MountEntry& there : find_mounts_with(ours->device)) {
    const std::optional<std::string> subdir = relative_to(there.root, options.subdir);
    if (!subdir) {
      continue;
    }
    const Result<Fd> mount = clone_subtree(there.mount_point, *subdir, options);
    if (mount) {
      ODX_TRY(attach_mount(*mount, options.mount_point));
      return true;
    }
    if (mount.error().errno_value() == ENOTCONN) {
      return false;  // its daemon has died
    }
    why = mount.error();
  }
  return std::unexpected(why);
}

Result<PrivatePlace> PrivatePlace::make() {
  std::error_code error;
  std::string outer = std::filesystem::temp_directory_path(error).string() + "/odxfs-XXXXXX";
  if (error || ::mkdtemp(outer.data()) == nullptr) {
    return fail(error ? error.value() : errno, outer);
  }
  PrivatePlace place(std::move(outer));
  if (::mkdir(place.path().c_str(), 0700) != 0) {
    return fail(errno, place.path());
  }
  return place;
}

PrivatePlace::~PrivatePlace() {
  if (!outer_.empty()) {
    ::rmdir(path().c_str());
    ::rmdir(outer_.c_str());
  }
}

}  // namespace odx::daemon
