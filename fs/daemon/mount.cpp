#include "mount.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <vector>

#include "fuse_abi.hpp"

namespace odx::daemon {

namespace {

constexpr std::string_view kSubtype = "odxfs";
constexpr const char* kType = "fuse.odxfs";
constexpr const char* kHelper = "fusermount3";

// Octal escapes of mountinfo: \040 and the like.
std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char octal = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(&text[i + 1], &text[i + 1] + 3, octal, 8).ec == std::errc{}) {
      out.push_back(static_cast<char>(octal));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

template <class Matches>
std::vector<MountEntry> find_mounts(Matches matches,
                                    const std::string& list = "/proc/self/mountinfo") {
  std::ifstream mounts(list);
  std::vector<MountEntry> found;
  for (std::string line; std::getline(mounts, line);) {
    std::optional<MountEntry> entry = parse_mountinfo_line(line);
    if (entry && entry->type == kType && matches(*entry)) {
      found.push_back(std::move(*entry));
    }
  }
  return found;
}

std::optional<uid_t> owner_in(std::string_view options) {
  constexpr std::string_view kOwner = "user_id=";
  while (!options.empty()) {
    const std::string_view option = options.substr(0, options.find(','));
    if (option.starts_with(kOwner)) {
      uid_t owner = 0;
      const char* end = option.data() + option.size();
      const auto got = std::from_chars(option.data() + kOwner.size(), end, owner);
      return got.ec == std::errc{} && got.ptr == end ? std::optional(owner) : std::nullopt;
    }
    options.remove_prefix(std::min(option.size() + 1, options.size()));
  }
  return std::nullopt;
}

std::optional<std::string> resolve(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                         &std::free);
  return real != nullptr ? std::optional<std::string>(real.get()) : std::nullopt;
}

std::optional<MountEntry> newest(std::vector<MountEntry> mounts) {
  return mounts.empty() ? std::nullopt : std::optional(std::move(mounts.back()));
}

Result<Fd> mount_as_root(const Options& options, const std::string& mount_point, bool read_only) {
  struct stat place {};
  if (::stat(mount_point.c_str(), &place) != 0) {
    return fail(errno, mount_point);
  }
  Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device.valid()) {
    return fail(errno, "/dev/fuse");
  }
  const std::string data = fmt::format(
      "fd={},rootmode={:o},user_id=0,group_id=0,default_permissions,allow_other,max_read={}",
      device.get(), place.st_mode & S_IFMT, abi::kMaxPayloadBytes);
  const unsigned long read_only_flag = MS_RDONLY;
  const unsigned long flags = options.mount_flags | (read_only ? read_only_flag : 0);
  if (::mount(options.store.c_str(), mount_point.c_str(), kType, flags, data.c_str()) != 0) {
    return fail(errno, fmt::format("mounting on {}", mount_point));
  }
  return device;
}

std::string escape_commas(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ',' || c == '\\') {
      out.push_back('\\');
    }
    out.push_back(c);
  }
  return out;
}

struct HelperRun {
  int status = 0;
  std::string complaint;  // its standard error, one line
};

// Runs fusermount3; `socket`, if valid, becomes the descriptor that it sends the device through.
Result<HelperRun> run_helper(const std::vector<std::string>& arguments, int socket) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail(errno, "pipe");
  }
  Fd reading(ends[0]);
  Fd writing(ends[1]);

  std::vector<char*> argv;
  std::vector<std::string> owned = arguments;
  for (std::string& argument : owned) {
    argv.push_back(argument.data());
  }
  argv.push_back(nullptr);
  constexpr int kSocketThere = 3;
  std::string variable = fmt::format("_FUSE_COMMFD={}", kSocketThere);
  std::vector<char*> environment;
  for (char** at = environ; *at != nullptr; ++at) {
    environment.push_back(*at);
  }
  if (socket >= 0) {
    environment.push_back(variable.data());
  }
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), STDERR_FILENO);
  if (socket >= 0) {
    ::posix_spawn_file_actions_adddup2(&actions, socket, kSocketThere);
  }
  pid_t child = -1;
  const int error =
      ::posix_spawnp(&child, kHelper, &actions, nullptr, argv.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return fail(error, kHelper);
  }
  writing.reset();

  HelperRun run;
  std::array<char, 512> chunk;
  for (ssize_t n = 0; (n = ::read(reading.get(), chunk.data(), chunk.size())) > 0;) {
    run.complaint.append(chunk.data(), static_cast<std::size_t>(n));
  }
  run.complaint.resize(std::min(run.complaint.find('\n'), run.complaint.size()));
  while (::waitpid(child, &run.status, 0) < 0 && errno == EINTR) {
  }
  return run;
}

Result<Fd> receive_descriptor(int socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n = 0;
  do {
    n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  const cmsghdr* header = n > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) {
    return fail(EPERM, kHelper);
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Fd(fd);
}

Result<Fd> mount_by_helper(const Options& options, const std::string& mount_point, bool read_only) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(errno, "socketpair");
  }
  const Fd ours(ends[0]);
  Fd theirs(ends[1]);
  std::string list = fmt::format("fsname={},subtype={},default_permissions,max_read={}",
                                 escape_commas(options.store), kSubtype, abi::kMaxPayloadBytes);
  list += read_only ? ",ro" : "";
  list += options.allow_other ? ",allow_other" : "";
  list += (options.mount_flags & MS_NOEXEC) != 0 ? ",noexec" : "";
  list += (options.mount_flags & MS_SYNCHRONOUS) != 0 ? ",sync" : "";
  list += (options.mount_flags & MS_DIRSYNC) != 0 ? ",dirsync" : "";
  const HelperRun run = ODX_TRY(run_helper({kHelper, "-o", list, "--", mount_point}, theirs.get()));
  theirs.reset();
  if (run.status != 0) {
    return fail(EPERM, run.complaint.empty() ? kHelper : run.complaint);
  }
  return receive_descriptor(ours.get());
}

void write_setting(const std::string& file, std::string_view value) {
  const Fd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd.valid() && ::write(fd.get(), value.data(), value.size()) < 0) {
    return;  // an older kernel, or a sandbox: slower, but right
  }
}

}  // namespace

Result<Fd> mount_filesystem(const Options& options, const std::string& mount_point,
                            bool read_only) {
  return ::geteuid() == 0 ? mount_as_root(options, mount_point, read_only)
                          : mount_by_helper(options, mount_point, read_only);
}

Result<void> unmount_filesystem(const std::string& mount_point, UnmountMode mode) {
  if (::geteuid() == 0) {
    const int flags = UMOUNT_NOFOLLOW | (mode == UnmountMode::kDetach ? MNT_DETACH : 0);
    if (::umount2(mount_point.c_str(), flags) != 0) {
      return fail(errno, mount_point);
    }
    return {};
  }
  std::vector<std::string> arguments = {kHelper, "-u"};
  if (mode == UnmountMode::kDetach) {
    arguments.emplace_back("-z");
  }
  arguments.emplace_back("--");
  arguments.push_back(mount_point);
  const HelperRun run = ODX_TRY(run_helper(arguments, -1));
  if (run.status != 0) {
    return fail(EBUSY, run.complaint.empty() ? kHelper : run.complaint);
  }
  return {};
}

std::optional<MountEntry> parse_mountinfo_line(std::string_view line) {
  // id parent major:minor root mount-point options [tag...] - type source super-options
  std::vector<std::string_view> words;
  std::size_t dash = 0;
  while (!line.empty()) {
    const std::size_t space = std::min(line.find(' '), line.size());
    if (space != 0) {
      if (line.substr(0, space) == "-" && dash == 0) {
        dash = words.size();
      }
      words.push_back(line.substr(0, space));
    }
    line.remove_prefix(std::min(space + 1, line.size()));
  }
  if (dash < 6 || words.size() < dash + 3) {
    return std::nullopt;
  }
  const std::string_view device = words[2];
  const char* end = device.data() + device.size();
  unsigned major_number = 0;
  unsigned minor_number = 0;
  const auto first = std::from_chars(device.data(), end, major_number);
  if (first.ec != std::errc{} || first.ptr == end || *first.ptr != ':' ||
      std::from_chars(first.ptr + 1, end, minor_number).ec != std::errc{}) {
    return std::nullopt;
  }
  MountEntry entry;
  entry.device = makedev(major_number, minor_number);
  entry.root = unescape(words[3]);
  entry.mount_point = unescape(words[4]);
  entry.type = unescape(words[dash + 1]);
  entry.source = unescape(words[dash + 2]);
  entry.owner = owner_in(words.size() > dash + 3 ? words[dash + 3] : std::string_view());
  return entry;
}

std::optional<MountEntry> find_mount_at(std::string_view mount_point) {
  return newest(
      find_mounts([&](const MountEntry& entry) { return entry.mount_point == mount_point; }));
}

std::optional<MountEntry> find_mount_of(std::string_view source) {
  return newest(find_mounts([&](const MountEntry& entry) { return entry.source == source; }));
}

std::optional<MountEntry> find_mount_named(std::string path) {
  while (path.size() > 1 && path.back() == '/') {
    path.pop_back();
  }
  const auto slash = path.rfind('/');
  const std::string name = path.substr(slash + 1);
  if (!name.empty() && name != "." && name != "..") {
    const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    if (const auto real = resolve(parent)) {
      if (auto entry = find_mount_at(*real == "/" ? "/" + name : *real + "/" + name)) {
        return entry;
      }
    }
  }
  const auto real = resolve(path);
  return real ? find_mount_at(*real) : std::nullopt;
}

std::vector<MountEntry> find_mounts_of(std::string_view source) {
  auto mounts = find_mounts([&](const MountEntry& entry) { return entry.source == source; });
  std::ranges::reverse(mounts);
  return mounts;
}

std::vector<MountEntry> find_mounts_with(dev_t device) {
  return find_mounts([&](const MountEntry& entry) { return entry.device == device; });
}

std::optional<pid_t> other_holder_of(dev_t device) {
  std::error_code error;
  std::set<std::filesystem::path> seen = {
      std::filesystem::read_symlink("/proc/self/ns/mnt", error)};
  for (const auto& process : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = process.path().filename().string();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ptr !=
        name.data() + name.size()) {
      continue;
    }
    const auto space = std::filesystem::read_symlink(process.path() / "ns/mnt", error);
    if (!error && seen.insert(space).second &&
        !find_mounts([&](const MountEntry& entry) { return entry.device == device; },
                     (process.path() / "mountinfo").string())
             .empty()) {
      return pid;
    }
  }
  return std::nullopt;
}

bool is_dead(const MountEntry& entry) {
  struct statvfs answer {};
  return ::statvfs(entry.mount_point.c_str(), &answer) != 0 &&
         (errno == ENOTCONN || errno == ECONNABORTED);
}

void tune_read_ahead(dev_t device) {
  const std::string place = fmt::format("/sys/class/bdi/{}:{}/", major(device), minor(device));
  write_setting(place + "read_ahead_kb", "1024");
  write_setting(place + "strict_limit", "0");
  write_setting(place + "max_ratio", "100");
}

}  // namespace odx::daemon
