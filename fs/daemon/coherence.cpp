// The kernel's page cache and the store.
//
// In write-back mode the kernel owns the size, the modification time and the newest bytes of every
// regular file that it has in its cache. It flushes before copy_file_range, fallocate, O_DIRECT and
// close, but not before an ioctl or SEEK_DATA/SEEK_HOLE, and it never learns by itself that an
// ioctl changed a file. Answering those two from the store alone loses data: cp skips a "hole"
// that has a dirty page over it, a token misses what was written a moment before, a dirty page
// lands on top of an offload write.
//
//   SEEK_DATA, SEEK_HOLE   write back, then look
//   OFFLOAD_READ           write back the source, then make the token
//   OFFLOAD_WRITE          write back the destination (else its dirty pages would land on top
//                          later; also, the store only then knows the size), splice, then drop the
//                          pages of the range, show the new size and time
//
// Which files: those open for writing. The kernel dirties pages without a word to us, so there is
// no finer sign ("not written since") to go by; the last RELEASE is sent after the last write-back.
//
// How to write back: FUSE_NOTIFY_INVAL_INODE makes the kernel lock every page of the file in turn,
// launder it if it is dirty (a WRITE, waited for) and drop it. That needs no privilege and no inode
// lock, but sends single pages: 25 times slower than it need be. Where we may open the file
// ourselves and there is no inode lock about, sync_file_range(2) sends megabytes. Otherwise, if
// laundering takes long, we ask for everything on the mount to be written back at the same time
// (syncfs(2) begins that but does not wait for FUSE); laundering then only waits for its pages.
//
// A notification waits for reads in flight, since they hold the pages they fill; a READ sent after
// the splice sees the new content. So after the second notification no page with old bytes is
// left, except one that is dirtied by somebody between the two: that page carries the old bytes
// around the new store with it, as in copy_file_range(2).
//
// Why nothing deadlocks:
//   1. Receiving threads never wait for an executor, and take nothing that a notification or an
//      executor holds. Hence WRITE, READ, SETATTR, LOOKUP, OPEN and RELEASE are always served, and
//      whatever the kernel does meanwhile with pages or inodes ends.
//   2. Seeks come in with the kernel's inode lock held. Their pool only sends notifications and
//      has the mount written back, which takes page locks; nobody holds a page lock while waiting
//      for a seek or an ioctl.
//   3. Ioctls come in with no lock held. Their pool may wait for an inode lock (close and
//      utimensat on our own view take it). Its holder is waiting for a receiving thread or for a
//      seek; seeks have a pool to themselves, so by 2 it ends.
//   4. Our own view of the mount is used only while the request's descriptor keeps mount and inode
//      alive, and is closed before the reply.
//   5. At shutdown the executors finish first, while receiving threads still serve.
#include "coherence.hpp"

#include <array>
#include <vector>

#include "base/log.hpp"
#include "fuse_lowlevel.hpp"

namespace odx::daemon {

namespace {

// What the kernel answers when it has nothing cached of the inode, or is going down.
bool unheard(int error) { return error == 0 || error == -ENOENT || error == -ENODEV; }

}  // namespace

void Coherence::drop_pages(InodeNo ino, FileOffset at, std::uint64_t bytes) {
  const int error = ::fuse_lowlevel_notify_inval_inode(
      session_, ino.value(), static_cast<off_t>(at.value()), static_cast<off_t>(bytes));
  if (!unheard(error)) {
    log::error("the kernel refuses to drop pages of inode {}: error {}", ino.value(), -error);
  }
}

Result<void> Coherence::write_back(InodeNo ino, Caller caller) {
  if (may_be_dirty(ino) && !(caller == Caller::kIoctl && view_->write_back(ino))) {
    const Hurry::Watch watch(hurry_);
    drop_pages(ino, FileOffset(0), 0);
  }
  if (const int error = inodes_.take_write_back_error(ino); error != 0) {
    return fail(error, "writing back");
  }
  return {};
}

void Coherence::write_back_all() {
  const std::vector<InodeNo> dirty = inodes_.all_maybe_dirty();
  if (dirty.empty()) {
    return;
  }
  view_->begin_write_back_of_all();
  for (const InodeNo ino : dirty) {
    drop_pages(ino, FileOffset(0), 0);
  }
}

void Coherence::attributes_changed(InodeNo ino) {
  // A negative offset: attributes only, which takes no page lock.
  const int error = ::fuse_lowlevel_notify_inval_inode(session_, ino.value(), -1, 0);
  if (!unheard(error)) {
    log::error("the kernel refuses to drop attributes of inode {}: error {}", ino.value(), -error);
  }
}

void Coherence::show_growth(InodeNo ino, std::uint64_t bytes_before) {
  const Result<InodePtr> inode = store_.names().get(ino);
  if (!inode || (*inode)->size() <= bytes_before) {
    return;
  }
  // The kernel believes in no size but its own, unless data is put behind it.
  const FileOffset last((*inode)->size() - 1);
  std::array<std::byte, 1> byte{};
  const Result<std::size_t> read = store_.files().read(ino, last, byte);
  if (!read || *read != byte.size()) {
    return;  // cut again meanwhile
  }
  fuse_bufvec data = FUSE_BUFVEC_INIT(byte.size());
  data.buf[0].mem = byte.data();
  const int error = ::fuse_lowlevel_notify_store(
      session_, ino.value(), static_cast<off_t>(last.value()), &data, FUSE_BUF_NO_SPLICE);
  if (!unheard(error)) {
    log::error("the kernel refuses to grow inode {}: error {}", ino.value(), -error);
  }
}

void Coherence::content_changed(InodeNo ino, FileOffset at, std::uint64_t bytes,
                                std::uint64_t bytes_before) {
  if (kernel_keeps_times_) {
    show_growth(ino, bytes_before);
  }
  drop_pages(ino, at, bytes);
  if (kernel_keeps_times_) {
    view_->touch(ino);
  }
}

}  // namespace odx::daemon
