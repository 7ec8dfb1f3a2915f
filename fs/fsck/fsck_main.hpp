// The `fsck.odxfs` program as a function.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace odx::cli {

// Runs `fsck.odxfs ARGS...` (without the program's own name), as fsck(8) and boot scripts call it.
// Answers with the exit code of fsck(8). Throws nothing.
int fsck_main(const std::vector<std::string>& args, std::ostream& out, std::ostream& err);

}  // namespace odx::cli
