#include "options.hpp"

#include <fmt/core.h>
#include <sys/mount.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

namespace odx::daemon {

namespace {

struct MountFlag {
  std::string_view name;
  unsigned long flag;
  bool set;
};
constexpr std::array kMountFlags = {
    MountFlag{"nosuid", MS_NOSUID, true},    MountFlag{"suid", MS_NOSUID, false},
    MountFlag{"nodev", MS_NODEV, true},      MountFlag{"dev", MS_NODEV, false},
    MountFlag{"noexec", MS_NOEXEC, true},    MountFlag{"exec", MS_NOEXEC, false},
    MountFlag{"sync", MS_SYNCHRONOUS, true}, MountFlag{"async", MS_SYNCHRONOUS, false},
    MountFlag{"dirsync", MS_DIRSYNC, true},  MountFlag{"nosymfollow", MS_NOSYMFOLLOW, true},
};

// What mount(8), fstab and helpers may add, and what is so anyway.
constexpr std::array<std::string_view, 25> kIgnored = {
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "diratime",
    "nodiratime",
    "norelatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "default_permissions",
    "large_read",
    "nonempty",
};
constexpr std::array<std::string_view, 7> kIgnoredPrefixes = {
    "user=", "fsname=", "subtype=", "comment=", "x-", "X-", "max_read=",
};

std::unexpected<Error> bad(std::string text) { return fail(EINVAL, std::move(text)); }

Result<std::uint64_t> parse_number(std::string_view name, std::string_view text,
                                   std::uint64_t least, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty() || value < least ||
      value > most) {
    return bad(fmt::format("option {}: a number from {} to {} is needed, not \"{}\"", name, least,
                           most, text));
  }
  return value;
}

Result<void> parse_valued(std::string_view name, std::string_view value, Options& options) {
  if (name == "odx_token_scope") {
    if (value != "user" && value != "bearer") {
      return bad(fmt::format("option odx_token_scope: user or bearer, not \"{}\"", value));
    }
    options.tokens_bound_to_user = value == "user";
  } else if (name == "odx_ttl_max") {
    options.ttl_max = std::chrono::seconds(ODX_TRY(parse_number(name, value, 1, 4'000'000)));
  } else if (name == "odx_tokens_max") {
    options.tokens_max = ODX_TRY(parse_number(name, value, 0, UINT64_MAX));
  } else if (name == "odx_tokens_max_user") {
    options.tokens_max_per_user = ODX_TRY(parse_number(name, value, 0, UINT64_MAX));
  } else if (name == "odx_pinned_max") {
    options.pinned_max = ODX_TRY(parse_number(name, value, 0, UINT64_MAX));
  } else if (name == "odx_pinned_max_user") {
    options.pinned_max_per_user = ODX_TRY(parse_number(name, value, 0, UINT64_MAX));
  } else if (name == "subdir") {
    options.subdir =
        std::string(value.substr(std::min(value.find_first_not_of('/'), value.size())));
    options.subdir.erase(options.subdir.find_last_not_of('/') + 1);
  } else if (name == "io") {
    if (value != "direct" && value != "buffered") {
      return bad(fmt::format("option io: direct or buffered, not \"{}\"", value));
    }
    options.device.mode = value == "direct" ? IoMode::kDirect : IoMode::kBuffered;
  } else if (name == "engine") {
    if (value != "uring" && value != "sync") {
      return bad(fmt::format("option engine: uring or sync, not \"{}\"", value));
    }
    options.device.engine = value == "uring" ? IoEngineKind::kUring : IoEngineKind::kSync;
  } else if (name == "flush") {
    options.flush_interval =
        std::chrono::milliseconds(ODX_TRY(parse_number(name, value, 1, 3'600'000)));
  } else {
    return bad(fmt::format("unknown option: {}", name));
  }
  return {};
}

Result<void> parse_one(std::string_view option, Options& options) {
  if (option == "ro" || option == "rw") {
    options.read_only = option == "ro";
    return {};
  }
  if (option == "writeback" || option == "no_writeback") {
    options.writeback = option == "writeback";
    return {};
  }
  if (option == "join") {
    options.join = true;
    return {};
  }
  if (option == "allow_other") {
    options.allow_other = true;
    return {};
  }
  if (option == "no_offload") {
    options.offload = false;
    return {};
  }
  if (option == "odx_extend") {
    options.extend = true;
    return {};
  }
  if (option == "noatime" || option == "relatime" || option == "atime" || option == "strictatime") {
    options.access_time = option == "noatime"       ? AccessTime::kNever
                          : option == "strictatime" ? AccessTime::kStrict
                                                    : AccessTime::kRelative;
    return {};
  }
  for (const MountFlag& known : kMountFlags) {
    if (option == known.name) {
      options.mount_flags =
          known.set ? options.mount_flags | known.flag : options.mount_flags & ~known.flag;
      return {};
    }
  }
  if (std::ranges::find(kIgnored, option) != kIgnored.end() ||
      std::ranges::any_of(kIgnoredPrefixes,
                          [&](std::string_view prefix) { return option.starts_with(prefix); })) {
    return {};
  }
  const std::size_t equals = option.find('=');
  if (equals == std::string_view::npos) {
    return bad(fmt::format("unknown option: {}", option));
  }
  return parse_valued(option.substr(0, equals), option.substr(equals + 1), options);
}

}  // namespace

Options::Options() : mount_flags(MS_NOSUID | MS_NODEV) {}

Result<void> parse_mount_options(std::string_view list, Options& options) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (comma != 0) {
      ODX_TRY(parse_one(list.substr(0, comma), options));
    }
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return {};
}

Result<Options> parse_command_line(int argc, const char* const* argv) {
  Options options;
  std::vector<std::string> places;
  bool only_places = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (only_places || argument.size() < 2 || argument[0] != '-') {
      places.emplace_back(argument);
    } else if (argument == "--") {
      only_places = true;
    } else if (argument == "-f" || argument == "--foreground") {
      options.foreground = true;
    } else if (argument == "-h" || argument == "--help") {
      options.help = true;
      return options;
    } else if (argument == "-V" || argument == "--version") {
      options.version = true;
      return options;
    } else if (argument.starts_with("-o")) {
      if (argument.size() == 2 && ++i == argc) {
        return bad("-o needs an argument");
      }
      ODX_TRY(parse_mount_options(argument.size() == 2 ? argv[i] : argument.substr(2), options));
    } else {
      return bad(fmt::format("unknown argument: {}", argument));
    }
  }
  if (places.size() != 2) {
    return bad("a store and a mount point are needed (see odxfs --help)");
  }
  options.store = places[0];
  options.mount_point = places[1];
  return options;
}

std::string_view usage_text() {
  return R"(usage: odxfs STORE MOUNTPOINT [-o OPTION[,OPTION...]] [-f]

Mounts the store in the directory STORE (made by mkfs.odxfs) on MOUNTPOINT, and
returns once it is mounted.

  -f, --foreground      stay in the foreground and log to standard error
  -o OPTION             mount options, see below
  -h, --help            print this
  -V, --version         print the version

Mount options:
  ro, rw                read-only or not (default: rw)
  subdir=DIR            mount only the directory DIR of the store (root only)
  join                  if the store is mounted already, make MOUNTPOINT another mount
                        point of it, served by the same daemon (root only)
  allow_other           other users may use the mount (root: always)
  writeback             the kernel may gather writes (default)
  no_writeback          every write(2) reaches the daemon before it returns
  relatime, noatime, strictatime
                        when reads renew access times (default: relatime)
  odx_extend            an offload write may extend its file
  odx_token_scope=user  a token works only for the user who made it (default: bearer)
  odx_ttl_max=SECONDS   longest time to live of a token (default: 600)
  odx_tokens_max=N, odx_tokens_max_user=N
                        most live tokens, of all users and of one
                        (default: 100000 and 10000)
  odx_pinned_max=BYTES, odx_pinned_max_user=BYTES
                        most data that live tokens stand for (default: no limit)
  no_offload            refuse the offload controls
  io=direct, io=buffered
                        how the store reads and writes its data (default: direct)
  engine=uring, engine=sync
                        by which system calls (default: uring)
  flush=MS              longest time that a change stays in memory (default: 1000)
  suid, dev, noexec, sync, ...
                        as in mount(8); nosuid and nodev are the default
)";
}

}  // namespace odx::daemon
