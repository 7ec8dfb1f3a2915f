// One pass over a store's state. For check/ only.
#pragma once

#include "store/check/findings.hpp"

namespace odx::check {

// What check_state() does; and takes down in `fixes`, if that is not null, what would mend it.
Result<CheckReport> check_pass(const CheckSubject& subject, const CheckOptions& options,
                               Fixes* fixes);

// Adds a problem that was found elsewhere, before all others.
void add_problem(CheckReport& report, std::string problem);

}  // namespace odx::check
