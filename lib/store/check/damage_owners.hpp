// Whose data damaged blocks are.
#pragma once

#include <vector>

#include "store/check/findings.hpp"

namespace odx::check {

// Adds a problem for every file and token that names one of these blocks (ascending).
Result<void> name_damage_owners(const CheckSubject& subject,
                                const std::vector<std::uint64_t>& blocks, Findings& findings);

}  // namespace odx::check
