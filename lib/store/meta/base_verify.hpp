// Whether LMDB may be let near a file.
#pragma once

#include <string>

#include "base/result.hpp"

namespace odx {

// Reads every page of the tree of `directory`/data.mdb and its list of free pages. Corruption: the
// file is not what LMDB can have written, and LMDB, which checks next to nothing, could crash over
// it, answer wrongly, or overwrite pages in use. Nothing may be writing.
Result<void> verify_base(const std::string& directory);

}  // namespace odx
