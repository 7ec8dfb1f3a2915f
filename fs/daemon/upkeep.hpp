// The controls that look after a mounted store: scrub and check.
#pragma once

#include "fuse_lowlevel.hpp"

#include "base/result.hpp"

namespace odx::daemon {

// Reply, or answer with the error to reply with. They start work or tell about it, and wait for
// none. For root and the owner of the mount.
Result<void> control_scrub(fuse_req_t req, const void* in);
Result<void> control_check(fuse_req_t req, const void* in);

}  // namespace odx::daemon
