// OPENDIR, READDIR, READDIRPLUS, FSYNCDIR.
//
// Listing needs no state between requests, as the store's cookies are stable; so directories are
// not opened at all where the kernel can do without. Cookies from 128 on are the store's; 1 and 2
// are those behind "." and "..".
#include <cstring>
#include <string>

#include "attributes.hpp"
#include "operations.hpp"

namespace odx::daemon {

namespace {

constexpr std::uint64_t kBehindDot = 1;
constexpr std::uint64_t kBehindDotDot = 2;
constexpr std::size_t kEntriesPerStep = 64;

// Entries as the kernel wants them, up to a number of bytes.
class Listing {
 public:
  Listing(std::size_t capacity, bool with_attributes)
      : capacity_(capacity), with_attributes_(with_attributes) {
    bytes_.reserve(capacity);
  }

  // `inode` may be null, and is not used without attributes. False: no room.
  bool add(std::string_view name, InodeNo ino, std::uint32_t mode, std::uint64_t cookie,
           const Inode* inode) {
    const std::size_t head = with_attributes_ ? sizeof(fuse_entry_out) : 0;
    const std::size_t used = head + sizeof(fuse_dirent) + name.size();
    const std::size_t padded = FUSE_REC_ALIGN(used);
    if (bytes_.size() + padded > capacity_) {
      return false;
    }
    if (with_attributes_) {
      const fuse_entry_out entry = inode != nullptr ? to_entry(*inode) : fuse_entry_out{};
      append(&entry, sizeof entry);
    }
    fuse_dirent dirent{};
    dirent.ino = ino.value();
    dirent.off = cookie;
    dirent.namelen = static_cast<std::uint32_t>(name.size());
    dirent.type = (mode & S_IFMT) >> 12;
    append(&dirent, sizeof dirent);
    append(name.data(), name.size());
    bytes_.append(padded - used, '\0');
    return true;
  }

  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  void append(const void* data, std::size_t size) {
    bytes_.append(static_cast<const char*>(data), size);
  }
  const std::size_t capacity_;
  const bool with_attributes_;
  std::string bytes_;
};

void list(fuse_req_t req, InodeNo dir, std::size_t capacity, std::uint64_t cookie,
          bool with_attributes) {
  Filesystem& fs = filesystem_of(req);
  Names& names = fs.store.names();
  std::vector<InodeNo> told;  // the kernel gets a look-up of each with the reply
  const Result<void> done = guarded([&]() -> Result<void> {
    Listing listing(capacity, with_attributes);
    const InodePtr self = ODX_TRY(names.get(dir));
    bool room = true;
    if (cookie < kBehindDot) {
      room = listing.add(".", dir, S_IFDIR, kBehindDot, nullptr);
      cookie = kBehindDot;
    }
    if (room && cookie < kBehindDotDot) {
      room = listing.add("..", self->parent, S_IFDIR, kBehindDotDot, nullptr);
      cookie = kBehindDotDot;
    }
    while (room) {
      const std::vector<DirectoryEntry> entries =
          ODX_TRY(names.list(dir, cookie, kEntriesPerStep));
      for (const DirectoryEntry& entry : entries) {
        // An entry whose inode can't be read is listed all the same, without attributes.
        const Result<InodePtr> inode =
            with_attributes ? names.get(entry.ino) : Result<InodePtr>(nullptr);
        room = listing.add(entry.name, entry.ino, entry.mode, entry.cookie,
                           inode ? inode->get() : nullptr);
        if (!room) {
          break;
        }
        if (with_attributes && inode) {
          told.push_back(entry.ino);
          fs.inodes.add_lookups(entry.ino);
        }
        cookie = entry.cookie;
      }
      if (entries.size() < kEntriesPerStep) {
        break;
      }
    }
    if (::fuse_reply_buf(req, listing.bytes().data(), listing.bytes().size()) == 0) {
      told.clear();
    }
    return {};
  });
  for (const InodeNo ino : told) {
    fs.forget(ino, 1);
  }
  if (!done) {
    ::fuse_reply_err(req, errno_of(done.error(), "readdir", dir));
  }
}

void opendir(fuse_req_t req, fuse_ino_t /*ino*/, fuse_file_info* file) {
  if (!filesystem_of(req).needs_opendir) {
    ::fuse_reply_err(req, ENOSYS);  // the kernel opens directories by itself from now on
    return;
  }
  file->keep_cache = 1;
  file->cache_readdir = 1;
  ::fuse_reply_open(req, file);
}

void readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info* /*file*/) {
  list(req, InodeNo(ino), size, static_cast<std::uint64_t>(offset), false);
}

void readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                 fuse_file_info* /*file*/) {
  list(req, InodeNo(ino), size, static_cast<std::uint64_t>(offset), true);
}

void fsyncdir(fuse_req_t req, fuse_ino_t ino, int /*datasync*/, fuse_file_info* /*file*/) {
  serve(req, "fsyncdir", InodeNo(ino), [&]() -> Result<void> {
    ODX_TRY(filesystem_of(req).store.names().sync());
    ::fuse_reply_err(req, 0);
    return {};
  });
}

}  // namespace

void add_directory_operations(fuse_lowlevel_ops& ops) {
  ops.opendir = opendir;
  ops.readdir = readdir;
  ops.readdirplus = readdirplus;
  ops.fsyncdir = fsyncdir;
}

}  // namespace odx::daemon
