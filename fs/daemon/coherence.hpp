// Keeps the kernel's caches and the store telling the same story where the kernel does not do so
// by itself: around ioctls and seeks for holes.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/result.hpp"
#include "base/types.hpp"
#include "hurry.hpp"
#include "inode_table.hpp"
#include "own_view.hpp"
#include "store/store.hpp"

struct fuse_session;

namespace odx::daemon {

class Coherence {
 public:
  // `kernel_keeps_times`: the mount is in write-back mode.
  Coherence(Store& store, InodeTable& inodes, bool kernel_keeps_times)
      : store_(store),
        inodes_(inodes),
        kernel_keeps_times_(kernel_keeps_times),
        hurry_(kGrace, [this] { view_->begin_write_back_of_all(); }) {}

  // Before the first request is served; both outlive this object.
  void attach(fuse_session* session, OwnView* view) {
    session_ = session;
    view_ = view;
  }

  // What processes wrote to the file before this call, by write(2) or through mappings, is in the
  // store when it returns. Executors' threads only, no lock held. A seek comes with the kernel's
  // lock on the inode held. Errors: what was written cannot be stored (ENOSPC, EIO), now or
  // earlier; told once, as by fsync(2).
  enum class Caller { kSeek, kIoctl };
  Result<void> write_back(InodeNo ino, Caller caller);
  // The same, for every file there is. Not on a receiving thread.
  void write_back_all();

  [[nodiscard]] bool may_be_dirty(InodeNo ino) const { return inodes_.may_be_dirty(ino); }

  // The store changed [at, at + bytes) of the file behind the kernel's back, and perhaps made it
  // longer than `bytes_before`: no reader sees the old content, size or times after this call.
  // Executors' threads only.
  void content_changed(InodeNo ino, FileOffset at, std::uint64_t bytes, std::uint64_t bytes_before);

  // The store changed the inode's attributes behind the kernel's back. Any thread.
  void attributes_changed(InodeNo ino);

 private:
  // How long dirty pages may come in one by one before everything is written back in large pieces.
  static constexpr std::chrono::milliseconds kGrace{20};

  void drop_pages(InodeNo ino, FileOffset at, std::uint64_t bytes);
  void show_growth(InodeNo ino, std::uint64_t bytes_before);

  Store& store_;
  InodeTable& inodes_;
  const bool kernel_keeps_times_;
  fuse_session* session_ = nullptr;
  OwnView* view_ = nullptr;
  Hurry hurry_;
};

}  // namespace odx::daemon
