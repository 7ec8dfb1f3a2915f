// odx cp: copies files and trees, by offload where possible.
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <ostream>

#include "command.hpp"
#include "tree_copy.hpp"

namespace odx::cli {

namespace {

bool is_directory(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
}

// The name that a copy of `source` gets inside `directory`: "a/b//" becomes "directory/b". What has
// no name of its own ("/", "." and "..") is copied into the directory itself.
std::string place_inside(const std::string& directory, std::string source) {
  while (source.size() > 1 && source.back() == '/') {
    source.pop_back();
  }
  const std::string name = source.substr(source.rfind('/') + 1);
  return name.empty() || name == "." || name == ".." ? directory : directory + '/' + name;
}

// Every level of a tree holds two descriptors open.
void allow_deep_trees() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace

int run_cp(const Arguments& args, Streams& io) {
  CommandLine line(
      "cp [OPTION...] SOURCE... DESTINATION",
      "Copies files. Within one odxfs, the destination comes to share the source's data by "
      "tokens;\n"
      "what cannot be offloaded is copied with copy_file_range(2) or by reading and writing.\n"
      "If DESTINATION is a directory, the copies go into it under their own names.");
  line.add()("recursive,r",
             "copy trees; keep modes, times, extended attributes, access lists, symbolic and\n"
             "hard links, for root owners too");
  line.add()("require-offload", "fail rather than copy in any other way, however small the file");
  line.add()("no-offload", "do not try to offload");
  line.add()("verbose,v", "a line for every file: which path was taken, and why");
  line.add()("ranges", "as -v, and a line for every range of a file and the way it took");
  line.add()("json", "as --ranges, but a JSON object for every file, one on a line");
  line.size_option("threshold", "SIZE", "copy smaller files the ordinary way (default: 256K)");
  line.number_option("ttl", "MS", "milliseconds until an unused token expires", UINT32_MAX);
  line.operands(2, SIZE_MAX);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }
  if (line.given("require-offload") && line.given("no-offload")) {
    io.err << "odx: --require-offload and --no-offload exclude each other\n";
    return kUsage;
  }

  std::vector<std::string> sources = line.operands();
  const std::string destination = sources.back();
  sources.pop_back();
  const bool into = is_directory(destination);
  if (!into && (sources.size() > 1 || destination.ends_with('/'))) {
    // A tree may be copied to a new name that is written as a directory's.
    if (sources.size() > 1 || !line.given("recursive") || !is_directory(sources[0])) {
      complain(io, destination, "not a directory");
      return kFailed;
    }
  }

  TreeCopyOptions options;
  options.recursive = line.given("recursive");
  options.verbose = line.given("verbose") || line.given("ranges");
  options.ranges = line.given("ranges");
  options.json = line.given("json");
  options.copy.flags = (line.given("require-offload") ? ODX_COPY_REQUIRE_OFFLOAD : 0) |
                       (line.given("no-offload") ? ODX_COPY_NO_OFFLOAD : 0);
  options.copy.ttl_ms = static_cast<std::uint32_t>(line.size("ttl").value_or(0));
  // In libodx 0 stands for the default.
  if (const auto threshold = line.size("threshold")) {
    options.copy.threshold = std::max<std::uint64_t>(1, *threshold);
  }
  allow_deep_trees();
  TreeCopy copy(options, io);
  copy.measure(sources);
  for (const std::string& source : sources) {
    const std::string place = into ? place_inside(destination, source) : destination;
    copy.copy(source, place, place == destination);
  }
  return copy.problems() == 0 ? kDone : kFailed;
}

}  // namespace odx::cli
