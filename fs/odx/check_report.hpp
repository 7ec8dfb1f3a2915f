// Checking and repairing a store, for `odx check` and fsck.odxfs.
#pragma once

#include <functional>
#include <string>

#include "command.hpp"
#include "store/check/check.hpp"

namespace odx::cli {

// As of fsck(8), which callers of a check know.
enum CheckExitCode : int {
  kClean = 0,
  kRepaired = 1,      // all problems
  kProblemsLeft = 4,  // or found, where nothing was to be repaired
  kNotChecked = 8,    // or the repair could not be completed
  kCheckUsage = 16,
  kCancelled = 32,
};

struct CheckRequest {
  std::string program;  // in front of error lines
  std::string store;
  bool data = false;
  bool repair = false;
  bool drop_journal_tail = false;
  bool json = false;
  // Makes the report of a store that is mounted; empty: check_store() does.
  std::function<Result<CheckReport>(const CheckOptions&)> examine;
};

// Does it and says everything; answers with the exit code. Throws nothing.
int check_and_report(const CheckRequest& request, Streams& io);

// What a report says, as `odx check` prints it; for checks that are made elsewhere, too.
void print_check(std::ostream& out, const std::string& store, const CheckReport& report, bool data);
void print_check_json(std::ostream& out, const std::string& store, const CheckReport& report);

}  // namespace odx::cli
