// Repair of a store that nobody has mounted.
#pragma once

#include <string>
#include <vector>

#include "store/check/check.hpp"

namespace odx {

struct RepairOptions {
  CheckOptions check;  // with `data`, the data is read once, after the repair
  // Also gives up what lies behind damage inside the journal. The store then is as it was just
  // before the change that cannot be read; every later one is lost for good.
  bool drop_journal_tail = false;
};

struct RepairReport {
  CheckReport before;                // what was found; without the data
  std::vector<std::string> repairs;  // what was done, one line each
  CheckReport after;                 // what is left
};

// Checks, and mends what can be mended without a guess. Made twice it does nothing the second time;
// interrupted anywhere, it can be made again. An error means that it could not be made, or not
// completed.
Result<RepairReport> repair_store(const std::string& dir, const RepairOptions& options);

}  // namespace odx
