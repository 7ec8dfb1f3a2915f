// odx zero: FSCTL_OFFLOAD_WRITE with the zero token.
#include <fcntl.h>
#include <fmt/core.h>

#include "base/print.hpp"
#include "command.hpp"
#include "redeem.hpp"

namespace odx::cli {

int run_zero(const Arguments& args, Streams& io) {
  CommandLine line("zero --offset N --length N FILE",
                   "Makes a range of FILE zeros, without writing any: it becomes a hole.");
  line.size_option("offset", "N", "start of the range, in whole sectors", true);
  line.size_option("length", "N", "length, in whole sectors or up to the end of FILE", true);
  line.add()("verbose,v", "tell how much was zeroed");
  line.add()("json", "print one JSON object that tells what was done");
  line.operands(1, 1);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }

  const std::string& path = line.operands()[0];
  const auto file = open_file(path, O_WRONLY);
  if (!file) {
    complain(io, path, file.error().message());
    return kFailed;
  }
  odx_token token;
  odx_zero_token(&token);
  const Redemption done = redeem(file->get(), token, *line.size("offset"), *line.size("length"), 0);
  if (line.given("json")) {
    print_json(io.out, path, done);
  } else if (line.given("verbose")) {
    print(io.out, "{}: {} bytes zeroed\n", path, done.written);
  }
  if (done.error == 0) {
    return kDone;
  }
  complain(io, path,
           done.written == 0 ? why_failed(done.error, done.result)
                             : fmt::format("only {} bytes were zeroed: {}", done.written,
                                           why_failed(done.error, done.result)));
  return kFailed;
}

}  // namespace odx::cli
