#include "fsck_main.hpp"

#include <ostream>
#include <sstream>
#include <string_view>

#include "base/print.hpp"
#include "check_report.hpp"

namespace odx::cli {

namespace {

void print_help(std::ostream& out) {
  print(out,
        "Usage: fsck.odxfs [-a|-p|-y|-n] [-f] [-V] STORE\n\n"
        "Checks the odxfs store in the directory STORE, which must not be mounted. A store needs\n"
        "no check after a crash: mounting recovers it.\n\n"
        "  -a, -p, -y  repair what can be mended without a guess; there are no questions\n"
        "  -n          change nothing (the default)\n"
        "  -f          accepted: a check is always complete\n"
        "  -V          print the version\n"
        "  -h, --help  print this help\n\n"
        "Exit codes: 0 clean, 1 everything repaired, 4 problems (left), 8 not checked or the\n"
        "repair could not be completed, 16 wrong usage. `odx check` has more options.\n");
}

int misused(std::ostream& err, std::string_view why) {
  print(err, "fsck.odxfs: {} (see fsck.odxfs --help)\n", why);
  return kCheckUsage;
}

}  // namespace

int fsck_main(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  CheckRequest request;
  request.program = "fsck.odxfs";
  bool options_end = false;
  bool keep = false;
  std::vector<std::string> operands;
  for (const std::string& arg : args) {
    if (options_end || arg.size() < 2 || arg[0] != '-') {
      operands.push_back(arg);
    } else if (arg == "--") {
      options_end = true;
    } else if (arg == "--help") {
      print_help(out);
      return kClean;
    } else {
      for (const char option : std::string_view(arg).substr(1)) {
        switch (option) {
          case 'a':
          case 'p':
          case 'y':
            request.repair = true;
            break;
          case 'n':
            keep = true;
            break;
          case 'f':
            break;
          case 'V':
            print(out, "fsck.odxfs {}\n", ODX_VERSION);
            return kClean;
          case 'h':
            print_help(out);
            return kClean;
          default:
            return misused(err, "unknown option '" + arg + "'");
        }
      }
    }
  }
  if (keep && request.repair) {
    return misused(err, "-n does not go with -a, -p or -y");
  }
  if (operands.size() != 1) {
    return misused(err, operands.empty() ? "which store?" : "one store at a time");
  }
  request.store = operands[0];
  std::istringstream nothing;
  Streams io{nothing, out, err};
  return check_and_report(request, io);
}

}  // namespace odx::cli
