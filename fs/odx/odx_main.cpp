#include "odx_main.hpp"

#include <fmt/core.h>

#include <exception>
#include <iostream>

#include "base/print.hpp"
#include "command.hpp"

namespace odx::cli {

namespace {

struct Command {
  const char* name;
  const char* about;
  int (*run)(const Arguments& args, Streams& io);
};

constexpr Command kCommands[] = {
    {"cp", "copy files and trees, by offload where possible", run_cp},
    {"read", "take a token for a range of a file", run_read},
    {"write", "write what a token stands for into a file", run_write},
    {"zero", "zero a range of a file by offload", run_zero},
    {"token", "list, show and drop live tokens", run_token},
    {"stat", "tell what a mounted odxfs is and has done", run_stat},
    {"resize", "tell or change how far a store may grow", run_resize},
    {"check", "recount everything in a store, mounted or not", run_check},
    {"scrub", "read and verify every block of a mounted store", run_scrub},
    {"unmount", "unmount and wait until the daemon is gone", run_unmount},
};

void print_help(std::ostream& out) {
  print(out, "Usage: odx COMMAND [ARGUMENT...]\n\nCommands:\n");
  for (const Command& command : kCommands) {
    print(out, "  {:<10} {}\n", command.name, command.about);
  }
  print(out,
        "\nodx COMMAND --help tells more; odx --version prints the version.\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage.\n");
}

int dispatch(const Arguments& args, Streams& io) {
  if (args.empty()) {
    print_help(io.err);
    return kUsage;
  }
  const std::string& name = args.front();
  if (name == "--help" || name == "-h" || name == "help") {
    print_help(io.out);
    return kDone;
  }
  if (name == "--version") {
    print(io.out, "odx {}\n", ODX_VERSION);
    return kDone;
  }
  for (const Command& command : kCommands) {
    if (name == command.name) {
      return command.run(Arguments(args.begin() + 1, args.end()), io);
    }
  }
  print(io.err, "odx: no command '{}' (see odx --help)\n", name);
  return kUsage;
}

}  // namespace

int odx_main(const std::vector<std::string>& args, std::istream& in, std::ostream& out,
             std::ostream& err) {
  Streams io{in, out, err};
  try {
    int code = dispatch(args, io);
    if (!out.flush() && code == kDone) {
      print(err, "odx: the output could not be written\n");
      code = kFailed;
    }
    return code;
  } catch (const std::exception& e) {
    print(err, "odx: {}\n", e.what());
    return kFailed;
  }
}

}  // namespace odx::cli
