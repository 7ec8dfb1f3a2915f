// Purpose: `odx cp`. Trees are walked with descriptors (openat and so on), so that neither long
// paths nor renames under way lead anywhere else; full paths are for messages and for linking to
// earlier copies only. A directory gets its mode and times after its entries, because making those
// changes them, and a read-only directory would refuse them.
#include "tree_copy.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/print.hpp"
#include "copy_xattrs.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

constexpr mode_t kPermissions = 07777;
constexpr mode_t kSetId = S_ISUID | S_ISGID;

// The names in a directory, sorted, so that runs can be compared.
Result<std::vector<std::string>> names_in(int dir_fd) {
  Fd own(::openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own.valid()) {
    return fail(errno);
  }
  const std::unique_ptr<DIR, CloseDir> dir(::fdopendir(own.get()));
  if (dir == nullptr) {
    return fail(errno);
  }
  (void)own.release();  // the stream closes it
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name(entry->d_name);
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
    errno = 0;
  }
  if (errno != 0) {
    return fail(errno);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// An error about `path`; its text is the whole line for the user.
std::unexpected<Error> blame(const std::string& path, int error) {
  return fail(error, fmt::format("{}: {}", path, Error(error).message()));
}
std::unexpected<Error> blame(const std::string& path, std::string_view why) {
  return fail(EINVAL, fmt::format("{}: {}", path, why));
}

std::pair<dev_t, ino_t> key_of(const struct stat& st) { return {st.st_dev, st.st_ino}; }

// Leads to the very file, a symbolic link included, without a way that others could change.
std::string proc_path(const Fd& fd) { return fmt::format("/proc/self/fd/{}", fd.get()); }

std::array<timespec, 2> times_of(const struct stat& st) { return {st.st_atim, st.st_mtim}; }

// What was done to how much: "1.0 GiB by offload, 4.0 KiB by copy_file_range".
std::string paths_taken(const odx_copy_report& report) {
  std::string text;
  const auto add = [&](std::uint64_t bytes, const char* how) {
    if (bytes != 0) {
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", size_text(bytes), how);
    }
  };
  add(report.bytes_offloaded, "by offload");
  add(report.bytes_cloned, "by copy_file_range");
  add(report.bytes_copied, "by reading and writing");
  add(report.bytes_skipped, "of holes");
  return text.empty() ? "empty" : text;
}

const char* way_text(std::uint32_t way) {
  switch (way) {
    case ODX_WAY_TOKEN:
      return "by a token";
    case ODX_WAY_ZEROS:
      return "known zeros";
    case ODX_WAY_CLONE:
      return "by copy_file_range";
    case ODX_WAY_COPY:
      return "by reading and writing";
    default:
      return "a hole, stepped over";
  }
}

const char* way_key(std::uint32_t way) {
  constexpr const char* kKeys[] = {"unknown", "token", "zeros", "clone", "copy", "hole"};
  return kKeys[way < std::size(kKeys) ? way : 0];
}

std::string why_not_offloaded(const odx_copy_report& report) {
  if (report.note == ODX_COPY_REFUSED) {
    return why_failed(report.error, {report.status, report.reason, 0});
  }
  return odx_copy_note_text(report.note);
}

std::string to_json(const std::string& from, const std::string& to, const odx_copy_report& report,
                    const std::vector<odx_copy_range>& ranges) {
  nlohmann::ordered_json json{{"source", from},
                              {"destination", to},
                              {"bytes_total", report.bytes_total},
                              {"bytes_offloaded", report.bytes_offloaded},
                              {"bytes_shared", report.bytes_shared},
                              {"bytes_cloned", report.bytes_cloned},
                              {"bytes_copied", report.bytes_copied},
                              {"bytes_skipped", report.bytes_skipped},
                              {"offloaded_whole", report.note == ODX_COPY_WHOLE}};
  if (report.note != ODX_COPY_WHOLE) {
    json["why"] = why_not_offloaded(report);
  }
  auto& list = json["ranges"] = nlohmann::ordered_json::array();
  for (const odx_copy_range& range : ranges) {
    list.push_back({{"offset", range.offset},
                    {"length", range.length},
                    {"way", way_key(range.way)},
                    {"bytes_shared", range.bytes_shared}});
  }
  // Names are whatever bytes their makers chose.
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::uint64_t measure_entry(int dir, const char* name, bool recursive) {
  struct stat st {};
  if (::fstatat(dir, name, &st, recursive ? AT_SYMLINK_NOFOLLOW : 0) != 0) {
    return 0;
  }
  if (S_ISREG(st.st_mode)) {
    return static_cast<std::uint64_t>(st.st_size);
  }
  if (!recursive || !S_ISDIR(st.st_mode)) {
    return 0;
  }
  const Fd fd(::openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  const auto names = fd.valid() ? names_in(fd.get()) : fail(errno);
  std::uint64_t total = 0;
  if (names) {
    for (const auto& entry : *names) {
      total += measure_entry(fd.get(), entry.c_str(), recursive);
    }
  }
  return total;
}

}  // namespace

TreeCopy::TreeCopy(const TreeCopyOptions& options, Streams& io)
    : options_(options), io_(io), progress_(io.err) {}

void TreeCopy::measure(const std::vector<std::string>& sources) {
  if (!progress_.shown()) {
    return;
  }
  std::uint64_t total = 0;
  for (const auto& source : sources) {
    total += measure_entry(AT_FDCWD, source.c_str(), options_.recursive);
  }
  progress_.set_total(total);
}

void TreeCopy::copy(const std::string& source, const std::string& destination, bool named) {
  copy_entry({AT_FDCWD, source.c_str(), source},
             {AT_FDCWD, destination.c_str(), destination, named || !options_.recursive});
}

void TreeCopy::copy_entry(const Place& from, const Place& to) {
  if (const auto result = copy_any(from, to); !result) {
    progress_.clear();
    print(io_.err, "odx: {}\n", result.error().detail());
    ++problems_;
  }
}

Result<void> TreeCopy::copy_any(const Place& from, const Place& to) {
  struct stat st {};
  // A symlink that the user names is followed, unless trees are copied: then it is one of theirs.
  if (::fstatat(from.dir, from.name, &st, options_.recursive ? AT_SYMLINK_NOFOLLOW : 0) != 0) {
    return blame(from.path, errno);
  }
  if (S_ISDIR(st.st_mode)) {
    return options_.recursive ? copy_directory(from, to, st)
                              : blame(from.path, "is a directory (-r copies trees)");
  }
  if (!options_.recursive) {
    return S_ISREG(st.st_mode) ? copy_file(from, to) : blame(from.path, "not a regular file");
  }
  if (st.st_nlink > 1 && link_to_earlier(to, st)) {
    progress_.finish_file(S_ISREG(st.st_mode) ? static_cast<std::uint64_t>(st.st_size) : 0);
    say(from, to, "linked");
    return {};
  }
  if (S_ISREG(st.st_mode)) {
    ODX_TRY(copy_file(from, to));
  } else {
    ODX_TRY(copy_special(from, to, st));
  }
  if (st.st_nlink > 1) {
    struct stat made {};
    if (::fstatat(to.dir, to.name, &made, AT_SYMLINK_NOFOLLOW) == 0) {
      linked_.emplace(key_of(st), Copied{to.path, key_of(made)});
    }
  }
  return {};
}

Result<void> TreeCopy::copy_file(const Place& from, const Place& to) {
  // O_NONBLOCK: it could have become a pipe since it was looked at.
  const int nofollow = options_.recursive ? O_NOFOLLOW : 0;
  const Fd source(::openat(from.dir, from.name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | nofollow));
  struct stat st {};
  if (!source.valid() || ::fstat(source.get(), &st) != 0) {
    return blame(from.path, errno);
  }
  if (!S_ISREG(st.st_mode)) {
    return blame(from.path, "is not a regular file any more");
  }
  bool created = false;
  Fd destination =
      ODX_TRY(open_destination(to, options_.recursive ? 0600 : st.st_mode & 0777, created));
  struct stat existing {};
  if (::fstat(destination.get(), &existing) != 0) {
    return blame(to.path, errno);
  }
  if (key_of(existing) == key_of(st)) {
    return blame(from.path, fmt::format("is the same file as {}", to.path));
  }
  if (options_.recursive && !S_ISREG(existing.st_mode)) {
    return blame(to.path, "exists and is not a regular file");
  }

  struct Watch {
    Progress& progress;
    std::vector<odx_copy_range> ranges;
  } watch{progress_, {}};
  odx_copy_options how = options_.copy;
  how.context = &watch;
  how.progress = [](const odx_copy_report* report, const odx_copy_range* step, void* context) {
    auto& [progress, ranges] = *static_cast<Watch*>(context);
    progress.update(report->bytes_offloaded + report->bytes_cloned + report->bytes_copied +
                    report->bytes_skipped);
    if (!ranges.empty() && ranges.back().way == step->way && ranges.back().note == step->note) {
      ranges.back().length += step->length;
      ranges.back().bytes_shared += step->bytes_shared;
    } else {
      ranges.push_back(*step);
    }
    return 0;
  };
  odx_copy_report report{};
  if (const int error = odx_copy(source.get(), destination.get(), &how, &report); error != 0) {
    const bool refused =
        (how.flags & ODX_COPY_REQUIRE_OFFLOAD) != 0 && report.note != ODX_COPY_WHOLE;
    if (refused && created) {
      ::unlinkat(to.dir, to.name, 0);
    }
    return blame(from.path,
                 refused
                     ? fmt::format("not offloaded to {}: {}", to.path, why_not_offloaded(report))
                     : fmt::format("copying to {}: {}", to.path, Error(-error).message()));
  }
  progress_.finish_file(report.bytes_total);
  if (options_.recursive) {
    ODX_TRY(keep_attributes(to, destination.get(), source.get(), st));
  }
  // What the kernel could not write is told here at the latest.
  if (::close(destination.release()) != 0) {
    return blame(to.path, errno);
  }
  say_copied(from, to, report, watch.ranges);
  return {};
}

Result<Fd> TreeCopy::open_destination(const Place& to, mode_t mode, bool& created) {
  const auto create = [&] {
    Fd fd(::openat(to.dir, to.name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    created = fd.valid();
    return fd;
  };
  Fd fd = create();
  if (!created && errno == EEXIST) {
    const int how = to.follow ? 0 : O_NOFOLLOW | O_NONBLOCK;
    fd.reset(::openat(to.dir, to.name, O_WRONLY | O_CLOEXEC | how));
    if (!fd.valid() && !to.follow && errno == ELOOP && ::unlinkat(to.dir, to.name, 0) == 0) {
      fd = create();
    }
  }
  if (!fd.valid()) {
    return blame(to.path, errno);
  }
  return fd;
}

Result<void> TreeCopy::copy_directory(const Place& from, const Place& to, const struct stat& st) {
  const Fd source(::openat(from.dir, from.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!source.valid()) {
    return blame(from.path, errno);
  }
  if (made_.contains(key_of(st))) {
    return blame(from.path, "is where this copy goes, and is not copied into itself");
  }
  const bool made = ::mkdirat(to.dir, to.name, 0700) == 0;
  if (!made && errno != EEXIST) {
    return blame(to.path, errno);
  }
  const Fd destination(
      ::openat(to.dir, to.name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (to.follow ? 0 : O_NOFOLLOW)));
  struct stat own {};
  if (!destination.valid() || ::fstat(destination.get(), &own) != 0) {
    return blame(to.path, errno);
  }
  if (key_of(own) == key_of(st)) {
    return blame(from.path, fmt::format("is the same directory as {}", to.path));
  }
  if (made) {
    made_.insert(key_of(own));
  }
  const auto names = names_in(source.get());
  if (!names) {
    return blame(from.path, names.error().errno_value());
  }
  for (const std::string& name : *names) {
    const std::string from_path = from.path + '/' + name;
    const std::string to_path = to.path + '/' + name;
    copy_entry({source.get(), name.c_str(), from_path}, {destination.get(), name.c_str(), to_path});
  }
  return keep_attributes(to, destination.get(), source.get(), st);
}

Result<void> TreeCopy::copy_special(const Place& from, const Place& to, const struct stat& st) {
  const auto make = [&]() -> Result<void> {
    if (!S_ISLNK(st.st_mode)) {
      const int made = ::mknodat(to.dir, to.name, (st.st_mode & S_IFMT) | 0600, st.st_rdev);
      return made == 0 ? Result<void>{} : blame(to.path, errno);
    }
    std::string target(PATH_MAX, '\0');
    const ssize_t length = ::readlinkat(from.dir, from.name, target.data(), target.size());
    if (length < 0) {
      return blame(from.path, errno);
    }
    target.resize(static_cast<std::size_t>(length));
    const int made = ::symlinkat(target.c_str(), to.dir, to.name);
    return made == 0 ? Result<void>{} : blame(to.path, errno);
  };
  auto made = make();
  if (!made && made.error().errno_value() == EEXIST && ::unlinkat(to.dir, to.name, 0) == 0) {
    made = make();
  }
  if (!made) {
    return made;
  }
  // Held fast from here on: whoever may write in the directory could put something else there.
  const Fd node(::openat(to.dir, to.name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat own {};
  if (!node.valid() || ::fstat(node.get(), &own) != 0) {
    return blame(to.path, errno);
  }
  if ((own.st_mode & S_IFMT) != (st.st_mode & S_IFMT) || own.st_nlink != 1) {
    return blame(to.path, "was replaced while it was copied");
  }
  const bool owner_kept =
      ::geteuid() == 0 && ::fchownat(node.get(), "", st.st_uid, st.st_gid, AT_EMPTY_PATH) == 0;
  const mode_t mode = st.st_mode & (owner_kept ? kPermissions : kPermissions & ~kSetId);
  if (!S_ISLNK(st.st_mode) && ::chmod(proc_path(node).c_str(), mode) != 0) {
    return blame(to.path, errno);
  }
  const auto times = times_of(st);
  if (::utimensat(node.get(), "", times.data(), AT_EMPTY_PATH) != 0) {
    return blame(to.path, errno);
  }
  say(from, to, S_ISLNK(st.st_mode) ? "symbolic link" : "special file");
  return {};
}

bool TreeCopy::link_to_earlier(const Place& to, const struct stat& st) {
  const auto earlier = linked_.find(key_of(st));
  if (earlier == linked_.end()) {
    return false;
  }
  // The path may lead elsewhere by now.
  const Fd copy(::open(earlier->second.path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat own {};
  if (!copy.valid() || ::fstat(copy.get(), &own) != 0 || key_of(own) != earlier->second.key) {
    return false;
  }
  const auto link = [&] {
    return ::linkat(AT_FDCWD, proc_path(copy).c_str(), to.dir, to.name, AT_SYMLINK_FOLLOW) == 0;
  };
  // If it cannot be linked, it is copied like any other.
  return link() || (errno == EEXIST && ::unlinkat(to.dir, to.name, 0) == 0 && link());
}

Result<void> TreeCopy::keep_attributes(const Place& to, int fd, int from, const struct stat& st) {
  // Set-id bits were given to a file of that owner, and must not move to another's.
  mode_t mode = st.st_mode & kPermissions;
  if (::geteuid() != 0 || ::fchown(fd, st.st_uid, st.st_gid) != 0) {
    struct stat own {};
    if (::fstat(fd, &own) != 0) {
      return blame(to.path, errno);
    }
    if (own.st_uid != st.st_uid || own.st_gid != st.st_gid) {
      mode &= ~kSetId;
    }
  }
  if (::fchmod(fd, mode) != 0) {
    return blame(to.path, errno);
  }
  // Behind the owner and the mode: a change of owner takes capabilities away, and a mode is written
  // into an access list.
  if (const Result<void> copied = copy_xattrs(from, fd); !copied) {
    return blame(to.path, copied.error().errno_value());
  }
  const auto times = times_of(st);
  if (::futimens(fd, times.data()) != 0) {
    return blame(to.path, errno);
  }
  return {};
}

void TreeCopy::say_copied(const Place& from, const Place& to, const odx_copy_report& report,
                          const std::vector<odx_copy_range>& ranges) {
  if (options_.json) {
    progress_.clear();
    io_.out << to_json(from.path, to.path, report, ranges) << std::endl;
    return;
  }
  say(from, to,
      report.note == ODX_COPY_WHOLE
          ? paths_taken(report)
          : fmt::format("{} ({})", paths_taken(report), why_not_offloaded(report)));
  if (options_.ranges) {
    for (const odx_copy_range& range : ranges) {
      print(io_.out, "  {} +{} {}\n", range.offset, range.length, way_text(range.way));
    }
  }
}

void TreeCopy::say(const Place& from, const Place& to, std::string_view what) {
  if (options_.verbose && !options_.json) {
    progress_.clear();
    print(io_.out, "{} -> {}: {}\n", from.path, to.path, what);
    io_.out.flush();
  }
}

}  // namespace odx::cli
