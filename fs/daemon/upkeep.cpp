#include "upkeep.hpp"

#include <unistd.h>

#include <cstring>

#include "operations.hpp"

namespace odx::daemon {

namespace {

// The owner of the mount is whoever runs the daemon.
Result<void> check_caller(fuse_req_t req) {
  const uid_t uid = ::fuse_req_ctx(req)->uid;
  return uid == 0 || uid == ::geteuid() ? Result<void>() : fail(EPERM);
}

// `part` is of the store, and has control(call).
template <class Call, class Part>
Result<void> control(fuse_req_t req, const void* in, Part& part) {
  ODX_TRY(check_caller(req));
  Call call;
  std::memcpy(&call, in, sizeof call);
  ODX_TRY(part.control(call));
  ::fuse_reply_ioctl(req, 0, &call, sizeof call);
  return {};
}

}  // namespace

Result<void> control_scrub(fuse_req_t req, const void* in) {
  return control<odx_scrub>(req, in, filesystem_of(req).store.scrub());
}

Result<void> control_check(fuse_req_t req, const void* in) {
  return control<odx_check>(req, in, filesystem_of(req).store.online_check());
}

}  // namespace odx::daemon
