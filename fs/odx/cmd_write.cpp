// odx write: the raw FSCTL_OFFLOAD_WRITE, repeated until all is written.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <iostream>

#include "base/codec.hpp"
#include "base/print.hpp"
#include "base/types.hpp"
#include "command.hpp"
#include "redeem.hpp"
#include "token_file.hpp"

namespace odx::cli {

namespace {

constexpr std::uint64_t kUnit = 4096;  // a multiple of every sector

// Without --length: as much as the token holds and the file takes. The zero token never ends, so
// with it the file's end is the end.
std::uint64_t default_length(int fd, const odx_token& token, std::uint64_t offset) {
  if (load_be<std::uint32_t>(token.type) == ODX_TOKEN_TYPE_ZERO_DATA) {
    struct stat st {};
    ::fstat(fd, &st);
    const auto size = static_cast<std::uint64_t>(st.st_size);
    return offset < size ? round_up(size - offset, kUnit) : kUnit;
  }
  return offset < kMaxFileBytes ? std::max(kUnit, round_down(kMaxFileBytes - offset, kUnit))
                                : kUnit;
}

}  // namespace

int run_write(const Arguments& args, Streams& io) {
  CommandLine line("write [OPTION...] FILE < TOKEN",
                   "Writes what a token stands for into FILE, which must be on the same store.\n"
                   "The file does not grow unless it is mounted with odx_extend: give it its size\n"
                   "first, for example with truncate(1).");
  line.size_option("offset", "N", "where in FILE to start, in whole sectors (default: 0)");
  line.size_option("length", "N",
                   "how much to write, in whole sectors or up to the end of FILE "
                   "(default: all that the token holds and FILE has room for)");
  line.size_option("transfer-offset", "N",
                   "where in the token's range to start, in whole sectors "
                   "(default: 0)");
  line.text_option("token", "TOKENFILE", "read the token from a file instead of standard input");
  line.add()("verbose,v", "tell how much was written");
  line.add()("json", "print one JSON object that tells what was done");
  line.operands(1, 1);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }

  const std::string source = line.given("token") ? line.text("token") : "-";
  const auto token = load_token(source, io);
  if (!token) {
    complain(io, source == "-" ? "standard input" : source, plain_text(token.error()));
    return kFailed;
  }
  const std::string& path = line.operands()[0];
  const auto file = open_file(path, O_WRONLY);
  if (!file) {
    complain(io, path, file.error().message());
    return kFailed;
  }
  const std::uint64_t offset = line.size("offset").value_or(0);
  const auto wanted = line.size("length");
  const Redemption done = redeem(file->get(), *token, offset,
                                 wanted ? *wanted : default_length(file->get(), *token, offset),
                                 line.size("transfer-offset").value_or(0));
  if (line.given("json")) {
    print_json(io.out, path, done);
  } else if (line.given("verbose")) {
    print(io.out, "{}: {} bytes written, {} of them by sharing\n", path, done.written, done.shared);
  }
  if (done.error == 0 || (!wanted && done.written > 0 && used_up(done))) {
    return kDone;
  }
  complain(io, path,
           done.written == 0 ? why_failed(done.error, done.result)
                             : fmt::format("only {} bytes were written: {}", done.written,
                                           why_failed(done.error, done.result)));
  return kFailed;
}

}  // namespace odx::cli
