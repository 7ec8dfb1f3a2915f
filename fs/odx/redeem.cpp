#include "redeem.hpp"

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <ostream>

#include "text.hpp"

namespace odx::cli {

Redemption redeem(int fd, const odx_token& token, std::uint64_t offset, std::uint64_t length,
                  std::uint64_t transfer_offset) {
  constexpr unsigned kMostStalls = 4;
  Redemption done;
  unsigned stalls = 0;
  do {
    std::uint64_t now = 0;
    done.error = -odx_offload_write(fd, offset + done.written, length - done.written, &token,
                                    transfer_offset + done.written, &now, &done.result);
    if (done.error == EINTR) {
      continue;
    }
    if (done.error == 0 && now == 0 && length != 0 && ++stalls == kMostStalls) {
      done.error = EIO;
      done.result = {};
    }
    if (done.error != 0) {
      return done;
    }
    if (now != 0) {
      stalls = 0;
    }
    done.written += std::min(now, length - done.written);
    done.shared += done.result.bytes_shared;
  } while (done.written < length);
  return done;
}

bool used_up(const Redemption& redemption) {
  return redemption.result.reason == ODX_REASON_END_OF_FILE ||
         redemption.result.reason == ODX_REASON_TRANSFER_OFFSET_RANGE;
}

void print_json(std::ostream& out, const std::string& file, const Redemption& redemption) {
  nlohmann::ordered_json json{
      {"file", file}, {"bytes_written", redemption.written}, {"bytes_shared", redemption.shared}};
  add_outcome(json, redemption.error, redemption.result);
  // Names are whatever bytes their makers chose.
  out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

}  // namespace odx::cli
