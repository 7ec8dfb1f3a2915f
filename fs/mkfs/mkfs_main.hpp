// The `mkfs.odxfs` program as a function.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace odx::cli {

// Runs `mkfs.odxfs ARGS...` (without the program's own name). Answers with the exit code: 0 done,
// 1 failed, 2 wrong usage. Throws nothing.
int mkfs_main(const std::vector<std::string>& args, std::ostream& out, std::ostream& err);

}  // namespace odx::cli
