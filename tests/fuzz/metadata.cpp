// A whole store over any records: opened, walked, read, changed and closed. Errors are answers.
#include <vector>

#include "input.hpp"
#include "store/check/check.hpp"
#include "store/meta/keys.hpp"
#include "store_sample.hpp"

namespace odx::fuzz {

namespace {

constexpr std::size_t kBuffer = 16 * 1024;

InodeNo some_inode(Input& in) { return InodeNo(1 + in.below(16)); }

const char* some_name(Input& in) {
  static constexpr std::array kNames{"f0", "f1", "dir", "sub", "link", "second", "new", ".."};
  return kNames[in.below(kNames.size())];
}

void walk(Store& store, InodeNo dir, int depth) {
  const auto entries = store.names().list(dir, 0, 100);
  if (!entries) {
    return;
  }
  for (const DirectoryEntry& entry : *entries) {
    (void)store.names().lookup(dir, entry.name);
    (void)store.names().list_xattrs(entry.ino);
    std::vector<std::byte> into(kBuffer, std::byte{0xEE});
    if (const auto read = store.files().read(entry.ino, FileOffset(0), into)) {
      FUZZ_EXPECT(*read <= into.size());
    }
    if (S_ISDIR(entry.mode) && depth < 4) {
      walk(store, entry.ino, depth + 1);
    }
  }
}

void control(Store& store, Input& in) {
  const OffloadCaller caller{
      .uid = static_cast<std::uint32_t>(in.below(2) * 7), .readable = true, .writable = true};
  odx_offload call{};
  call.body.read_in.size = sizeof(odx_read_input);
  call.body.read_in.file_offset = in.below(128) * 512;
  call.body.read_in.copy_length = in.below(128) * 512;
  if (store.tokens().offload_read(some_inode(in), caller, call) != 0) {
    return;
  }
  const odx_token token = call.body.read_out.token;
  odx_offload again{};
  again.body.write_in.size = sizeof(odx_write_input);
  again.body.write_in.file_offset = in.below(128) * 512;
  again.body.write_in.copy_length = in.below(128) * 512;
  again.body.write_in.transfer_offset = in.below(16) * 512;
  again.body.write_in.token = token;
  (void)store.tokens().offload_write(some_inode(in), caller, again);
}

void change_names(Store& store, Input& in) {
  Names& names = store.names();
  const InodeNo ino = some_inode(in);
  const char* name = some_name(in);
  switch (in.below(8)) {
    case 0:
      (void)names.create(ino, name, {.mode = S_IFREG | 0600});
      break;
    case 1:
      if (const auto gone = names.unlink(ino, name)) {
        (void)names.reap((*gone)->ino);
      }
      break;
    case 2:
      (void)names.rmdir(ino, name);
      break;
    case 3: {
      const InodeNo to = some_inode(in);
      const char* new_name = some_name(in);
      (void)names.rename(ino, name, to, new_name, static_cast<RenameMode>(in.below(3)));
      break;
    }
    case 4:
      (void)names.link(ino, some_inode(in), name);
      break;
    case 5:
      (void)names.set_xattr(ino, "user.a", "new", Names::XattrMode::kAny);
      break;
    case 6:
      (void)names.remove_xattr(ino, "user.b");
      break;
    default:
      (void)names.reap(ino);
      break;
  }
}

void change_data(Store& store, Input& in) {
  Files& files = store.files();
  const InodeNo ino = some_inode(in);
  const FileOffset at(in.number());
  const std::uint64_t bytes = in.number();
  switch (in.below(8)) {
    case 0: {
      std::vector<std::byte> into(kBuffer);
      (void)files.read(ino, at, into);
      break;
    }
    case 1: {
      const std::vector<std::byte> from(1 + bytes % kBuffer, std::byte{0x5A});
      (void)files.write(ino, at, from);
      break;
    }
    case 2:
      (void)files.truncate(ino, bytes);
      break;
    case 3:
      (void)files.allocate(ino, static_cast<Files::AllocateMode>(in.below(5)), in.below(2) == 1, at,
                           bytes);
      break;
    case 4:
      (void)files.seek_data(ino, at);
      (void)files.seek_hole(ino, at);
      break;
    case 5:
    case 6:
      (void)files.copy_range(ino, at, some_inode(in), FileOffset(in.number()), bytes);
      break;
    default:
      control(store, in);
      break;
  }
}

void run(Input in) {
  static const StoreSample sample(StoreSample::Content::kEverything);
  const std::uint8_t flags = in.byte();
  const WriteSet changes = changes_from(in, sample.records());
  sample.restore(changes);
  ManualClock clock(StoreSample::kNow);
  const auto device = sample.device();
  auto opened = sample.open(device->handle(), clock, (flags & 1U) != 0);
  FUZZ_EXPECT(opened || !changes.empty());
  if (!opened) {
    return;
  }
  Store& store = **opened;
  if ((flags & 2U) != 0) {
    walk(store, kRootInode, 0);
  }
  (void)store.tokens().list(TokenId{}, 16, 0);
  for (std::size_t left = 16; left > 0 && !in.empty(); --left) {
    switch (in.below(8)) {
      case 0:
      case 1:
        change_names(store, in);
        break;
      case 2:
      case 3:
      case 4:
        change_data(store, in);
        break;
      case 5:
        clock.advance_ns(static_cast<std::int64_t>(in.byte()) * kNsPerSecond);
        (void)store.tokens().expire();
        break;
      case 6:
        (void)store.reclaim();
        break;
      default:
        (void)store.names().sync();
        store.core().settle_space();
        break;
    }
  }
  if ((flags & 4U) != 0) {
    return;  // as a crash leaves it
  }
  const Result<void> closed = store.close();
  FUZZ_EXPECT(closed || !changes.empty());
  if (changes.empty()) {
    opened->reset();
    const auto again = must(sample.open(device->handle(), clock, true));
    const CheckReport report = must(check_state(
        {*again->core().meta, sample.uuid(), device->blocks(), device.get()}, {.data = true}));
    for (const std::string& problem : report.problems) {
      std::fprintf(stderr, "check: %s\n", problem.c_str());
    }
    FUZZ_EXPECT(report.clean());
  }
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
