// The thin part of libodx: one C function, one ioctl. No function here allocates or throws.
#include <cerrno>
#include <cstring>

#include "odx/odx.h"
#include "proto/status.hpp"
#include "proto/token_codec.hpp"

namespace {

using odx::proto::Control;

int answer(int ioctl_result) { return ioctl_result < 0 ? -errno : 0; }

// Runs one control. What the kernel refuses by itself leaves the structure as it went in, with
// zeros where the daemon puts the status and the reason.
int run(int fd, Control control, odx_offload& call, odx_result* result) {
  const unsigned long request =
      control == Control::kRead ? ODX_IOC_OFFLOAD_READ : ODX_IOC_OFFLOAD_WRITE;
  const int error = answer(::ioctl(fd, request, &call));
  if (result != nullptr) {
    *result = {call.a.status, call.b.reason, error == 0 ? call.c.bytes_shared : 0};
    if (error != 0 && call.b.reason == ODX_REASON_NONE) {
      result->status = odx::proto::status_of_errno(-error, control);
    }
  }
  return error;
}

}  // namespace

extern "C" {

int odx_offload_read(int fd, uint64_t offset, uint64_t length, uint32_t ttl_ms, uint64_t options,
                     odx_token* token, uint64_t* transfer_length, uint32_t* flags,
                     odx_result* result) {
  odx_offload call;
  std::memset(&call, 0, sizeof call);
  call.body.read_in.size = sizeof call.body.read_in;
  call.body.read_in.token_time_to_live = ttl_ms;
  call.body.read_in.file_offset = offset;
  call.body.read_in.copy_length = length;
  call.c.options = options;
  if (const int error = run(fd, Control::kRead, call, result); error != 0) {
    return error;
  }
  *token = call.body.read_out.token;
  if (transfer_length != nullptr) {
    *transfer_length = call.body.read_out.transfer_length;
  }
  if (flags != nullptr) {
    *flags = call.body.read_out.flags;
  }
  return 0;
}

int odx_offload_write(int fd, uint64_t offset, uint64_t length, const odx_token* token,
                      uint64_t transfer_offset, uint64_t* written, odx_result* result) {
  odx_offload call;
  std::memset(&call, 0, sizeof call);
  call.body.write_in.size = sizeof call.body.write_in;
  call.body.write_in.file_offset = offset;
  call.body.write_in.copy_length = length;
  call.body.write_in.transfer_offset = transfer_offset;
  call.body.write_in.token = *token;
  if (const int error = run(fd, Control::kWrite, call, result); error != 0) {
    return error;
  }
  if (written != nullptr) {
    *written = call.body.write_out.length_written;
  }
  return 0;
}

int odx_zero(int fd, uint64_t offset, uint64_t length, uint64_t* written, odx_result* result) {
  odx_token token;
  odx_zero_token(&token);
  return odx_offload_write(fd, offset, length, &token, 0, written, result);
}

void odx_zero_token(odx_token* token) { *token = odx::proto::zero_token(); }

int odx_statistics(int fd, struct odx_stat* stat) {
  std::memset(stat, 0, sizeof *stat);
  return answer(::ioctl(fd, ODX_IOC_STAT, stat));
}

int odx_list_tokens(int fd, struct odx_token_list* page) {
  return answer(::ioctl(fd, ODX_IOC_TOKEN_LIST, page));
}

int odx_drop_token(int fd, const uint8_t id[16]) {
  struct odx_token_drop call;
  std::memcpy(call.id, id, sizeof call.id);
  return answer(::ioctl(fd, ODX_IOC_TOKEN_DROP, &call));
}

int odx_scrub_control(int fd, struct odx_scrub* call) {
  return answer(::ioctl(fd, ODX_IOC_SCRUB, call));
}

int odx_check_control(int fd, struct odx_check* call) {
  return answer(::ioctl(fd, ODX_IOC_CHECK, call));
}

int odx_resize_store(int fd, struct odx_resize* resize) {
  return answer(::ioctl(fd, ODX_IOC_RESIZE, resize));
}

int odx_token_id(const odx_token* token, uint8_t id[16]) {
  const auto fields = odx::proto::decode(*token);
  if (!fields) {
    return -EINVAL;
  }
  std::memcpy(id, fields->id.data(), fields->id.size());
  return 0;
}

const char* odx_reason_text(uint32_t reason) { return odx::proto::reason_text(reason); }

const char* odx_reason_name(uint32_t reason) { return odx::proto::reason_name(reason); }

const char* odx_status_name(uint32_t status) { return odx::proto::status_name(status); }

}  // extern "C"
