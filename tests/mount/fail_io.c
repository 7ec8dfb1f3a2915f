/* Preloaded into a daemon: the syncs of a store's files fail as long as a file tells them to.
 *
 * STORE.fail beside the store holds a part of the names of the files that are meant ("data/",
 * "journal"). What the store syncs one by one goes through these functions; only several segments
 * at once would go through io_uring. */
#undef _FILE_OFFSET_BITS /* both names of each function are defined here */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int told_to_fail(int fd) {
  char link[64], path[4096], control[4096], wanted[64] = {0};
  const char* part = NULL;
  int control_fd = -1;
  ssize_t n = 0;

  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = '\0';
  if ((part = strstr(path, "/data/")) == NULL && (part = strstr(path, "/journal")) == NULL &&
      (part = strstr(path, "/meta/")) == NULL) {
    return 0;
  }
  if (snprintf(control, sizeof control, "%.*s.fail", (int)(part - path), path) >=
      (int)sizeof control) {
    return 0;
  }
  control_fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
  if (control_fd < 0) return 0;
  n = read(control_fd, wanted, sizeof wanted - 1);
  close(control_fd);
  return n > 0 && strstr(part, wanted) != NULL;
}

int fsync(int fd) {
  if (told_to_fail(fd)) {
    errno = EIO;
    return -1;
  }
  return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
  if (told_to_fail(fd)) {
    errno = EIO;
    return -1;
  }
  return (int)syscall(SYS_fdatasync, fd);
}

/* The journal's writes are syncs, too. */
static ssize_t write_synced(int fd, const struct iovec* parts, int count, off_t at, int flags) {
  if ((flags & RWF_DSYNC) != 0 && told_to_fail(fd)) {
    errno = EIO;
    return -1;
  }
  return syscall(SYS_pwritev2, fd, parts, count, at, 0L, flags);
}

ssize_t pwritev2(int fd, const struct iovec* parts, int count, off_t at, int flags) {
  return write_synced(fd, parts, count, at, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec* parts, int count, off_t at, int flags) {
  return write_synced(fd, parts, count, at, flags);
}
