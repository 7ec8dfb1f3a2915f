#include "base_stores.hpp"

#include <sodium.h>

#include <cstring>
#include <memory>

#include "must_or_die.hpp"
#include "odx/offload.h"
#include "store/store.hpp"

namespace odx::images {

namespace {

constexpr std::int64_t kMoment = 1'700'000'000 * kNsPerSecond;

// Random bytes that are the same in each run: uuids and secrets decide where records lie.
std::uint64_t random_state = 1;
std::uint32_t same_random() {
  random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
  return static_cast<std::uint32_t>(random_state >> 32);
}
void same_bytes(void* into, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    static_cast<unsigned char*>(into)[i] = static_cast<unsigned char>(same_random());
  }
}
const char* same_name() { return "the same numbers each time"; }

class Maker {
 public:
  Maker(Store& store, ManualClock& clock) : store_(store), clock_(clock) {}

  InodeNo make(InodeNo dir, const std::string& name, std::uint32_t mode,
               const std::string& target = {}) {
    clock_.advance_ns(1);
    NewInode what;
    what.mode = mode;
    what.symlink_target = target;
    return must(store_.names().create(dir, name, what))->ino;
  }
  void write(InodeNo ino, std::uint64_t at, std::size_t bytes) {
    std::vector<std::byte> data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
      data[i] = static_cast<std::byte>(at / 512 + ino.value() * 31 + i * 7 + 1);
    }
    must(store_.files().write(ino, FileOffset(at), data));
  }
  // Pieces with holes between them.
  void fragment(InodeNo ino, std::uint64_t pieces) {
    for (std::uint64_t i = 0; i < pieces; ++i) {
      write(ino, i * 8192, 4096);
    }
  }
  void copy(InodeNo from, InodeNo to) {
    must(store_.files().copy_range(from, FileOffset(0), to, FileOffset(0), UINT32_MAX));
  }
  void take_token(InodeNo ino, std::uint64_t bytes) {
    odx_offload call{};
    call.body.read_in.size = sizeof(odx_read_input);
    call.body.read_in.token_time_to_live = 600000;
    call.body.read_in.copy_length = bytes;
    OffloadCaller caller;
    caller.readable = true;
    if (store_.tokens().offload_read(ino, caller, call) != 0) {
      die("no token");
    }
  }

  void first_half() {
    const InodeNo dir = make(kRootInode, "dir", S_IFDIR | 0755);
    const InodeNo inner = make(dir, "inner", S_IFDIR | 0755);
    const InodeNo other = make(kRootInode, "other", S_IFDIR | 0755);
    const InodeNo small = make(dir, "small", S_IFREG | 0644);
    write(small, 0, 10000);
    must(store_.names().link(small, other, "hard link"));
    must(store_.names().set_xattr(small, "user.one", "1", Names::XattrMode::kAny));
    make(inner, "link", S_IFLNK | 0777, "../small");
    const InodeNo big = make(kRootInode, "big", S_IFREG | 0644);
    fragment(big, 300);
    const InodeNo clone = make(kRootInode, "clone", S_IFREG | 0644);
    copy(big, clone);
    write(clone, 50000, 5000);
    const InodeNo alone = make(kRootInode, "alone", S_IFREG | 0600);
    fragment(alone, 20);
    take_token(big, 1 << 20);
  }
  void second_half() {
    Names& names = store_.names();
    const InodeNo gone = make(kRootInode, "gone", S_IFREG | 0600);
    fragment(gone, 20);
    must(names.unlink(kRootInode, "gone"));
    const InodeNo dropped = make(kRootInode, "dropped", S_IFREG | 0600);
    fragment(dropped, 100);
    must(names.unlink(kRootInode, "dropped"));
    must(names.reap(dropped));
    must(names.sync());
    for (int i = 0; i < 5; ++i) {
      make(kRootInode, "late " + std::to_string(i), S_IFREG | 0600);
      must(names.sync());  // a batch of the journal
    }
  }

 private:
  Store& store_;
  ManualClock& clock_;
};

OpenOptions options_for(const Clock& clock) {
  OpenOptions options;
  options.background = false;
  options.clock = &clock;
  options.meta.flush_interval = std::chrono::milliseconds(0);
  return options;
}

// Whatever the store says about it: EIO is an answer, too.
void look_at(Store& store, InodeNo dir, int depth) {
  constexpr int kDeepest = 20;  // damage may put a directory below itself
  const auto entries = store.names().list(dir, 0, 1000);
  if (!entries || depth > kDeepest) {
    return;
  }
  for (const DirectoryEntry& entry : *entries) {
    const auto inode = store.names().lookup(dir, entry.name);
    (void)store.names().list_xattrs(entry.ino);
    (void)store.names().xattr(entry.ino, "user.one");
    if (!inode) {
      continue;
    }
    if ((*inode)->is_directory()) {
      look_at(store, entry.ino, depth + 1);
    } else if ((*inode)->is_regular()) {
      std::vector<std::byte> room(1 << 16);
      const std::uint64_t size = std::min<std::uint64_t>((*inode)->size(), 4 << 20);
      for (std::uint64_t at = 0; at < size; at += room.size()) {
        (void)store.files().read(entry.ino, FileOffset(at), room);
      }
      (void)store.files().seek_hole(entry.ino, FileOffset(0));
    }
  }
}

}  // namespace

void make_base(Base base, const std::string& dir) {
  static randombytes_implementation same{&same_name, &same_random, nullptr,
                                         nullptr,    &same_bytes,  nullptr};
  randombytes_set_implementation(&same);
  random_state = 1;
  ManualClock clock(kMoment);
  FormatOptions format;
  format.limit_bytes = 16ULL << 20;
  format.journal_bytes = 1ULL << 20;
  format.label = "image";
  must(Store::format(dir, format));
  auto store = must(Store::open(dir, options_for(clock)));
  Maker maker(*store, clock);
  maker.first_half();
  if (base == Base::kCrashed) {
    must(store->close());
    store.reset();  // a process opens a store once at a time
    store = must(Store::open(dir, options_for(clock)));
    Maker(*store, clock).second_half();
    store.reset();  // as after kill -9
    return;
  }
  maker.second_half();
  must(store->close());
}

std::string use(const std::string& dir) {
  ManualClock clock(kMoment + kNsPerSecond);
  auto opened = Store::open(dir, options_for(clock));
  if (!opened) {
    return opened.error().message();
  }
  Store& store = **opened;
  look_at(store, kRootInode, 0);
  (void)store.tokens().list(TokenId{}, 100, 0);
  (void)store.reclaim();
  NewInode what;
  what.mode = S_IFREG | 0600;
  const auto made = store.names().create(kRootInode, "a new file", what);
  const bool writable = made || made.error().errno_value() != EROFS;
  if (made) {
    (void)store.files().write((*made)->ino, FileOffset(0), std::vector<std::byte>(9000));
    (void)store.names().sync();
    (void)store.names().unlink(kRootInode, "a new file");
    (void)store.names().reap((*made)->ino);
  }
  (void)store.close();
  return writable ? "rw" : "ro";
}

}  // namespace odx::images
