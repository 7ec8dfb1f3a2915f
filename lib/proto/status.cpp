#include "proto/status.hpp"

#include <array>
#include <cerrno>
#include <cstddef>

namespace odx::proto {

namespace {

struct ReasonRow {
  odx_reason reason;
  const char* name;
  int errno_value;
  std::uint32_t read_status;
  std::uint32_t write_status;
  const char* text;
};

// ODX_REASON_x and the name "x"; one status for both controls, or one for each.
#define ODX_ROW(x, errno_value, status, text) \
  ReasonRow { ODX_REASON_##x, #x, errno_value, status, status, text }
#define ODX_ROW_OF_TWO(x, errno_value, read_status, write_status, text) \
  ReasonRow { ODX_REASON_##x, #x, errno_value, read_status, write_status, text }

constexpr std::array kReasons{
    ODX_ROW(NONE, 0, ODX_STATUS_SUCCESS, "done in full"),
    ODX_ROW(INPUT_TOO_SMALL, EINVAL, ODX_STATUS_BUFFER_TOO_SMALL,
            "the input is shorter than the control's structure"),
    ODX_ROW(OUTPUT_TOO_SMALL, EINVAL, ODX_STATUS_BUFFER_TOO_SMALL,
            "the room for output is smaller than the control's structure"),
    ODX_ROW(UNKNOWN_OPTION, EINVAL, ODX_STATUS_INVALID_PARAMETER,
            "an option bit is set that this control does not have"),
    ODX_ROW(FILE_OFFSET_ALIGNMENT, EINVAL, ODX_STATUS_INVALID_PARAMETER,
            "the file offset is not a multiple of the sector"),
    ODX_ROW(COPY_LENGTH_ALIGNMENT, EINVAL, ODX_STATUS_INVALID_PARAMETER,
            "the copy length is neither a multiple of the sector nor ends at the end of the file"),
    ODX_ROW(TRANSFER_OFFSET_ALIGNMENT, EINVAL, ODX_STATUS_INVALID_PARAMETER,
            "the transfer offset is not a multiple of the sector"),
    ODX_ROW(STRUCTURE_SIZE, EINVAL, ODX_STATUS_INVALID_PARAMETER,
            "the structure's size field is wrong"),
    ODX_ROW(RANGE_WRAPS, EINVAL, ODX_STATUS_INVALID_PARAMETER,
            "file offset plus copy length does not fit in 64 bits"),
    ODX_ROW(ZERO_LENGTH, 0, ODX_STATUS_SUCCESS, "nothing was asked for"),
    ODX_ROW_OF_TWO(NOT_A_FILE, EOPNOTSUPP, ODX_STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED,
                   ODX_STATUS_OFFLOAD_WRITE_FILE_NOT_SUPPORTED, "not a regular file"),
    ODX_ROW(OFFSET_NEGATIVE, EINVAL, ODX_STATUS_INVALID_PARAMETER, "the file offset is negative"),
    ODX_ROW(FILE_TOO_BIG, EFBIG, ODX_STATUS_INVALID_PARAMETER,
            "the range ends beyond the largest possible file"),
    ODX_ROW(LOCKED, EAGAIN, ODX_STATUS_FILE_LOCK_CONFLICT, "a byte-range lock stands in the way"),
    ODX_ROW(END_OF_FILE, ENXIO, ODX_STATUS_END_OF_FILE,
            "the file offset is at or beyond the end of the file"),
    ODX_ROW(ACCESS_MODE, EBADF, ODX_STATUS_ACCESS_DENIED,
            "the descriptor is not open for this direction"),
    ODX_ROW(READ_ONLY, EROFS, ODX_STATUS_MEDIA_WRITE_PROTECTED, "the filesystem is read-only"),
    ODX_ROW(TOKEN_MALFORMED, EKEYREJECTED, ODX_STATUS_INVALID_TOKEN,
            "the token is not one of this filesystem's kind, or was altered"),
    ODX_ROW(TOKEN_UNKNOWN, EKEYREJECTED, ODX_STATUS_INVALID_TOKEN,
            "the token is not known here: forged, dropped, or forgotten after its end"),
    ODX_ROW(TOKEN_EXPIRED, EKEYEXPIRED, ODX_STATUS_INVALID_TOKEN, "the token has expired"),
    ODX_ROW(TOKEN_FOREIGN, EXDEV, ODX_STATUS_DEVICE_UNREACHABLE,
            "the token belongs to another store"),
    ODX_ROW(TOKEN_RESERVED_TYPE, EKEYREJECTED, ODX_STATUS_INVALID_TOKEN,
            "the token is of a well-known type that is not known here"),
    ODX_ROW(TOKEN_OTHER_USER, EKEYREJECTED, ODX_STATUS_INVALID_TOKEN,
            "the token belongs to another user"),
    ODX_ROW(TRANSFER_OFFSET_RANGE, EINVAL, ODX_STATUS_INVALID_PARAMETER,
            "the transfer offset is outside the token's range"),
    ODX_ROW(TOKEN_LIMIT, ENOBUFS, ODX_STATUS_INSUFFICIENT_RESOURCES,
            "the limit of live tokens is reached"),
    ODX_ROW(NO_SPACE, ENOSPC, ODX_STATUS_DISK_FULL, "no space left"),
    ODX_ROW(NO_MEMORY, ENOMEM, ODX_STATUS_INSUFFICIENT_RESOURCES, "out of memory"),
    ODX_ROW(IO_ERROR, EIO, ODX_STATUS_IO_DEVICE_ERROR, "the store failed"),
    ODX_ROW(SHORT, 0, ODX_STATUS_SUCCESS, "done in part"),
    ODX_ROW_OF_TWO(DISABLED, EPERM, ODX_STATUS_OFFLOAD_READ_FLT_NOT_SUPPORTED,
                   ODX_STATUS_OFFLOAD_WRITE_FLT_NOT_SUPPORTED,
                   "offload is switched off on this mount"),
};
#undef ODX_ROW
#undef ODX_ROW_OF_TWO

constexpr bool rows_in_order() {
  for (std::size_t i = 0; i < kReasons.size(); ++i) {
    if (kReasons[i].reason != static_cast<odx_reason>(i)) {
      return false;
    }
  }
  return true;
}
static_assert(rows_in_order(), "kReasons is indexed by the reason");

// EXDEV and the token errnos come before any generic meaning: only a token makes them here.
odx_reason reason_of_errno(int errno_value) {
  switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
      return ODX_REASON_NO_SPACE;
    case ENOMEM:
      return ODX_REASON_NO_MEMORY;
    case ENOBUFS:
      return ODX_REASON_TOKEN_LIMIT;
    case EROFS:
      return ODX_REASON_READ_ONLY;
    case EBADF:
    case EACCES:
      return ODX_REASON_ACCESS_MODE;
    case EPERM:
      return ODX_REASON_DISABLED;
    case EISDIR:
    case EOPNOTSUPP:
      return ODX_REASON_NOT_A_FILE;
    case EFBIG:
      return ODX_REASON_FILE_TOO_BIG;
    case ENXIO:
      return ODX_REASON_END_OF_FILE;
    case EAGAIN:
      return ODX_REASON_LOCKED;
    case EKEYEXPIRED:
      return ODX_REASON_TOKEN_EXPIRED;
    case EKEYREJECTED:
      return ODX_REASON_TOKEN_UNKNOWN;
    case EXDEV:
      return ODX_REASON_TOKEN_FOREIGN;
    default:
      return ODX_REASON_IO_ERROR;
  }
}

}  // namespace

Verdict verdict_for(odx_reason reason, Control control) {
  const auto index = static_cast<std::size_t>(reason);
  const ReasonRow& found =
      index < kReasons.size() ? kReasons[index] : kReasons[ODX_REASON_IO_ERROR];
  return {found.errno_value, control == Control::kRead ? found.read_status : found.write_status,
          found.reason};
}

Verdict verdict_for_errno(int errno_value, Control control) {
  return {errno_value, status_of_errno(errno_value, control), reason_of_errno(errno_value)};
}

std::uint32_t status_of_errno(int errno_value, Control control) {
  switch (errno_value) {
    case 0:
      return ODX_STATUS_SUCCESS;
    case ENOTTY:
      return ODX_STATUS_INVALID_DEVICE_REQUEST;
    case EINVAL:
      return ODX_STATUS_INVALID_PARAMETER;
    case ESTALE:
      return ODX_STATUS_INVALID_TOKEN;
    case ENODEV:
    case ENOTCONN:
      return ODX_STATUS_VOLUME_DISMOUNTED;
    default:
      return verdict_for(reason_of_errno(errno_value), control).status;
  }
}

int errno_of_status(std::uint32_t status) {
  switch (status) {
    case ODX_STATUS_SUCCESS:
      return 0;
    case ODX_STATUS_INVALID_PARAMETER:
    case ODX_STATUS_BUFFER_TOO_SMALL:
      return EINVAL;
    case ODX_STATUS_INVALID_DEVICE_REQUEST:
      return ENOTTY;
    case ODX_STATUS_END_OF_FILE:
      return ENXIO;
    case ODX_STATUS_ACCESS_DENIED:
      return EACCES;
    case ODX_STATUS_FILE_LOCK_CONFLICT:
      return EAGAIN;
    case ODX_STATUS_DISK_FULL:
      return ENOSPC;
    case ODX_STATUS_INSUFFICIENT_RESOURCES:
      return ENOBUFS;
    case ODX_STATUS_MEDIA_WRITE_PROTECTED:
      return EROFS;
    case ODX_STATUS_NOT_SUPPORTED:
    case ODX_STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED:
    case ODX_STATUS_OFFLOAD_WRITE_FILE_NOT_SUPPORTED:
      return EOPNOTSUPP;
    case ODX_STATUS_OFFLOAD_READ_FLT_NOT_SUPPORTED:
    case ODX_STATUS_OFFLOAD_WRITE_FLT_NOT_SUPPORTED:
      return EPERM;
    case ODX_STATUS_VOLUME_DISMOUNTED:
      return ENODEV;
    case ODX_STATUS_DEVICE_UNREACHABLE:
      return EXDEV;
    case ODX_STATUS_INVALID_TOKEN:
      return EKEYREJECTED;
    default:
      return EIO;
  }
}

const char* reason_text(std::uint32_t reason) {
  return reason < kReasons.size() ? kReasons[reason].text : "unknown reason";
}

const char* reason_name(std::uint32_t reason) {
  return reason < kReasons.size() ? kReasons[reason].name : "UNKNOWN";
}

const char* status_name(std::uint32_t status) {
  switch (status) {
    case ODX_STATUS_SUCCESS:
      return "STATUS_SUCCESS";
    case ODX_STATUS_INVALID_PARAMETER:
      return "STATUS_INVALID_PARAMETER";
    case ODX_STATUS_INVALID_DEVICE_REQUEST:
      return "STATUS_INVALID_DEVICE_REQUEST";
    case ODX_STATUS_END_OF_FILE:
      return "STATUS_END_OF_FILE";
    case ODX_STATUS_ACCESS_DENIED:
      return "STATUS_ACCESS_DENIED";
    case ODX_STATUS_BUFFER_TOO_SMALL:
      return "STATUS_BUFFER_TOO_SMALL";
    case ODX_STATUS_FILE_LOCK_CONFLICT:
      return "STATUS_FILE_LOCK_CONFLICT";
    case ODX_STATUS_DISK_FULL:
      return "STATUS_DISK_FULL";
    case ODX_STATUS_INSUFFICIENT_RESOURCES:
      return "STATUS_INSUFFICIENT_RESOURCES";
    case ODX_STATUS_MEDIA_WRITE_PROTECTED:
      return "STATUS_MEDIA_WRITE_PROTECTED";
    case ODX_STATUS_NOT_SUPPORTED:
      return "STATUS_NOT_SUPPORTED";
    case ODX_STATUS_IO_DEVICE_ERROR:
      return "STATUS_IO_DEVICE_ERROR";
    case ODX_STATUS_VOLUME_DISMOUNTED:
      return "STATUS_VOLUME_DISMOUNTED";
    case ODX_STATUS_DEVICE_UNREACHABLE:
      return "STATUS_DEVICE_UNREACHABLE";
    case ODX_STATUS_INVALID_TOKEN:
      return "STATUS_INVALID_TOKEN";
    case ODX_STATUS_OFFLOAD_READ_FLT_NOT_SUPPORTED:
      return "STATUS_OFFLOAD_READ_FLT_NOT_SUPPORTED";
    case ODX_STATUS_OFFLOAD_WRITE_FLT_NOT_SUPPORTED:
      return "STATUS_OFFLOAD_WRITE_FLT_NOT_SUPPORTED";
    case ODX_STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED:
      return "STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED";
    case ODX_STATUS_OFFLOAD_WRITE_FILE_NOT_SUPPORTED:
      return "STATUS_OFFLOAD_WRITE_FILE_NOT_SUPPORTED";
    default:
      return "unknown status";
  }
}

}  // namespace odx::proto
