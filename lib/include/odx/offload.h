/* The offload controls of odxfs: ioctl numbers, structures and status codes.
 *
 * Usable from C89 and C++. The structures mirror FSCTL_OFFLOAD_READ and FSCTL_OFFLOAD_WRITE
 * (MS-FSCC 2.3.41 to 2.3.44) byte for byte; every field is naturally aligned, so no packing is
 * needed. All fields are little-endian, but for the header of the token (MS-FSCC 2.1.11), which is
 * big-endian.
 *
 * Both controls take one 560-byte structure and overwrite it. On failure too, the structure is
 * filled in: `body` is zero, `status` and `reason` say why, and ioctl(2) returns -1 with errno.
 */
#ifndef ODX_OFFLOAD_H
#define ODX_OFFLOAD_H

#include <stdint.h>
#include <sys/ioctl.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ODX_TOKEN_BYTES 512
#define ODX_TOKEN_ID_LENGTH 0x1F8

/* TokenType values (big-endian in the token). */
#define ODX_TOKEN_TYPE_ZERO_DATA 0xFFFF0001u
#define ODX_TOKEN_TYPE_RESERVED_FIRST 0xFFFF0002u /* to 0xFFFFFFFF: well-known types to come */
#define ODX_TOKEN_TYPE_ODXFS 0x4F445846u          /* ours, in the vendor range */

/* STORAGE_OFFLOAD_TOKEN, MS-FSCC 2.1.11 */
struct odx_token {
  uint8_t type[4];      /* big-endian */
  uint8_t reserved[2];  /* 0 */
  uint8_t id_length[2]; /* big-endian, 0x01F8 */
  uint8_t id[ODX_TOKEN_ID_LENGTH];
};

/* FSCTL_OFFLOAD_READ_INPUT, MS-FSCC 2.3.41, 32 bytes */
struct odx_read_input {
  uint32_t size;   /* 32 */
  uint32_t flags;  /* ignored */
  uint32_t token_time_to_live; /* milliseconds, 0 = default */
  uint32_t reserved;           /* ignored */
  uint64_t file_offset;        /* bytes, multiple of the sector */
  uint64_t copy_length;        /* bytes, multiple of the sector or ending at EOF */
};

/* FSCTL_OFFLOAD_READ_OUTPUT, MS-FSCC 2.3.42, 528 bytes */
#define ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE 0x00000001u
struct odx_read_output {
  uint32_t size;            /* 528 */
  uint32_t flags;           /* ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE */
  uint64_t transfer_length; /* bytes that the token stands for, from file_offset on */
  struct odx_token token;
};

/* FSCTL_OFFLOAD_WRITE_INPUT, MS-FSCC 2.3.43, 544 bytes */
struct odx_write_input {
  uint32_t size;  /* 544 */
  uint32_t flags; /* ignored */
  uint64_t file_offset;     /* bytes, multiple of the sector */
  uint64_t copy_length;     /* bytes, multiple of the sector or ending at EOF */
  uint64_t transfer_offset; /* bytes into the token's range, multiple of the sector */
  struct odx_token token;
};

/* FSCTL_OFFLOAD_WRITE_OUTPUT, MS-FSCC 2.3.44, 16 bytes */
struct odx_write_output {
  uint32_t size;  /* 16 */
  uint32_t flags; /* 0 */
  uint64_t length_written; /* bytes */
};

/* Option bits. */
#define ODX_TOKEN_SYNC 1u /* READ: the token is durable (survives a crash) on return */

struct odx_offload {
  union {
    struct odx_read_input read_in;
    struct odx_read_output read_out;
    struct odx_write_input write_in;
    struct odx_write_output write_out;
    uint8_t bytes[544];
  } body;
  union {
    uint32_t input_length; /* on call: bytes of input meant; 0 = exactly the structure's */
    uint32_t status;       /* on return: NTSTATUS */
  } a;
  union {
    uint32_t output_room; /* on call: bytes of room for output meant; 0 = exactly enough */
    uint32_t reason;      /* on return: enum odx_reason */
  } b;
  union {
    uint64_t options;      /* on call: option bits */
    uint64_t bytes_shared; /* on return: destination bytes that now name shared extents */
  } c;
};

#define ODX_IOC_OFFLOAD_READ _IOWR('O', 0x99, struct odx_offload)
#define ODX_IOC_OFFLOAD_WRITE _IOWR('O', 0x9A, struct odx_offload)

/* NTSTATUS values that the controls answer with (MS-ERREF 2.3.1). */
#define ODX_STATUS_SUCCESS 0x00000000u
#define ODX_STATUS_INVALID_PARAMETER 0xC000000Du
#define ODX_STATUS_INVALID_DEVICE_REQUEST 0xC0000010u
#define ODX_STATUS_END_OF_FILE 0xC0000011u
#define ODX_STATUS_ACCESS_DENIED 0xC0000022u
#define ODX_STATUS_BUFFER_TOO_SMALL 0xC0000023u
#define ODX_STATUS_FILE_LOCK_CONFLICT 0xC0000054u
#define ODX_STATUS_DISK_FULL 0xC000007Fu
#define ODX_STATUS_INSUFFICIENT_RESOURCES 0xC000009Au
#define ODX_STATUS_MEDIA_WRITE_PROTECTED 0xC00000A2u
#define ODX_STATUS_NOT_SUPPORTED 0xC00000BBu
#define ODX_STATUS_IO_DEVICE_ERROR 0xC0000185u
#define ODX_STATUS_VOLUME_DISMOUNTED 0xC000026Eu
#define ODX_STATUS_DEVICE_UNREACHABLE 0xC0000464u
#define ODX_STATUS_INVALID_TOKEN 0xC0000465u
#define ODX_STATUS_OFFLOAD_READ_FLT_NOT_SUPPORTED 0xC000A2A1u
#define ODX_STATUS_OFFLOAD_WRITE_FLT_NOT_SUPPORTED 0xC000A2A2u
#define ODX_STATUS_OFFLOAD_READ_FILE_NOT_SUPPORTED 0xC000A2A3u
#define ODX_STATUS_OFFLOAD_WRITE_FILE_NOT_SUPPORTED 0xC000A2A4u

/* Why a call answered as it did. Values are ABI: append, never renumber. */
enum odx_reason {
  ODX_REASON_NONE = 0, /* success, in full */
  ODX_REASON_INPUT_TOO_SMALL = 1,
  ODX_REASON_OUTPUT_TOO_SMALL = 2,
  ODX_REASON_UNKNOWN_OPTION = 3,
  ODX_REASON_FILE_OFFSET_ALIGNMENT = 4,
  ODX_REASON_COPY_LENGTH_ALIGNMENT = 5,
  ODX_REASON_TRANSFER_OFFSET_ALIGNMENT = 6,
  ODX_REASON_STRUCTURE_SIZE = 7,
  ODX_REASON_RANGE_WRAPS = 8,
  ODX_REASON_ZERO_LENGTH = 9, /* success at once, nothing looked at */
  ODX_REASON_NOT_A_FILE = 10,
  ODX_REASON_OFFSET_NEGATIVE = 11,
  ODX_REASON_FILE_TOO_BIG = 12,
  ODX_REASON_LOCKED = 13,
  ODX_REASON_END_OF_FILE = 14,
  ODX_REASON_ACCESS_MODE = 15,
  ODX_REASON_READ_ONLY = 16,
  ODX_REASON_TOKEN_MALFORMED = 17,
  ODX_REASON_TOKEN_UNKNOWN = 18,
  ODX_REASON_TOKEN_EXPIRED = 19,
  ODX_REASON_TOKEN_FOREIGN = 20,
  ODX_REASON_TOKEN_RESERVED_TYPE = 21,
  ODX_REASON_TOKEN_OTHER_USER = 22,
  ODX_REASON_TRANSFER_OFFSET_RANGE = 23,
  ODX_REASON_TOKEN_LIMIT = 24,
  ODX_REASON_NO_SPACE = 25,
  ODX_REASON_NO_MEMORY = 26,
  ODX_REASON_IO_ERROR = 27,
  ODX_REASON_SHORT = 28, /* success for less than was asked */
  ODX_REASON_DISABLED = 29
};

/* Why a copy engine moved bytes in another way than by tokens (see odx_copy in odx.h). Values are
 * ABI: append, never renumber. */
enum odx_copy_note {
  ODX_COPY_WHOLE = 0,           /* everything went by tokens */
  ODX_COPY_BELOW_THRESHOLD = 1, /* the file is too small to bother */
  ODX_COPY_SWITCHED_OFF = 2,    /* ODX_COPY_NO_OFFLOAD */
  ODX_COPY_NOT_ODXFS = 3,       /* the source or the destination is on another filesystem */
  ODX_COPY_OTHER_STORE = 4,     /* they are on two different stores */
  ODX_COPY_REFUSED = 5,         /* a control failed: see error, status and reason */
  ODX_COPY_NO_PROGRESS = 6,     /* a control succeeded four times without moving anything */
  ODX_COPY_SOURCE_CHANGED = 7   /* the source was cut short meanwhile */
};

/* Features of a mount. */
#define ODX_FEATURE_OFFLOAD 1u     /* the two controls work; else they are switched off */
#define ODX_FEATURE_EXTEND 2u      /* an offload write at the end of a file extends it */
#define ODX_FEATURE_USER_TOKENS 4u /* a token is good for its maker only */
#define ODX_FEATURE_READ_ONLY 8u

#define ODX_REASON_SLOTS 64
#define ODX_NOTE_SLOTS 16

/* What a mount is, what it allows and what it has done: ODX_IOC_STAT on any descriptor of it. What
 * is not said to be of this moment is since the mount. ENOTTY: this is no odxfs. */
struct odx_stat {
  uint32_t size;    /* of this structure as the daemon knows it */
  uint32_t version; /* 1 */
  uint8_t uuid[16]; /* of the store */
  char label[32];   /* NUL-terminated, as is the next */
  char program[32]; /* the daemon's version: "0.1.0" */
  uint32_t sector_bytes; /* what offsets and lengths must be multiples of */
  uint32_t block_bytes;
  uint64_t features;     /* ODX_FEATURE_... */

  /* Limits; all ones: none. */
  uint64_t file_bytes_max;
  uint64_t token_ttl_default_ms;
  uint64_t token_ttl_max_ms;
  uint64_t tokens_max;              /* live, of all users */
  uint64_t tokens_max_per_user;
  uint64_t pinned_bytes_max;        /* data that live tokens stand for */
  uint64_t pinned_bytes_max_per_user;

  /* This moment. */
  uint64_t total_bytes;             /* what statfs says */
  uint64_t free_bytes;
  uint64_t pending_bytes;           /* freed, not yet reusable */
  uint64_t reclaim_pending;         /* subtrees waiting to be reclaimed */
  uint64_t tokens_live;
  uint64_t tokens_live_peak;        /* most at any time since the mount */
  uint64_t pinned_bytes;
  uint64_t pinned_bytes_peak;

  /* Tokens. */
  uint64_t tokens_created;
  uint64_t tokens_redeemed;         /* successful offload writes */
  uint64_t tokens_expired;
  uint64_t tokens_dropped;
  uint64_t offload_bytes;           /* written by offload writes, holes included */
  uint64_t offload_bytes_shared;    /* of these, by naming shared extents */
  uint64_t clone_calls;             /* copy_file_range requests */
  uint64_t clone_bytes_shared;
  uint64_t refused[ODX_REASON_SLOTS];      /* controls that failed, by odx_reason */
  uint64_t fallback_bytes[ODX_NOTE_SLOTS]; /* that copy engines told us of, by odx_copy_note */

  /* Work. */
  uint64_t requests;                /* FUSE requests served */
  uint64_t device_bytes_read;
  uint64_t device_bytes_written;    /* file data only */
  uint64_t journal_bytes_written;
  uint64_t journal_flushes;
  uint64_t checkpoints;
  uint64_t checksum_errors;
  uint64_t reserved[32];            /* 0 */
};
#define ODX_IOC_STAT _IOR('O', 0x9B, struct odx_stat)

/* A copy engine's word that it moved bytes without tokens, and why: counted in fallback_bytes.
 * EINVAL: no such note. */
struct odx_fallback {
  uint32_t note;     /* enum odx_copy_note */
  uint32_t reserved; /* 0 */
  uint64_t bytes;
};
#define ODX_IOC_FALLBACK _IOW('O', 0x9E, struct odx_fallback)

/* Live tokens, in id order, up to 16 a call: set `after` to zeros, then to the last id seen, until
 * `count` comes back 0. A user sees his own tokens, root sees all. The secret is never told. */
struct odx_token_info {
  uint8_t id[16];
  uint32_t uid;
  uint32_t reserved;
  uint64_t length;     /* bytes that it stands for */
  uint64_t data_bytes; /* of these, not holes */
  int64_t created_ns;  /* since 1970 */
  int64_t expires_ns;
};
struct odx_token_list {
  uint8_t after[16];
  uint32_t count;
  uint32_t reserved;
  struct odx_token_info tokens[16];
};
#define ODX_IOC_TOKEN_LIST _IOWR('O', 0x9C, struct odx_token_list)

/* Ends a token's life. Its owner and root may; EPERM otherwise, ENOENT if there is none. */
struct odx_token_drop {
  uint8_t id[16];
};
#define ODX_IOC_TOKEN_DROP _IOW('O', 0x9D, struct odx_token_drop)

/* ---- looking after a store in use: for root and the owner of the mount, EPERM for others ---- */

/* Scrub: reads every block in use once and compares it with its checksum, in the background. It
 * goes on from where it stood after a pause, an unmount or a crash, once it is started again. One
 * structure serves all operations and tells the state after them. */
enum odx_scrub_operation {
  ODX_SCRUB_STATUS = 0,
  ODX_SCRUB_START = 1,  /* goes on, or begins a new pass; while it runs, only sets the rate */
  ODX_SCRUB_PAUSE = 2,  /* ENOENT: there is nothing to pause */
  ODX_SCRUB_CANCEL = 3  /* the next start begins anew; ENOENT: there is nothing to cancel */
};
enum odx_scrub_state {
  ODX_SCRUB_NEVER = 0,
  ODX_SCRUB_RUNNING = 1,
  ODX_SCRUB_PAUSED = 2,
  ODX_SCRUB_INTERRUPTED = 3, /* it ran when the store was unmounted, or died */
  ODX_SCRUB_DONE = 4,
  ODX_SCRUB_CANCELLED = 5,
  ODX_SCRUB_FAILED = 6 /* see error; another start goes on */
};
#define ODX_SCRUB_RATE_KEEP 0u /* as before; at first ODX_SCRUB_RATE_DEFAULT */
#define ODX_SCRUB_RATE_DEFAULT 67108864u
#define ODX_SCRUB_RATE_UNLIMITED UINT64_MAX

#define ODX_REPORT_TEXT_BYTES 3840

struct odx_scrub {
  uint32_t operation;   /* on call: enum odx_scrub_operation */
  uint32_t state;       /* on return, as all that follows but for text_from */
  uint64_t rate;        /* bytes a second, at most; on call of START: the new one, else 0 */
  uint64_t pass;        /* counts the passes that were begun */
  int64_t started_ns;   /* when the pass began, since 1970 */
  int64_t changed_ns;   /* when the position or the state changed last */
  uint64_t active_ns;   /* time that it has run in this pass */
  uint64_t done_bytes;  /* read in this pass */
  uint64_t total_bytes; /* done_bytes and what is still to be read */
  uint64_t position;    /* byte of the device where it goes on */
  uint64_t saved_position;  /* where it would go on after a crash, once that is durable */
  uint64_t damaged_blocks;  /* found in this pass */
  uint64_t damaged_owners;  /* files and tokens that they were found in, each time counted */
  uint64_t suspects;        /* blocks that looked damaged and are to be looked at again */
  int32_t error;            /* errno of ODX_SCRUB_FAILED */
  uint32_t text_bytes;      /* how much of `text` is filled */
  uint64_t text_from;       /* on call: the byte of the pass's report to begin with */
  uint64_t text_total;      /* bytes of the report so far; it only grows within a pass */
  uint64_t reserved[16];    /* 0 */
  char text[ODX_REPORT_TEXT_BYTES]; /* a part of the report: lines, UTF-8 but for file names */
};
#define ODX_IOC_SCRUB _IOWR('O', 0xA0, struct odx_scrub)

/* Check: recounts all metadata, as it is at one moment, in the background; writers go on. One at a
 * time. What a check found is kept until the next one or the unmount. */
enum odx_check_operation {
  ODX_CHECK_STATUS = 0,
  ODX_CHECK_START = 1, /* EBUSY: one is running */
  ODX_CHECK_CANCEL = 2 /* it ends soon; ENOENT: none is running */
};
enum odx_check_state {
  ODX_CHECK_NEVER = 0,
  ODX_CHECK_RUNNING = 1,
  ODX_CHECK_DONE = 2,
  ODX_CHECK_CANCELLED = 3,
  ODX_CHECK_FAILED = 4 /* nothing was found out: see error, and the report for its text */
};
#define ODX_CHECK_DATA 1u /* also read every block in use and compare it with its checksum */

struct odx_check {
  uint32_t operation; /* on call: enum odx_check_operation */
  uint32_t flags;     /* on call of START: ODX_CHECK_DATA, else 0; on return: of the check */
  uint64_t job;       /* on return, as all that follows but for text_from: its number */
  uint32_t state;
  int32_t error;        /* errno of ODX_CHECK_FAILED */
  char phase[32];       /* what is being looked at, NUL-terminated */
  uint64_t phase_done;  /* of phase_total; 0: not known */
  uint64_t phase_total;
  uint64_t problems;    /* when it is done */
  uint64_t inodes;      /* counted, as the following */
  uint64_t directories;
  uint64_t entries;
  uint64_t xattrs;
  uint64_t orphans;
  uint64_t tokens;
  uint64_t nodes;
  uint64_t queued;
  uint64_t extents;
  uint64_t blocks;
  uint64_t used_blocks;
  uint64_t data_bytes;
  uint64_t verified_blocks;
  uint32_t text_bytes;   /* how much of `text` is filled */
  uint32_t reserved0;    /* 0 */
  uint64_t text_from;    /* on call: the byte of the report to begin with */
  uint64_t text_total;   /* bytes of the report */
  uint64_t reserved[6];  /* 0 */
  char text[ODX_REPORT_TEXT_BYTES]; /* a part of the report: problems, a line each */
};
#define ODX_IOC_CHECK _IOWR('O', 0xA1, struct odx_check)

/* How far the store may grow: asked and set by root and the owner of the mount, EPERM for others.
 * A limit below what exists cuts off what is free there; EBUSY: it is not free, see `least`.
 * EINVAL: less than 16 MiB, more than there can be, or a field that must be 0 is not. The structure
 * is filled in on failure too. */
struct odx_resize {
  uint64_t limit;         /* on call: the bytes of data that are allowed from now on, rounded down to
                             whole blocks, or 0: only tell. On return: those that are allowed */
  uint64_t limit_before;  /* on call: 0, as all that follows */
  uint64_t exists;        /* on return: bytes of data blocks that exist, used or not */
  uint64_t exists_before;
  uint64_t least;         /* on return: the least limit that would be taken now */
  uint64_t reserved[3];   /* 0 */
};
#define ODX_IOC_RESIZE _IOWR('O', 0x9F, struct odx_resize)

#ifdef __cplusplus
}
#endif

#endif
