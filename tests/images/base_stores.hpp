// The good stores that images are made from.
#pragma once

#include <string>

#include "image.hpp"

namespace odx::images {

// Makes the store in `dir`, which must not exist. The same on each run, but for the root
// directory's times.
void make_base(Base base, const std::string& dir);

// Opens the store as a daemon would, looks at every name, attribute, byte and token, writes and
// removes a file where it may, and closes. Answers with "rw", "ro" or why it was refused.
std::string use(const std::string& dir);

}  // namespace odx::images
