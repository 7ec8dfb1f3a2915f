// Running the odx command in this process.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "fake_odxfs.hpp"
#include "odx_main.hpp"

namespace odx::testing {

struct Run {
  int code = 0;
  std::string out;
  std::string err;
};

inline Run run_odx(const std::vector<std::string>& args, const std::string& input = {}) {
  std::istringstream in(input);
  std::ostringstream out;
  std::ostringstream err;
  Run run;
  run.code = cli::odx_main(args, in, out, err);
  run.out = out.str();
  run.err = err.str();
  return run;
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// One line, which names what it is about.
inline bool is_error_line(const std::string& text, const std::string& subject) {
  return text.starts_with("odx: " + subject + ": ") &&
         std::count(text.begin(), text.end(), '\n') == 1 && text.ends_with('\n');
}

// Files are too long to be shown when they differ.
inline bool same(const std::string& a, const std::string& b) { return a == b; }

inline struct stat stat_of(const std::string& path) {
  struct stat st {};
  REQUIRE(::lstat(path.c_str(), &st) == 0);
  return st;
}

inline bool same_times(const struct stat& a, const struct stat& b) {
  return a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

inline void set_mtime(const std::string& path, time_t seconds, long nanoseconds) {
  const timespec times[2] = {{seconds, 1}, {seconds, nanoseconds}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
}

struct InOdxfs {
  TempDir dir;
  FakeOdxfs fake{dir.path()};
  std::string from = dir.file("from");
  std::string to = dir.file("to");
};

}  // namespace odx::testing
