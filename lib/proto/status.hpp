// How a refusal is told: an errno for Linux, an NTSTATUS for whoever speaks for Windows, and a
// reason for people (odx-rules.md 2.4).
#pragma once

#include <cstdint>

#include "odx/offload.h"

namespace odx::proto {

// Which of the two controls is being answered: some statuses name it.
enum class Control { kRead, kWrite };

struct Verdict {
  int errno_value = 0;  // 0 only with ODX_STATUS_SUCCESS
  std::uint32_t status = ODX_STATUS_SUCCESS;
  odx_reason reason = ODX_REASON_NONE;
  friend bool operator==(const Verdict&, const Verdict&) = default;
};

// What a call that fails for `reason` answers. ODX_REASON_NOT_A_FILE gives the answer for what is
// neither file nor directory (EOPNOTSUPP). Reasons that go with success give errno 0.
[[nodiscard]] Verdict verdict_for(odx_reason reason, Control control);

// What a call answers when the store failed with an errno of its own (ENOSPC, EIO, ...). The errno
// is kept as it is. `errno_value` must not be 0.
[[nodiscard]] Verdict verdict_for_errno(int errno_value, Control control);

// The table of odx-rules.md 2.4, both ways. Several errnos share a status; the way back picks the
// one that tells a copy engine to do the right thing (INVALID_TOKEN: EKEYREJECTED). Unknown values
// become IO_DEVICE_ERROR and EIO.
[[nodiscard]] std::uint32_t status_of_errno(int errno_value, Control control);
[[nodiscard]] int errno_of_status(std::uint32_t status);

// One line for people, lower case, without a full stop; never null, whatever the number.
[[nodiscard]] const char* reason_text(std::uint32_t reason);
// "TOKEN_EXPIRED" and the like: the enum's names without their prefix.
[[nodiscard]] const char* reason_name(std::uint32_t reason);
// "STATUS_INVALID_TOKEN" and the like; "unknown status" for numbers that are not ours.
[[nodiscard]] const char* status_name(std::uint32_t status);

}  // namespace odx::proto
