// What requests are served from.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

#include "coherence.hpp"
#include "executor.hpp"
#include "inode_table.hpp"
#include "options.hpp"
#include "store/store.hpp"

namespace odx::daemon {

struct Filesystem {
  Filesystem(Store& store_in, const Options& options_in);

  Store& store;
  const Options& options;
  InodeTable inodes;
  Coherence coherence;

  // Two pools, because seeks hold a lock of the kernel's that ioctls may wait for; see
  // coherence.cpp.
  Executor seekers;
  Executor controllers;

  // As agreed with the kernel: SETXATTR requests come in their longer form; directories have to
  // be opened before they are read.
  std::atomic<bool> long_setxattr{false};
  std::atomic<bool> needs_opendir{true};
  std::atomic<std::uint64_t> requests{0};
  dev_t device = 0;  // st_dev of the mount

  // The kernel forgets `count` look-ups.
  void forget(InodeNo ino, std::uint64_t count);
  void released(InodeNo ino, bool for_writing);
  // Tells the table of an inode that has just lost a name, and frees it if it was the last and
  // nobody knows the inode.
  void lost_name(const Inode& inode);

 private:
  void reap(InodeNo ino);
};

[[nodiscard]] inline bool opens_for_writing(std::uint32_t open_flags) {
  return (open_flags & 03U) != 0;  // O_ACCMODE
}

}  // namespace odx::daemon
