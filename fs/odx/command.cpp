#include "command.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iostream>

#include "base/print.hpp"
#include "text.hpp"

namespace odx::cli {

namespace po = boost::program_options;

namespace {

// "output,o" -> "output"
std::string long_name(const char* name) { return {name, std::strcspn(name, ",")}; }

}  // namespace

bool is_terminal(const std::ostream& stream) {
  return (&stream == &std::cout && ::isatty(STDOUT_FILENO) != 0) ||
         (&stream == &std::cerr && ::isatty(STDERR_FILENO) != 0);
}

void complain(Streams& io, std::string_view subject, std::string_view why) {
  print(io.err, "odx: {}: {}\n", subject, why);
}

std::string why_failed(int error, const odx_result& result) {
  if (result.reason != ODX_REASON_NONE) {
    const char* name = ::strerrorname_np(error);
    return fmt::format("{} ({}, {})", odx_reason_text(result.reason),
                       name != nullptr ? name : "unknown errno", odx_status_name(result.status));
  }
  return error == ENOTTY ? "not on an odxfs filesystem" : Error(error).message();
}

std::string plain_text(const Error& error) {
  return error.detail().empty() ? error.message() : error.detail();
}

Result<Fd> open_file(const std::string& path, int flags) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC, 0666));
  if (!fd.valid()) {
    return fail(errno);
  }
  return fd;
}

CommandLine::CommandLine(std::string usage, std::string about)
    : usage_(std::move(usage)), about_(std::move(about)) {}

void CommandLine::operands(std::size_t least, std::size_t most) {
  least_ = least;
  most_ = most;
}

void CommandLine::text_option(const char* name, const char* value, const char* help,
                              bool required) {
  add()(name, po::value<std::string>()->value_name(value), help);
  if (required) {
    required_.push_back(long_name(name));
  }
}

void CommandLine::size_option(const char* name, const char* value, const char* help,
                              bool required) {
  text_option(name, value, help, required);
  numbers_.push_back({long_name(name), true, UINT64_MAX});
}

void CommandLine::number_option(const char* name, const char* value, const char* help,
                                std::uint64_t most) {
  text_option(name, value, help);
  numbers_.push_back({long_name(name), false, most});
}

std::optional<int> CommandLine::parse(const Arguments& args, Streams& io) {
  add()("help,h", "print this help");
  // --help wins over whatever else is wrong, but not over an operand of that name.
  const auto end = std::find(args.begin(), args.end(), "--");
  if (std::any_of(args.begin(), end, [](const auto& a) { return a == "--help" || a == "-h"; })) {
    print_help(io.out);
    return kDone;
  }
  const auto result = read(args);
  if (!result) {
    const std::string name = usage_.substr(0, usage_.find_first_of(" ["));
    print(io.err, "odx: {} (see odx {} --help)\n", result.error().detail(), name);
    return kUsage;
  }
  return std::nullopt;
}

Result<void> CommandLine::read(const Arguments& args) {
  po::options_description all;
  all.add(visible_).add_options()("operand", po::value<std::vector<std::string>>());
  po::positional_options_description positions;
  positions.add("operand", -1);
  try {
    // No abbreviations: a script's shortened option would change its meaning with the next version.
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(args).options(all).positional(positions).style(style).run(),
              values_);
    po::notify(values_);
  } catch (const po::error& e) {
    return fail(EINVAL, e.what());
  }
  if (given("operand")) {
    operands_ = values_["operand"].as<std::vector<std::string>>();
  }
  return check();
}

Result<void> CommandLine::check() const {
  for (const auto& name : required_) {
    if (!given(name.c_str())) {
      return fail(EINVAL, fmt::format("--{} is missing", name));
    }
  }
  for (const auto& number : numbers_) {
    if (!given(number.name.c_str())) {
      continue;
    }
    const std::string& value = text(number.name.c_str());
    const auto parsed = number.suffixes ? parse_size(value) : parse_number(value);
    if (!parsed || *parsed > number.most) {
      return fail(EINVAL, fmt::format("--{}: '{}' is not a {}", number.name, value,
                                      number.suffixes ? "size" : "number that is allowed here"));
    }
  }
  if (operands_.size() < least_) {
    return fail(EINVAL, "an operand is missing");
  }
  if (operands_.size() > most_) {
    return fail(EINVAL, fmt::format("'{}' is one operand too many", operands_[most_]));
  }
  return {};
}

const std::string& CommandLine::text(const char* name) const {
  return values_[name].as<std::string>();
}

std::optional<std::uint64_t> CommandLine::size(const char* name) const {
  return given(name) ? parse_size(text(name)) : std::nullopt;
}

void CommandLine::print_help(std::ostream& out) const {
  print(out, "Usage: odx {}\n\n{}\n\n", usage_, about_);
  out << visible_;
  if (std::any_of(numbers_.begin(), numbers_.end(), [](const auto& n) { return n.suffixes; })) {
    out << "\nSizes are in bytes, or with a suffix K, M, G, T, P in powers of 1024.\n";
  }
}

}  // namespace odx::cli
