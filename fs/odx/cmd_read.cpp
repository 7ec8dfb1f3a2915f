// odx read: the raw FSCTL_OFFLOAD_READ.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/print.hpp"
#include "base/types.hpp"
#include "command.hpp"
#include "text.hpp"
#include "token_file.hpp"

namespace odx::cli {

namespace {

constexpr std::uint64_t kUnit = 4096;  // a multiple of every sector

// Up to the end of the file, in whole sectors. At or behind the end still something, so that the
// filesystem says what is wrong.
std::uint64_t rest_of_file(int fd, std::uint64_t offset) {
  struct stat st {};
  ::fstat(fd, &st);
  const auto size = static_cast<std::uint64_t>(st.st_size);
  return offset < size ? round_up(size - offset, kUnit) : kUnit;
}

void describe(std::ostream& to, const std::string& file, std::uint64_t length, std::uint32_t flags,
              const odx_token& token) {
  TokenIdBytes id{};
  const bool has_id = odx_token_id(&token, id.data()) == 0;
  print(
      to, "{}: {} bytes, token {}{}\n", file, length, has_id ? hex(id) : "of zeros",
      (flags & ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE) != 0 ? ", nothing but zeros after it" : "");
}

void print_json(std::ostream& out, const std::string& file, std::uint64_t length,
                std::uint32_t flags, const odx_token* token, int error, const odx_result& result) {
  nlohmann::ordered_json json{{"file", file}};
  if (token != nullptr) {
    TokenIdBytes id{};
    json["token"] = odx_token_id(token, id.data()) == 0 ? hex(id) : "zeros";
    json["length"] = length;
    json["zeros_beyond"] = (flags & ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE) != 0;
  }
  add_outcome(json, error, result);
  // Names are whatever bytes their makers chose.
  out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

}  // namespace

int run_read(const Arguments& args, Streams& io) {
  CommandLine line(
      "read [OPTION...] FILE > TOKEN",
      "Takes a token for a range of FILE and writes its 512 bytes to standard output.\n"
      "Whoever has the token can write the range, as it is now, into a file of the\n"
      "same store until it expires: keep it as secret as the data.");
  line.size_option("offset", "N", "start of the range, in whole sectors (default: 0)");
  line.size_option("length", "N",
                   "length of the range, in whole sectors or up to the end of the "
                   "file (default: the rest of the file)");
  line.number_option("ttl", "MS",
                     "milliseconds until an unused token expires (default: the "
                     "filesystem's)",
                     UINT32_MAX);
  line.add()("sync", "the token survives a crash");
  line.text_option("output,o", "TOKENFILE",
                   "write the token to a file, readable by its owner only");
  line.add()("verbose,v", "tell on standard error what the token stands for");
  line.add()("json", "print one JSON object that tells what was done (needs --output)");
  line.operands(1, 1);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }
  if (line.given("json") && !line.given("output")) {
    complain(io, "standard output", "--json and the token cannot both go there: use -o");
    return kUsage;
  }
  if (!line.given("output") && is_terminal(io.out)) {
    complain(io, "standard output", "a token is binary: redirect it to a file or use -o");
    return kUsage;
  }

  const std::string& path = line.operands()[0];
  const auto file = open_file(path, O_RDONLY);
  if (!file) {
    complain(io, path, file.error().message());
    return kFailed;
  }
  const std::uint64_t offset = line.size("offset").value_or(0);
  const std::uint64_t length =
      line.given("length") ? *line.size("length") : rest_of_file(file->get(), offset);
  odx_token token;
  std::uint64_t transfer_length = 0;
  std::uint32_t flags = 0;
  odx_result result{};
  const int error = odx_offload_read(
      file->get(), offset, length, static_cast<std::uint32_t>(line.size("ttl").value_or(0)),
      line.given("sync") ? ODX_TOKEN_SYNC : 0, &token, &transfer_length, &flags, &result);
  if (line.given("json")) {
    print_json(io.out, path, transfer_length, flags, error == 0 ? &token : nullptr, -error, result);
  }
  if (error != 0) {
    complain(io, path, why_failed(-error, result));
    return kFailed;
  }
  if (line.given("output")) {
    if (const auto saved = save_token(line.text("output"), token); !saved) {
      complain(io, line.text("output"), saved.error().message());
      return kFailed;
    }
  } else {
    io.out.write(reinterpret_cast<const char*>(&token), sizeof token);
  }
  if (line.given("verbose")) {
    describe(io.err, path, transfer_length, flags, token);
  }
  return kDone;
}

}  // namespace odx::cli
