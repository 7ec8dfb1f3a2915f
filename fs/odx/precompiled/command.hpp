// What every command includes, compiled once (see lib/precompiled/standard.hpp).
#include <fmt/core.h>

#include <boost/program_options.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>
