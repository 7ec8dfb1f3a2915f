/* The public header as a C89 program sees it, against golden.txt; and both controls by it.
 *
 *   golden FILE                         every vector of golden.txt, in both directions
 *   golden FILE calls SOURCE TARGET TOKEN    calls on two files of a mount, a line for each answer;
 *                                       the token goes to the file TOKEN
 *   golden FILE redeem TARGET TOKEN     redeems such a token
 *
 * Also compiled as C++17 and C++23, and for 32 bits: what it prints must not differ. Of odxfs only
 * <odx/offload.h> is used.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <odx/offload.h>

static const char* golden_file;
static int failures = 0;

/* C89 has no constants of 64 bits where long has 32. */
static uint64_t wide(uint32_t high, uint32_t low) { return ((uint64_t)high << 32) | low; }

/* ---- golden.txt ---- */

static int digit_of(int c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The hexadecimal bytes of one line, appended. Returns the new number of bytes, or -1. */
static int read_line(const char* line, unsigned char* bytes, int count, int size) {
  while (*line != '\0') {
    int high = digit_of(line[0]);
    int repeats = 1;
    int used = 2;
    if (*line == ' ' || *line == '\n') {
      ++line;
      continue;
    }
    if (high < 0 || digit_of(line[1]) < 0) {
      return -1;
    }
    if (line[2] == '*') {
      if (sscanf(line + 3, "%d%n", &repeats, &used) != 1) {
        return -1;
      }
      used += 3;
    }
    if (repeats > size - count) {
      return -1;
    }
    memset(bytes + count, high * 16 + digit_of(line[1]), (size_t)repeats);
    count += repeats;
    line += used;
  }
  return count;
}

/* The vector called `name`; it must have exactly `size` bytes. */
static int load(const char* name, void* bytes, size_t size) {
  FILE* file = fopen(golden_file, "r");
  char line[256];
  char found[64];
  int inside = 0;
  int expected = 0;
  int count = 0;
  if (file == NULL) {
    perror(golden_file);
    return 0;
  }
  while (fgets(line, sizeof line, file) != NULL && count >= 0) {
    if (line[0] == '=') {
      if (inside) {
        break;
      }
      inside = sscanf(line, "= %63s %d", found, &expected) == 2 && strcmp(found, name) == 0;
    } else if (inside && line[0] != '#') {
      count = read_line(line, (unsigned char*)bytes, count, (int)size);
    }
  }
  fclose(file);
  if (!inside || count != expected || (size_t)count != size) {
    printf("%s: %d bytes in %s, %lu in the header\n", name, count, golden_file,
           (unsigned long)size);
    return 0;
  }
  return 1;
}

static void expect(int condition, const char* what) {
  if (!condition) {
    printf("FAILED: %s\n", what);
    ++failures;
  }
}

/* `object` as the header lays it out must be the vector. */
static void expect_bytes(const char* name, const void* object, size_t size) {
  unsigned char bytes[sizeof(struct odx_check)]; /* the largest */
  expect(size <= sizeof bytes && load(name, bytes, size) && memcmp(bytes, object, size) == 0, name);
}

/* ---- the vectors ---- */

static void fill_token(struct odx_token* token) {
  int i;
  memset(token, 0, sizeof *token);
  token->type[0] = (uint8_t)(ODX_TOKEN_TYPE_ODXFS >> 24);
  token->type[1] = (uint8_t)(ODX_TOKEN_TYPE_ODXFS >> 16);
  token->type[2] = (uint8_t)(ODX_TOKEN_TYPE_ODXFS >> 8);
  token->type[3] = (uint8_t)ODX_TOKEN_TYPE_ODXFS;
  token->id_length[0] = ODX_TOKEN_ID_LENGTH >> 8;
  token->id_length[1] = ODX_TOKEN_ID_LENGTH & 0xFF;
  token->id[3] = 1;
  for (i = 0; i < 16; ++i) {
    token->id[4 + i] = (uint8_t)(0x10 + i);
    token->id[20 + i] = (uint8_t)(0x20 + i);
  }
  for (i = 0; i < 32; ++i) {
    token->id[36 + i] = (uint8_t)(0x80 + i);
  }
}

static void fill_read_input(struct odx_read_input* in) {
  in->size = sizeof *in;
  in->flags = 0x01020304u;
  in->token_time_to_live = 60000;
  in->reserved = 0x05060708u;
  in->file_offset = wide(0x11223344u, 0x55667700u);
  in->copy_length = wide(1, 0x200);
}

static void fill_write_output(struct odx_write_output* out) {
  out->size = sizeof *out;
  out->flags = 0;
  out->length_written = wide(0x1234u, 0x56789A00u);
}

static void check_inputs(void) {
  struct odx_read_input read;
  struct odx_write_input write;
  struct odx_read_input read_back;
  struct odx_write_input write_back;
  fill_read_input(&read);
  expect_bytes("read_input", &read, sizeof read);
  expect(load("read_input", &read_back, sizeof read_back) &&
             read_back.token_time_to_live == 60000 &&
             read_back.file_offset == wide(0x11223344u, 0x55667700u) &&
             read_back.copy_length == wide(1, 0x200),
         "read_input's fields");
  write.size = sizeof write;
  write.flags = 0x0A0B0C0Du;
  write.file_offset = wide(0x88776655u, 0x44332200u);
  write.copy_length = 0x2000;
  write.transfer_offset = wide(3, 0x200);
  fill_token(&write.token);
  expect_bytes("write_input", &write, sizeof write);
  expect(load("write_input", &write_back, sizeof write_back) &&
             write_back.file_offset == write.file_offset &&
             write_back.transfer_offset == write.transfer_offset &&
             memcmp(&write_back.token, &write.token, sizeof write.token) == 0,
         "write_input's fields");
}

static void check_outputs(void) {
  struct odx_read_output read;
  struct odx_write_output write;
  struct odx_read_output read_back;
  struct odx_write_output write_back;
  read.size = sizeof read;
  read.flags = ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE;
  read.transfer_length = 0x10200;
  fill_token(&read.token);
  expect_bytes("read_output", &read, sizeof read);
  expect(load("read_output", &read_back, sizeof read_back) && read_back.size == 528 &&
             read_back.flags == ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE &&
             read_back.transfer_length == 0x10200 && read_back.token.id[20] == 0x20,
         "read_output's fields");
  fill_write_output(&write);
  expect_bytes("write_output", &write, sizeof write);
  expect(load("write_output", &write_back, sizeof write_back) && write_back.size == 16 &&
             write_back.length_written == wide(0x1234u, 0x56789A00u),
         "write_output's fields");
}

static void check_tokens(void) {
  struct odx_token token;
  struct odx_token zero;
  fill_token(&token);
  expect_bytes("token", &token, sizeof token);
  memset(&zero, 0, sizeof zero);
  zero.type[0] = (uint8_t)(ODX_TOKEN_TYPE_ZERO_DATA >> 24);
  zero.type[1] = (uint8_t)(ODX_TOKEN_TYPE_ZERO_DATA >> 16);
  zero.type[3] = (uint8_t)ODX_TOKEN_TYPE_ZERO_DATA;
  zero.id_length[0] = ODX_TOKEN_ID_LENGTH >> 8;
  zero.id_length[1] = ODX_TOKEN_ID_LENGTH & 0xFF;
  expect_bytes("zero_token", &zero, sizeof zero);
  expect(sizeof zero == ODX_TOKEN_BYTES, "ODX_TOKEN_BYTES");
}

static void check_calls(void) {
  struct odx_offload call;
  unsigned char numbers[8];
  unsigned long requests[2];
  int i;
  memset(&call, 0, sizeof call);
  fill_read_input(&call.body.read_in);
  call.a.input_length = sizeof call.body.read_in;
  call.b.output_room = sizeof call.body.read_out;
  call.c.options = ODX_TOKEN_SYNC;
  expect_bytes("read_call", &call, sizeof call);
  memset(&call, 0, sizeof call);
  call.a.status = ODX_STATUS_INVALID_TOKEN;
  call.b.reason = ODX_REASON_TOKEN_EXPIRED;
  expect_bytes("failure", &call, sizeof call);
  memset(&call, 0, sizeof call);
  fill_write_output(&call.body.write_out);
  call.a.status = ODX_STATUS_SUCCESS;
  call.b.reason = ODX_REASON_SHORT;
  call.c.bytes_shared = wide(0x1234u, 0x56789900u);
  expect_bytes("write_return", &call, sizeof call);
  expect(load("write_return", &call, sizeof call) && call.b.reason == ODX_REASON_SHORT &&
             call.c.bytes_shared == wide(0x1234u, 0x56789900u),
         "write_return's fields");
  requests[0] = ODX_IOC_OFFLOAD_READ;
  requests[1] = ODX_IOC_OFFLOAD_WRITE;
  for (i = 0; i < 8; ++i) {
    numbers[i] = (unsigned char)(requests[i / 4] >> (i % 4 * 8));
  }
  expect_bytes("request_numbers", numbers, sizeof numbers);
}

/* Every field of it gets a number of its own. */
static void check_upkeep(void) {
  struct odx_scrub scrub;
  struct odx_check check;
  unsigned char numbers[8];
  unsigned long requests[2];
  int i;
  memset(&scrub, 0, sizeof scrub);
  scrub.operation = ODX_SCRUB_CANCEL;
  scrub.state = ODX_SCRUB_FAILED;
  scrub.rate = ODX_SCRUB_RATE_DEFAULT;
  scrub.pass = wide(1, 2);
  scrub.started_ns = (int64_t)wide(3, 4);
  scrub.changed_ns = (int64_t)wide(5, 6);
  scrub.active_ns = wide(7, 8);
  scrub.done_bytes = wide(9, 10);
  scrub.total_bytes = wide(11, 12);
  scrub.position = wide(13, 14);
  scrub.saved_position = wide(15, 16);
  scrub.damaged_blocks = wide(17, 18);
  scrub.damaged_owners = wide(19, 20);
  scrub.suspects = wide(21, 22);
  scrub.error = EIO;
  scrub.text_bytes = 3;
  scrub.text_from = wide(23, 24);
  scrub.text_total = wide(25, 26);
  memcpy(scrub.text, "abc", 3);
  expect_bytes("scrub", &scrub, sizeof scrub);
  memset(&check, 0, sizeof check);
  check.operation = ODX_CHECK_START;
  check.flags = ODX_CHECK_DATA;
  check.job = wide(1, 2);
  check.state = ODX_CHECK_FAILED;
  check.error = ENOSPC;
  memcpy(check.phase, "data", 4);
  check.phase_done = wide(3, 4);
  check.phase_total = wide(5, 6);
  check.problems = wide(7, 8);
  check.inodes = wide(9, 10);
  check.directories = wide(11, 12);
  check.entries = wide(13, 14);
  check.xattrs = wide(15, 16);
  check.orphans = wide(17, 18);
  check.tokens = wide(19, 20);
  check.nodes = wide(21, 22);
  check.queued = wide(23, 24);
  check.extents = wide(25, 26);
  check.blocks = wide(27, 28);
  check.used_blocks = wide(29, 30);
  check.data_bytes = wide(31, 32);
  check.verified_blocks = wide(33, 34);
  check.text_bytes = 3;
  check.text_from = wide(35, 36);
  check.text_total = wide(37, 38);
  memcpy(check.text, "xyz", 3);
  expect_bytes("check", &check, sizeof check);
  requests[0] = ODX_IOC_SCRUB;
  requests[1] = ODX_IOC_CHECK;
  for (i = 0; i < 8; ++i) {
    numbers[i] = (unsigned char)(requests[i / 4] >> (i % 4 * 8));
  }
  expect_bytes("upkeep_numbers", numbers, sizeof numbers);
}

/* ---- the controls ---- */

#define SECTOR 512u

/* One line: what was asked, errno and the 560 bytes, but for a token's random ones. */
static int control(int file, int write, struct odx_offload* call, const char* what) {
  const unsigned char* bytes = (const unsigned char*)call;
  const int result = ioctl(file, write ? ODX_IOC_OFFLOAD_WRITE : ODX_IOC_OFFLOAD_READ, call);
  const int error = result == 0 ? 0 : errno;
  const size_t random_from = write ? sizeof *call : offsetof(struct odx_read_output, token) + 28;
  size_t i;
  printf("%s: result %d errno %d ", what, result, error);
  for (i = 0; i < sizeof *call; ++i) {
    if (i < random_from || i >= random_from + 48) {
      printf("%02x", bytes[i]);
    }
  }
  printf("\n");
  return error;
}

static void ask_read(struct odx_offload* call, uint64_t offset, uint64_t length) {
  memset(call, 0, sizeof *call);
  call->body.read_in.size = sizeof call->body.read_in;
  call->body.read_in.file_offset = offset;
  call->body.read_in.copy_length = length;
}

static void ask_write(struct odx_offload* call, uint64_t offset, uint64_t length,
                      const struct odx_token* token, uint64_t from) {
  memset(call, 0, sizeof *call);
  call->body.write_in.size = sizeof call->body.write_in;
  call->body.write_in.file_offset = offset;
  call->body.write_in.copy_length = length;
  call->body.write_in.transfer_offset = from;
  call->body.write_in.token = *token;
}

static int keep_token(const struct odx_token* token, const char* path) {
  FILE* file = fopen(path, "wb");
  int done;
  if (file == NULL) {
    return 0;
  }
  done = fwrite(token, sizeof *token, 1, file) == 1;
  return fclose(file) == 0 && done;
}

/* `source` holds 16 sectors or more, and so does `target`. */
static void call_both(int source, int target, const char* token_path) {
  struct odx_offload call;
  struct odx_token token;
  ask_read(&call, 0, 16 * SECTOR);
  expect(control(source, 0, &call, "READ") == 0, "READ");
  token = call.body.read_out.token;
  expect(keep_token(&token, token_path), token_path);
  ask_write(&call, 0, 8 * SECTOR, &token, 4 * SECTOR);
  expect(control(target, 1, &call, "WRITE") == 0, "WRITE");
  ask_write(&call, 8 * SECTOR, 16 * SECTOR, &token, 12 * SECTOR);
  expect(control(target, 1, &call, "WRITE, short") == 0, "WRITE, short");

  ask_read(&call, 1, SECTOR);
  expect(control(source, 0, &call, "READ, alignment") == EINVAL, "READ, alignment");
  ask_read(&call, wide(0x100u, 0), SECTOR);
  expect(control(source, 0, &call, "READ, end of file") == ENXIO, "READ, end of file");
  ask_read(&call, wide(0xFFFFFFFFu, 0xFFFFFE00u), 2 * SECTOR);
  expect(control(source, 0, &call, "READ, wraps") == EINVAL, "READ, wraps");
  ask_read(&call, 0, wide(0x7FFFFFFFu, 0xFFFFFE00u));
  expect(control(source, 0, &call, "READ, long") == 0, "READ, long");
  ask_read(&call, 0, 0);
  expect(control(source, 0, &call, "READ, nothing") == 0, "READ, nothing");
  ask_write(&call, wide(0x7FFFFFFFu, 0xFFFFFE00u), SECTOR, &token, 0);
  expect(control(target, 1, &call, "WRITE, too big") == EFBIG, "WRITE, too big");
  ask_write(&call, 0, SECTOR, &token, wide(1, 0));
  expect(control(target, 1, &call, "WRITE, out of range") == EINVAL, "WRITE, out of range");
  token.id[100] ^= 1;
  ask_write(&call, 0, SECTOR, &token, 0);
  expect(control(target, 1, &call, "WRITE, changed token") == EKEYREJECTED, "changed token");
}

static void redeem(int target, const char* token_path) {
  struct odx_offload call;
  struct odx_token token;
  FILE* file = fopen(token_path, "rb");
  if (file == NULL || fread(&token, sizeof token, 1, file) != 1) {
    expect(0, token_path);
    return;
  }
  fclose(file);
  ask_write(&call, 0, 16 * SECTOR, &token, 0);
  expect(control(target, 1, &call, "redeem") == 0, "redeem");
}

static void check_resize(void) {
  struct odx_resize resize;
  struct odx_resize back;
  unsigned char number[4];
  memset(&resize, 0, sizeof resize);
  resize.limit = wide(0x11223344u, 0x55667000u);
  resize.limit_before = wide(0x99AABBCCu, 0xDDEE1000u);
  resize.exists = wide(0x2000u, 0x1000u);
  resize.exists_before = wide(0x3000u, 0x2000u);
  resize.least = wide(0x4000u, 0x3000u);
  expect_bytes("resize", &resize, sizeof resize);
  expect(load("resize", &back, sizeof back) && back.least == wide(0x4000u, 0x3000u) &&
             back.exists_before == wide(0x3000u, 0x2000u) && back.reserved[2] == 0,
         "resize's fields");
  expect(load("resize_number", number, sizeof number) &&
             (((uint32_t)number[3] << 24) | ((uint32_t)number[2] << 16) |
              ((uint32_t)number[1] << 8) | number[0]) == (uint32_t)ODX_IOC_RESIZE,
         "resize_number");
}

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: golden FILE [calls SOURCE TARGET TOKEN | redeem TARGET TOKEN]\n");
    return 2;
  }
  golden_file = argv[1];
  check_inputs();
  check_outputs();
  check_tokens();
  check_calls();
  check_upkeep();
  check_resize();
  if (argc == 6 && strcmp(argv[2], "calls") == 0) {
    const int source = open(argv[3], O_RDWR);
    const int target = open(argv[4], O_RDWR);
    expect(source >= 0 && target >= 0, "open");
    call_both(source, target, argv[5]);
    close(source);
    close(target);
  } else if (argc == 5 && strcmp(argv[2], "redeem") == 0) {
    const int target = open(argv[3], O_RDWR);
    expect(target >= 0, "open");
    redeem(target, argv[4]);
    close(target);
  } else if (argc != 2) {
    return 2;
  }
  if (failures == 0 && argc == 2) {
    printf("every vector is right, with pointers of %lu bytes\n", (unsigned long)sizeof(void*));
  }
  return failures == 0 ? 0 : 1;
}
