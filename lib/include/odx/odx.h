/* libodx: the offload controls of odxfs for programs.
 *
 * Usable from C89 and C++. Every function is thread-safe and answers with 0 or a negative errno; only
 * odx_copy() remembers something between calls. Pointers to results may be NULL where nothing else is said. Nothing
 * here flushes anything: the filesystem sees to it that tokens hold what was written before, also
 * through mappings, and that readers of a destination see what was written into it.
 */
#ifndef ODX_ODX_H
#define ODX_ODX_H

#include <odx/offload.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How the filesystem answered. If a call failed before the filesystem saw it (ENOTTY: not odxfs;
 * EBADF), `reason` is ODX_REASON_NONE and `status` is the NTSTATUS that goes with the errno. */
struct odx_result {
  uint32_t status;       /* NTSTATUS */
  uint32_t reason;       /* enum odx_reason */
  uint64_t bytes_shared; /* destination bytes that now name shared extents */
};

/* Takes a token for `length` bytes of `fd` (open for reading) from `offset` on. Both are multiples
 * of the filesystem's sector, or the range ends exactly at the end of the file; 4096 suits every
 * sector size, and the length may reach beyond the end. `ttl_ms` 0 is the default; `options` are
 * ODX_TOKEN_... bits. `token` must not be NULL. `transfer_length` becomes the bytes that the token
 * stands for, `flags` may get ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE. */
int odx_offload_read(int fd, uint64_t offset, uint64_t length, uint32_t ttl_ms, uint64_t options,
                     struct odx_token* token, uint64_t* transfer_length, uint32_t* flags,
                     struct odx_result* result);

/* Writes `length` bytes of what `token` stands for, from `transfer_offset` in it on, to `offset` of
 * `fd` (open for writing). Less may be written than was asked: `written` says how much, counted in
 * whole sectors even if the file ends inside the last one. */
int odx_offload_write(int fd, uint64_t offset, uint64_t length, const struct odx_token* token,
                      uint64_t transfer_offset, uint64_t* written, struct odx_result* result);

/* The same with the well-known token of endless zeros. */
int odx_zero(int fd, uint64_t offset, uint64_t length, uint64_t* written,
             struct odx_result* result);

/* The well-known token of endless zeros. */
void odx_zero_token(struct odx_token* token);

/* What the odxfs that `fd` is on is, allows and has done. -ENOTTY: it is on none. */
int odx_statistics(int fd, struct odx_stat* stat);

/* The next page of live tokens behind page->after, in id order; page->count is 0 after the last.
 * The caller sets `after` to zeros for the first page, to the last id seen for the others. */
int odx_list_tokens(int fd, struct odx_token_list* page);

/* Ends a token's life. -ENOENT: there is none; -EPERM: it is another user's. */
int odx_drop_token(int fd, const uint8_t id[16]);

/* The scrub and the check of a store in use (see odx/offload.h); the structure is filled in on
 * success. -EPERM: only root and the owner of the mount may. */
int odx_scrub_control(int fd, struct odx_scrub* call);
int odx_check_control(int fd, struct odx_check* call);
/* Asks how far the store that `fd` is on may grow, or (resize->limit not 0) changes it. The caller
 * sets all other fields to 0; the answer is there on failure too. -EPERM: neither root nor the
 * mount's owner; -EBUSY: the limit is below what is in use. */
int odx_resize_store(int fd, struct odx_resize* resize);

/* The id that a token of odxfs carries, as the two functions above know it. -EINVAL: it is none. */
int odx_token_id(const struct odx_token* token, uint8_t id[16]);

/* One line in English for an odx_reason; never NULL. */
const char* odx_reason_text(uint32_t reason);

/* "TOKEN_EXPIRED" and so on: the names of enum odx_reason without their prefix; never NULL. */
const char* odx_reason_name(uint32_t reason);

/* "STATUS_INVALID_TOKEN" and so on; never NULL. */
const char* odx_status_name(uint32_t status);

/* ---- copying a file ---- */

/* Option flags. */
#define ODX_COPY_REQUIRE_OFFLOAD 1u /* fail rather than copy in any other way */
#define ODX_COPY_NO_OFFLOAD 2u      /* do not try */

/* "NOT_ODXFS" and so on, and one line in English, for an odx_copy_note; never NULL. */
const char* odx_copy_note_name(uint32_t note);
const char* odx_copy_note_text(uint32_t note);

/* One step of a copy. */
enum odx_copy_way {
  ODX_WAY_TOKEN = 1, /* a token was written there */
  ODX_WAY_ZEROS = 2, /* known to be zeros up to the end, and left as a hole */
  ODX_WAY_CLONE = 3, /* copy_file_range(2) */
  ODX_WAY_COPY = 4,  /* read and written */
  ODX_WAY_SKIP = 5   /* a hole that an ordinary copy stepped over */
};
struct odx_copy_range {
  uint64_t offset; /* of the bytes of this step */
  uint64_t length;
  uint64_t bytes_shared; /* of these, now naming shared extents, as far as that is known */
  uint32_t way;          /* enum odx_copy_way */
  uint32_t note;         /* enum odx_copy_note: why not by a token; ODX_COPY_WHOLE if it was */
};

struct odx_copy_report {
  uint64_t bytes_total;     /* the source's size when the copy began */
  uint64_t bytes_offloaded; /* done by tokens, known zeros included */
  uint64_t bytes_shared;    /* of these, now naming shared extents */
  uint64_t bytes_cloned;    /* done by copy_file_range(2) */
  uint64_t bytes_copied;    /* done by reading and writing */
  uint64_t bytes_skipped;   /* holes that an ordinary copy stepped over */
  uint32_t tokens;          /* taken */
  uint32_t note;            /* enum odx_copy_note */
  uint32_t status;          /* NTSTATUS and odx_reason of the first control that failed */
  uint32_t reason;
  int32_t error; /* its errno, positive; 0 if none failed */
  uint32_t reserved0;
  uint64_t reserved[8];
};

struct odx_copy_options {
  uint32_t flags;     /* ODX_COPY_... */
  uint32_t ttl_ms;    /* of the tokens; 0: the filesystem's default */
  uint64_t threshold; /* smaller files are copied the ordinary way; 0: 256 KiB. Not applied with
                       * ODX_COPY_REQUIRE_OFFLOAD */
  uint64_t step;      /* most bytes of one offload write, in 4 KiB; 0: 256 MiB */
  /* Called after every step with what has been done so far and with the step, in ascending order of
   * offsets, from the calling thread. Anything but 0 ends the copy with -ECANCELED. Must not throw. */
  int (*progress)(const struct odx_copy_report* so_far, const struct odx_copy_range* step,
                  void* context);
  void* context;
  uint64_t reserved[8]; /* 0 */
};

/* Makes `destination_fd` (a regular file, open for writing, not the source) hold what `source_fd`
 * (a regular file, open for reading) holds: by tokens as far as possible, and from the point
 * reached with copy_file_range(2), then by reading and writing. Holes stay holes. The destination's
 * old content goes first. Tokens are dropped after use. `options` NULL: all 0. On failure the
 * destination holds a part.
 *
 * Two filesystems between which nothing can be offloaded are not asked again for three minutes, by
 * any thread of the process, but with ODX_COPY_REQUIRE_OFFLOAD. An odxfs is told of the bytes that
 * went another way (ODX_IOC_FALLBACK). */
int odx_copy(int source_fd, int destination_fd, const struct odx_copy_options* options,
             struct odx_copy_report* report);

#ifdef __cplusplus
}
#endif

#endif
