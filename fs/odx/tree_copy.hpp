// Copying files and trees for `odx cp`.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "command.hpp"
#include "odx/odx.h"
#include "progress.hpp"

namespace odx::cli {

struct TreeCopyOptions {
  bool recursive = false;  // trees too; modes, times, links and, for root, owners are kept
  bool verbose = false;    // a line for every file on io.out
  bool ranges = false;     // and one for every range
  bool json = false;       // instead: a JSON object for every file
  odx_copy_options copy{};
};

// One run of `odx cp`. Problems with single files are said on io.err and counted; the copy goes on
// with the next file.
class TreeCopy {
 public:
  TreeCopy(const TreeCopyOptions& options, Streams& io);

  // Bytes in regular files below the sources, for the progress bar; only if one is shown.
  void measure(const std::vector<std::string>& sources);

  // Copies `source` to the very name `destination`. An existing file is overwritten in place, an
  // existing directory is copied into. `named`: a person chose that name, so that a link there is
  // meant to be followed; others may have put links in the way of a tree, and those are not.
  void copy(const std::string& source, const std::string& destination, bool named);

  [[nodiscard]] std::uint64_t problems() const { return problems_; }

 private:
  // An entry of a directory that is held open: what messages call it, and how to reach it.
  struct Place {
    int dir;
    const char* name;
    const std::string& path;
    bool follow = false;  // a symbolic link that has the name
  };
  using FileKey = std::pair<dev_t, ino_t>;

  // Below here, errors carry the whole line for the user as their text.
  void copy_entry(const Place& from, const Place& to);
  Result<void> copy_any(const Place& from, const Place& to);
  Result<void> copy_file(const Place& from, const Place& to);
  // Opened for writing; created with `mode` if there was none, or a link that is not followed.
  Result<Fd> open_destination(const Place& to, mode_t mode, bool& created);
  Result<void> copy_directory(const Place& from, const Place& to, const struct stat& st);
  // Symlinks, fifos, sockets, devices. What has the name already is replaced.
  Result<void> copy_special(const Place& from, const Place& to, const struct stat& st);
  // True if it is now another name of the earlier copy of the same inode.
  bool link_to_earlier(const Place& to, const struct stat& st);
  // Of `from`, which `st` tells of, on `fd`.
  static Result<void> keep_attributes(const Place& to, int fd, int from, const struct stat& st);
  // The line of -v, for what has no content to copy.
  void say(const Place& from, const Place& to, std::string_view what);
  // The same for a file, with what happened to each part of it.
  void say_copied(const Place& from, const Place& to, const odx_copy_report& report,
                  const std::vector<odx_copy_range>& ranges);

  const TreeCopyOptions& options_;
  Streams& io_;
  Progress progress_;
  std::uint64_t problems_ = 0;
  struct Copied {
    std::string path;
    FileKey key;
  };
  // First copy of every source inode that has more than one name.
  std::map<FileKey, Copied> linked_;
  // Directories that this run made, so that a copy into itself ends.
  std::set<FileKey> made_;
};

}  // namespace odx::cli
