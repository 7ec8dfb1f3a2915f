// odx token list|show|drop: the live tokens of a mounted odxfs.
#include <fcntl.h>
#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <ostream>
#include <vector>

#include "base/clock.hpp"
#include "base/print.hpp"
#include "command.hpp"
#include "text.hpp"
#include "token_file.hpp"

namespace odx::cli {

namespace {

constexpr const char* kMountHelp = "any path on the odxfs in question (default: .)";

// All live tokens behind `after` that the caller may see, at most `most`.
Result<std::vector<odx_token_info>> live_tokens(int fd, const TokenIdBytes& after,
                                                std::size_t most) {
  std::vector<odx_token_info> tokens;
  struct odx_token_list page {};
  std::copy(after.begin(), after.end(), page.after);
  while (tokens.size() < most) {
    if (const int error = odx_list_tokens(fd, &page); error != 0) {
      return fail(-error);
    }
    const std::size_t count = std::min<std::size_t>(page.count, std::size(page.tokens));
    if (count == 0) {
      break;
    }
    tokens.insert(tokens.end(), page.tokens, page.tokens + count);
    std::memcpy(page.after, tokens.back().id, sizeof page.after);
  }
  return tokens;
}

// The token's line in the list of live ones: the first one behind the id just below it.
Result<std::optional<odx_token_info>> live_token(int fd, const TokenIdBytes& id) {
  TokenIdBytes before = id;
  for (std::size_t i = before.size(); i-- > 0;) {
    if (before[i]-- != 0) {
      break;
    }
  }
  // Nothing is below the id of zeros, which is how a listing starts.
  const bool first = std::all_of(id.begin(), id.end(), [](std::uint8_t b) { return b == 0; });
  const auto found = ODX_TRY(live_tokens(fd, first ? id : before, 1));
  if (found.empty() || std::memcmp(found[0].id, id.data(), id.size()) != 0) {
    return std::nullopt;
  }
  return found[0];
}

nlohmann::ordered_json to_json(const odx_token_info& info) {
  return {{"id", hex(info.id)},
          {"uid", info.uid},
          {"length", info.length},
          {"data_bytes", info.data_bytes},
          {"created_ns", info.created_ns},
          {"expires_ns", info.expires_ns}};
}

// "2026-01-31 12:34:56"
std::string time_text(std::int64_t ns) {
  const std::time_t seconds = static_cast<std::time_t>(ns / kNsPerSecond);
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts)};
}

std::string left_text(std::int64_t expires_ns) {
  const std::int64_t left = expires_ns - Clock::system().now_ns();
  return left <= 0 ? "expired" : duration_text(static_cast<std::uint64_t>(left / kNsPerSecond));
}

int list(const Arguments& args, Streams& io) {
  CommandLine line("token list [OPTION...]",
                   "Lists the live tokens: your own, or all of them if you are root.");
  line.text_option("mount", "PATH", kMountHelp);
  line.add()("json", "print a JSON array; times in nanoseconds since 1970");
  line.operands(0, 0);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }
  const std::string path = line.given("mount") ? line.text("mount") : ".";
  const auto file = open_file(path, O_RDONLY | O_NONBLOCK);
  if (!file) {
    complain(io, path, file.error().message());
    return kFailed;
  }
  const auto tokens = live_tokens(file->get(), {}, SIZE_MAX);
  if (!tokens) {
    complain(io, path, why_failed(tokens.error().errno_value()));
    return kFailed;
  }
  if (line.given("json")) {
    auto json = nlohmann::ordered_json::array();
    for (const auto& info : *tokens) {
      json.push_back(to_json(info));
    }
    io.out << json.dump(2) << '\n';
    return kDone;
  }
  print(io.out, "{:<32}  {:>6}  {:>10}  {:>10}  {:<19}  {}\n", "ID", "UID", "LENGTH", "DATA",
        "MADE", "EXPIRES IN");
  for (const auto& info : *tokens) {
    print(io.out, "{}  {:>6}  {:>10}  {:>10}  {}  {}\n", hex(info.id), info.uid,
          size_text(info.length), size_text(info.data_bytes), time_text(info.created_ns),
          left_text(info.expires_ns));
  }
  return kDone;
}

void print_shown(std::ostream& out, const NamedToken& named,
                 const std::optional<odx_token_info>& info) {
  print(out, "{:<12}{}\n", "id", hex(named.id));
  if (!info) {
    print(out, "{:<12}{}\n", "state", "not live here");
    return;
  }
  print(out, "{:<12}{}\n", "state", "live");
  print(out, "{:<12}{}\n", "uid", info->uid);
  print(out, "{:<12}{} ({} bytes)\n", "length", size_text(info->length), info->length);
  print(out, "{:<12}{} ({} bytes)\n", "data", size_text(info->data_bytes), info->data_bytes);
  print(out, "{:<12}{}\n", "made", time_text(info->created_ns));
  print(out, "{:<12}{}\n", "expires in", left_text(info->expires_ns));
}

int show(const Arguments& args, Streams& io) {
  CommandLine line("token show [OPTION...] TOKEN",
                   "Tells what is known of a token, given by its id (32 hex digits) or as a file\n"
                   "that holds it (-: standard input).");
  line.text_option("mount", "PATH", kMountHelp);
  line.add()("json", "print one JSON object");
  line.operands(1, 1);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }
  const std::string& name = line.operands()[0];
  const auto named = find_token(name, io);
  if (!named) {
    complain(io, name, plain_text(named.error()));
    return kFailed;
  }
  const std::string path = line.given("mount") ? line.text("mount") : ".";
  const auto file = open_file(path, O_RDONLY | O_NONBLOCK);
  if (!file) {
    complain(io, path, file.error().message());
    return kFailed;
  }
  const auto info = live_token(file->get(), named->id);
  if (!info) {
    complain(io, path, why_failed(info.error().errno_value()));
    return kFailed;
  }
  if (line.given("json")) {
    nlohmann::ordered_json json{{"id", hex(named->id)}, {"live", info->has_value()}};
    if (*info) {
      json.update(to_json(**info));
    }
    io.out << json.dump(2) << '\n';
  } else {
    print_shown(io.out, *named, *info);
  }
  return *info ? kDone : kFailed;
}

int drop(const Arguments& args, Streams& io) {
  CommandLine line(
      "token drop [OPTION...] TOKEN...",
      "Ends tokens before their time. Each is given by its id (32 hex digits) or as a\n"
      "file that holds it (-: standard input). You may drop your own; root may all.");
  line.text_option("mount", "PATH", kMountHelp);
  line.operands(1, SIZE_MAX);
  if (const auto code = line.parse(args, io)) {
    return *code;
  }
  const std::string path = line.given("mount") ? line.text("mount") : ".";
  const auto file = open_file(path, O_RDONLY | O_NONBLOCK);
  if (!file) {
    complain(io, path, file.error().message());
    return kFailed;
  }
  int code = kDone;
  for (const std::string& name : line.operands()) {
    const auto named = find_token(name, io);
    if (!named) {
      complain(io, name, plain_text(named.error()));
      code = kFailed;
      continue;
    }
    const int error = -odx_drop_token(file->get(), named->id.data());
    if (error != 0) {
      complain(io, error == ENOTTY ? path : name,
               error == ENOENT  ? "there is no such live token"
               : error == EPERM ? "it is another user's"
                                : why_failed(error));
      code = kFailed;
    }
  }
  return code;
}

}  // namespace

int run_token(const Arguments& args, Streams& io) {
  constexpr const char* kUsageText =
      "Usage: odx token list|show|drop [ARGUMENT...]\n\n"
      "  list   list the live tokens\n"
      "  show   tell what is known of one\n"
      "  drop   end some before their time\n\n"
      "odx token list --help and so on tell more.\n";
  if (args.empty()) {
    io.err << kUsageText;
    return kUsage;
  }
  const Arguments rest(args.begin() + 1, args.end());
  if (args[0] == "list") {
    return list(rest, io);
  }
  if (args[0] == "show") {
    return show(rest, io);
  }
  if (args[0] == "drop") {
    return drop(rest, io);
  }
  if (args[0] == "--help" || args[0] == "-h") {
    io.out << kUsageText;
    return kDone;
  }
  print(io.err, "odx: no command 'token {}' (see odx token --help)\n", args[0]);
  return kUsage;
}

}  // namespace odx::cli
