// The `odx` program as a function.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace odx::cli {

// Runs `odx ARGS...` (without the program's own name) on the given streams. Answers with the exit
// code: 0 done, 1 failed, 2 wrong usage. Throws nothing. A progress bar is shown only if `err` is
// std::cerr and a terminal.
int odx_main(const std::vector<std::string>& args, std::istream& in, std::ostream& out,
             std::ostream& err);

}  // namespace odx::cli
