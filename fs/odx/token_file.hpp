// Tokens as users hold them: 512 bytes in a file or a pipe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "command.hpp"
#include "odx/odx.h"

namespace odx::cli {

using TokenIdBytes = std::array<std::uint8_t, 16>;

// Exactly 512 bytes from a file ("-": io.in) and nothing after them. EINVAL with a text if there
// are fewer or more.
Result<odx_token> load_token(const std::string& path, Streams& io);

// Into a new or emptied file that only its owner can read: a token opens what it names.
Result<void> save_token(const std::string& path, const odx_token& token);

// What a command line calls a token: 32 hex digits, or a file with the token in it ("-": io.in).
struct NamedToken {
  TokenIdBytes id{};
  std::optional<odx_token> token;  // if it came from a file
};
// EINVAL if the file holds no token of odxfs.
Result<NamedToken> find_token(const std::string& name, Streams& io);

}  // namespace odx::cli
