// What all subcommands of `odx` share: streams, exit codes, the command line, error lines.
#pragma once

#include <boost/program_options.hpp>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "odx/odx.h"

namespace odx::cli {

using Arguments = std::vector<std::string>;

struct Streams {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
};

enum ExitCode : int { kDone = 0, kFailed = 1, kUsage = 2 };

// True if this is the process's own standard stream and a terminal.
[[nodiscard]] bool is_terminal(const std::ostream& stream);

// Writes "odx: SUBJECT: why" and a newline.
void complain(Streams& io, std::string_view subject, std::string_view why);

// Why a call of libodx failed, for people: the filesystem's reason if it gave one, else the errno's
// text. `error` is a positive errno.
[[nodiscard]] std::string why_failed(int error, const odx_result& result = {});

// The error's own text if it has one, else the errno's.
[[nodiscard]] std::string plain_text(const Error& error);

// Opens `path`, O_CLOEXEC added.
Result<Fd> open_file(const std::string& path, int flags);

// One subcommand's command line. Every one has --help.
class CommandLine {
 public:
  // `usage` is what follows "odx ", as in "read [OPTION...] FILE"; `about` one or more lines.
  CommandLine(std::string usage, std::string about);

  boost::program_options::options_description_easy_init add() { return visible_.add_options(); }
  // Operands; at least `least`, at most `most` of them.
  void operands(std::size_t least, std::size_t most);

  // Empty: go on. Otherwise the exit code: help was printed, or a line on what is wrong.
  [[nodiscard]] std::optional<int> parse(const Arguments& args, Streams& io);

  [[nodiscard]] bool given(const char* name) const { return values_.count(name) != 0; }
  // Value of a given option that was declared with text_option().
  [[nodiscard]] const std::string& text(const char* name) const;
  // As bytes, see parse_size(); empty if not given. parse() has checked options declared with
  // size_option().
  [[nodiscard]] std::optional<std::uint64_t> size(const char* name) const;
  [[nodiscard]] const std::vector<std::string>& operands() const { return operands_; }

  // Declares `--name VALUE`; `name` as Boost takes it ("output,o").
  void text_option(const char* name, const char* value, const char* help, bool required = false);
  void size_option(const char* name, const char* value, const char* help, bool required = false);
  // A plain number up to `most`.
  void number_option(const char* name, const char* value, const char* help, std::uint64_t most);

 private:
  struct Number {
    std::string name;
    bool suffixes;
    std::uint64_t most;
  };
  Result<void> read(const Arguments& args);
  Result<void> check() const;
  void print_help(std::ostream& out) const;

  std::string usage_;
  std::string about_;
  boost::program_options::options_description visible_{"Options"};
  boost::program_options::variables_map values_;
  std::vector<Number> numbers_;
  std::vector<std::string> required_;
  std::vector<std::string> operands_;
  std::size_t least_ = 0;
  std::size_t most_ = 0;
};

// The subcommands. Each gets what follows its name and answers with an exit code.
int run_cp(const Arguments& args, Streams& io);
int run_read(const Arguments& args, Streams& io);
int run_write(const Arguments& args, Streams& io);
int run_zero(const Arguments& args, Streams& io);
int run_token(const Arguments& args, Streams& io);
int run_stat(const Arguments& args, Streams& io);
int run_resize(const Arguments& args, Streams& io);
int run_check(const Arguments& args, Streams& io);
int run_scrub(const Arguments& args, Streams& io);
int run_unmount(const Arguments& args, Streams& io);

}  // namespace odx::cli
