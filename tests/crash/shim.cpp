// The libc calls that change files, defined in the program itself: the dynamic linker prefers these
// to libc's, for the store and for LMDB alike. Each passes on to the kernel by syscall(2).
//
// Reads of the store's files are pread only; LMDB reads its map, where no call can be watched.
//
// What LMDB 0.9.24 and the store use was read from their sources and symbol tables: pwrite,
// pwritev2 with RWF_DSYNC, writev at the file position (LMDB's runs of pages), ftruncate,
// fallocate, fdatasync, fsync, open with O_CREAT, renameat, unlinkat. LMDB's meta pages go through
// a descriptor that was opened with O_DSYNC, which F_GETFL tells. The sweep compares what it
// recorded with the real files after each workload, so a call that goes past this file is found at
// once. msync and sync_file_range are left alone: they add no durability that anybody may rely on
// here.
//
// The headers rename pwrite to pwrite64 and so on, hence functions of our own names with the
// symbols given by hand.
#include "shim.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "memory.hpp"

namespace odx::crash {

namespace {

std::atomic<FileListener*> current{nullptr};
std::mutex turn;

ino_t inode_of(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? status.st_ino : 0;
}

ino_t inode_at(int dir, const char* path) {
  struct stat status {};
  return ::fstatat(dir, path, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status.st_ino : 0;
}

bool is_synced(int fd, int flags = 0) {
  const int mode = ::fcntl(fd, F_GETFL);
  return (mode >= 0 && (mode & O_DSYNC) != 0) || (flags & (RWF_DSYNC | RWF_SYNC)) != 0;
}

// The directory and the last component of a path.
struct Place {
  ino_t dir;
  std::string name;
};
Place place_of(int dir, const char* path) {
  const std::string text = path;
  const std::size_t slash = text.rfind('/');
  if (slash == std::string::npos) {
    return {dir == AT_FDCWD ? inode_at(AT_FDCWD, ".") : inode_of(dir), text};
  }
  return {inode_at(dir, slash == 0 ? "/" : text.substr(0, slash).c_str()), text.substr(slash + 1)};
}

// Does the work under the lock, so that the listener's order is the kernel's.
template <class Work, class Tell>
long watched(Call call, ino_t subject, std::uint64_t at, std::uint64_t bytes, Work work,
             Tell tell) {
  FileListener* const listener = current.load();
  const Sheltered sheltered;  // what is done here is not the store's
  std::unique_lock lock(turn);
  const Fate fate = listener->fate(call, subject, at, bytes);
  if (fate.delay.count() > 0) {
    lock.unlock();
    std::this_thread::sleep_for(fate.delay);
    lock.lock();
  }
  if (fate.error != 0) {
    if (call == Call::kSync) {
      listener->sync_failed(subject);
    }
    errno = fate.error;
    return -1;
  }
  const long answer = work(fate);
  if (answer >= 0) {
    const int keep = errno;
    tell(*listener, fate, answer);
    errno = keep;
  }
  return answer;
}

template <class Work, class Tell>
long watched(Call call, ino_t subject, Work work, Tell tell) {
  return watched(
      call, subject, 0, 0, [&](const Fate&) { return work(); },
      [&](FileListener& listener, const Fate&, long answer) { tell(listener, answer); });
}

long write_parts(int fd, const iovec* parts, int count, off_t at, int flags, bool at_position) {
  const auto work = [&] {
    return at_position ? ::syscall(SYS_writev, fd, parts, count)
                       : ::syscall(SYS_pwritev2, fd, parts, count, at, 0L, flags);
  };
  if (current.load() == nullptr) {
    return work();
  }
  std::uint64_t place = static_cast<std::uint64_t>(at);
  if (at_position) {
    const long now = ::syscall(SYS_lseek, fd, 0L, SEEK_CUR);
    if (now < 0) {
      return work();  // a pipe or a terminal
    }
    place = static_cast<std::uint64_t>(now);
  }
  std::uint64_t total = 0;
  for (int i = 0; i < count; ++i) {
    total += parts[i].iov_len;
  }
  const auto fated = [&](const Fate& fate) {
    if (fate.at_most >= total && fate.move_by == 0) {
      return work();
    }
    // In pieces, so that the caller's list stays as it is.
    std::uint64_t done = 0;
    for (int i = 0; i < count && done < fate.at_most; ++i) {
      const std::uint64_t here = std::min<std::uint64_t>(parts[i].iov_len, fate.at_most - done);
      const iovec part{parts[i].iov_base, here};
      const std::uint64_t to = place + done + static_cast<std::uint64_t>(fate.move_by);
      const long written = ::syscall(SYS_pwritev2, fd, &part, 1, static_cast<off_t>(to), 0L, flags);
      if (written < 0) {
        return done > 0 ? static_cast<long>(done) : written;
      }
      done += static_cast<std::uint64_t>(written);
    }
    if (at_position) {
      ::syscall(SYS_lseek, fd, place + done, SEEK_SET);
    }
    return static_cast<long>(done);
  };
  return watched(Call::kWrite, inode_of(fd), place, total, fated,
                 [&](FileListener& listener, const Fate& fate, long written) {
                   std::vector<std::byte> data;
                   for (int i = 0; i < count; ++i) {
                     const auto* from = static_cast<const std::byte*>(parts[i].iov_base);
                     data.insert(data.end(), from, from + parts[i].iov_len);
                   }
                   data.resize(static_cast<std::size_t>(written));
                   listener.wrote(inode_of(fd), place + static_cast<std::uint64_t>(fate.move_by),
                                  data, is_synced(fd, flags));
                 });
}

ssize_t read_some(int fd, void* into, size_t bytes, off_t at) {
  FileListener* const listener = current.load();
  if (listener == nullptr || !listener->minds_reads()) {
    return ::syscall(SYS_pread64, fd, into, bytes, at);
  }
  return watched(
      Call::kRead, inode_of(fd), static_cast<std::uint64_t>(at), bytes,
      [&](const Fate& fate) {
        const long got =
            ::syscall(SYS_pread64, fd, into, std::min<std::uint64_t>(bytes, fate.at_most), at);
        if (got > 0 && fate.flip_bit != UINT64_MAX) {
          const std::uint64_t bit = fate.flip_bit % (static_cast<std::uint64_t>(got) * 8);
          static_cast<unsigned char*>(into)[bit / 8] ^= static_cast<unsigned char>(1U << (bit % 8));
        }
        return got;
      },
      [](FileListener&, const Fate&, long) {});
}

long open_file(int dir, const char* path, int flags, mode_t mode) {
  const auto work = [&] { return ::syscall(SYS_openat, dir, path, flags, mode); };
  if ((flags & O_CREAT) == 0 || current.load() == nullptr) {
    return work();
  }
  const bool existed = inode_at(dir, path) != 0;
  const Place place = place_of(dir, path);
  return watched(Call::kCreate, place.dir, work, [&](FileListener& listener, long fd) {
    if (!existed) {
      listener.created(place.dir, place.name, inode_of(static_cast<int>(fd)));
    }
  });
}

int sync_file(int fd, long number) {
  const auto work = [&] { return ::syscall(number, fd); };
  if (current.load() == nullptr) {
    return static_cast<int>(work());
  }
  const ino_t file = inode_of(fd);
  return static_cast<int>(watched(Call::kSync, file, work,
                                  [&](FileListener& listener, long) { listener.synced(file); }));
}

int resize_file(int fd, off_t bytes) {
  const auto work = [&] { return ::syscall(SYS_ftruncate, fd, bytes); };
  if (current.load() == nullptr) {
    return static_cast<int>(work());
  }
  const ino_t file = inode_of(fd);
  return static_cast<int>(watched(Call::kResize, file, work, [&](FileListener& listener, long) {
    listener.resized(file, static_cast<std::uint64_t>(bytes));
  }));
}

int reserve_file(int fd, int mode, off_t at, off_t bytes) {
  const auto work = [&] { return ::syscall(SYS_fallocate, fd, mode, at, bytes); };
  if (current.load() == nullptr) {
    return static_cast<int>(work());
  }
  const ino_t file = inode_of(fd);
  const Call call = (mode & FALLOC_FL_PUNCH_HOLE) != 0 ? Call::kPunch : Call::kReserve;
  return static_cast<int>(watched(call, file, work, [&](FileListener& listener, long) {
    if ((mode & FALLOC_FL_PUNCH_HOLE) != 0) {
      listener.punched(file, static_cast<std::uint64_t>(at), static_cast<std::uint64_t>(bytes));
    } else if ((mode & FALLOC_FL_KEEP_SIZE) == 0) {
      listener.reserved(file, static_cast<std::uint64_t>(at + bytes));
    }
  }));
}

int rename_file(int from_dir, const char* from, int to_dir, const char* to) {
  const auto work = [&] { return ::syscall(SYS_renameat, from_dir, from, to_dir, to); };
  if (current.load() == nullptr) {
    return static_cast<int>(work());
  }
  const Place a = place_of(from_dir, from);
  const Place b = place_of(to_dir, to);
  return static_cast<int>(watched(Call::kRename, a.dir, work, [&](FileListener& listener, long) {
    listener.renamed(a.dir, a.name, b.dir, b.name);
  }));
}

int unlink_file(int dir, const char* path, int flags) {
  const auto work = [&] { return ::syscall(SYS_unlinkat, dir, path, flags); };
  if (current.load() == nullptr) {
    return static_cast<int>(work());
  }
  const Place place = place_of(dir, path);
  return static_cast<int>(
      watched(Call::kUnlink, place.dir, work,
              [&](FileListener& listener, long) { listener.unlinked(place.dir, place.name); }));
}

}  // namespace

void listen(FileListener* listener) { current.store(listener); }

void between_calls(const std::function<void()>& work) {
  const std::lock_guard lock(turn);
  work();
}

}  // namespace odx::crash

using namespace odx::crash;

#define ODX_SYMBOL(declaration, symbol) extern "C" declaration __asm__(symbol)

ODX_SYMBOL(ssize_t shim_pread(int, void*, size_t, off_t), "pread");
ODX_SYMBOL(ssize_t shim_pread64(int, void*, size_t, off_t), "pread64");
ODX_SYMBOL(ssize_t shim_pwrite(int, const void*, size_t, off_t), "pwrite");
ODX_SYMBOL(ssize_t shim_pwrite64(int, const void*, size_t, off_t), "pwrite64");
ODX_SYMBOL(ssize_t shim_write(int, const void*, size_t), "write");
ODX_SYMBOL(ssize_t shim_writev(int, const iovec*, int), "writev");
ODX_SYMBOL(ssize_t shim_pwritev(int, const iovec*, int, off_t), "pwritev");
ODX_SYMBOL(ssize_t shim_pwritev64(int, const iovec*, int, off_t), "pwritev64");
ODX_SYMBOL(ssize_t shim_pwritev2(int, const iovec*, int, off_t, int), "pwritev2");
ODX_SYMBOL(ssize_t shim_pwritev64v2(int, const iovec*, int, off_t, int), "pwritev64v2");
ODX_SYMBOL(int shim_ftruncate(int, off_t), "ftruncate");
ODX_SYMBOL(int shim_ftruncate64(int, off_t), "ftruncate64");
ODX_SYMBOL(int shim_fallocate(int, int, off_t, off_t), "fallocate");
ODX_SYMBOL(int shim_fallocate64(int, int, off_t, off_t), "fallocate64");
ODX_SYMBOL(int shim_fsync(int), "fsync");
ODX_SYMBOL(int shim_fdatasync(int), "fdatasync");
ODX_SYMBOL(int shim_open(const char*, int, ...), "open");
ODX_SYMBOL(int shim_open64(const char*, int, ...), "open64");
ODX_SYMBOL(int shim_openat(int, const char*, int, ...), "openat");
ODX_SYMBOL(int shim_openat64(int, const char*, int, ...), "openat64");
ODX_SYMBOL(int shim_rename(const char*, const char*), "rename");
ODX_SYMBOL(int shim_renameat(int, const char*, int, const char*), "renameat");
ODX_SYMBOL(int shim_unlink(const char*), "unlink");
ODX_SYMBOL(int shim_unlinkat(int, const char*, int), "unlinkat");

namespace {

ssize_t write_one(int fd, const void* from, size_t bytes, off_t at, bool at_position) {
  const iovec part{const_cast<void*>(from), bytes};
  return write_parts(fd, &part, 1, at, 0, at_position);
}

mode_t mode_argument(int flags, std::va_list& arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

ssize_t shim_pread(int fd, void* into, size_t bytes, off_t at) {
  return read_some(fd, into, bytes, at);
}
ssize_t shim_pread64(int fd, void* into, size_t bytes, off_t at) {
  return read_some(fd, into, bytes, at);
}
ssize_t shim_pwrite(int fd, const void* from, size_t bytes, off_t at) {
  return write_one(fd, from, bytes, at, false);
}
ssize_t shim_pwrite64(int fd, const void* from, size_t bytes, off_t at) {
  return write_one(fd, from, bytes, at, false);
}
ssize_t shim_write(int fd, const void* from, size_t bytes) {
  return write_one(fd, from, bytes, 0, true);
}
ssize_t shim_writev(int fd, const iovec* parts, int count) {
  return write_parts(fd, parts, count, 0, 0, true);
}
ssize_t shim_pwritev(int fd, const iovec* parts, int count, off_t at) {
  return write_parts(fd, parts, count, at, 0, false);
}
ssize_t shim_pwritev64(int fd, const iovec* parts, int count, off_t at) {
  return write_parts(fd, parts, count, at, 0, false);
}
ssize_t shim_pwritev2(int fd, const iovec* parts, int count, off_t at, int flags) {
  return write_parts(fd, parts, count, at, flags, false);
}
ssize_t shim_pwritev64v2(int fd, const iovec* parts, int count, off_t at, int flags) {
  return write_parts(fd, parts, count, at, flags, false);
}
int shim_ftruncate(int fd, off_t bytes) { return resize_file(fd, bytes); }
int shim_ftruncate64(int fd, off_t bytes) { return resize_file(fd, bytes); }
int shim_fallocate(int fd, int mode, off_t at, off_t bytes) {
  return reserve_file(fd, mode, at, bytes);
}
int shim_fallocate64(int fd, int mode, off_t at, off_t bytes) {
  return reserve_file(fd, mode, at, bytes);
}
int shim_fsync(int fd) { return sync_file(fd, SYS_fsync); }
int shim_fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

// NOLINTBEGIN(cert-dcl50-cpp): libc's own signatures
int shim_open(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return static_cast<int>(open_file(AT_FDCWD, path, flags, mode));
}
int shim_open64(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return static_cast<int>(open_file(AT_FDCWD, path, flags, mode));
}
int shim_openat(int dir, const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return static_cast<int>(open_file(dir, path, flags, mode));
}
int shim_openat64(int dir, const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return static_cast<int>(open_file(dir, path, flags, mode));
}
// NOLINTEND(cert-dcl50-cpp)

int shim_rename(const char* from, const char* to) {
  return rename_file(AT_FDCWD, from, AT_FDCWD, to);
}
int shim_renameat(int from_dir, const char* from, int to_dir, const char* to) {
  return rename_file(from_dir, from, to_dir, to);
}
int shim_unlink(const char* path) { return unlink_file(AT_FDCWD, path, 0); }
int shim_unlinkat(int dir, const char* path, int flags) { return unlink_file(dir, path, flags); }
