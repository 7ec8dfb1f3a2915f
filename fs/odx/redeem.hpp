// Writing a token out with as many calls as it takes: what `odx write` and `odx zero` share.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "odx/odx.h"

namespace odx::cli {

struct Redemption {
  std::uint64_t written = 0;  // bytes, as the filesystem counts them
  std::uint64_t shared = 0;
  int error = 0;  // positive errno of the call that ended it; 0 if all was written
  odx_result result{};
};

// Writes `length` bytes of `token`, from `transfer_offset` on, to `offset` of `fd`.
[[nodiscard]] Redemption redeem(int fd, const odx_token& token, std::uint64_t offset,
                                std::uint64_t length, std::uint64_t transfer_offset);

// True if the call that ended it says that the token or the file was used up, which is how a
// redemption of unknown length ends.
[[nodiscard]] bool used_up(const Redemption& redemption);

// What became of writing to `file`, as one JSON object.
void print_json(std::ostream& out, const std::string& file, const Redemption& redemption);

}  // namespace odx::cli
