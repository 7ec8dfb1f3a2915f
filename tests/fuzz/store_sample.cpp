#include "store_sample.hpp"

#include <fcntl.h>
#include <sodium.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <array>

#include "base/aligned_buffer.hpp"
#include "base/fd.hpp"
#include "store/journal/batch_format.hpp"
#include "store/meta/batch.hpp"
#include "store/meta/keys.hpp"
#include "store/meta/lmdb_base.hpp"

namespace odx::fuzz {

namespace {

constexpr std::uint64_t kRing = 1ULL << 20;
constexpr std::uint64_t kMap = 8ULL << 20;

// Random numbers that are the same each time, so that an input means the same in each process.
std::uint64_t random_state = 1;
std::uint32_t next_random() {
  random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
  return static_cast<std::uint32_t>(random_state >> 33U);
}
void fill_random(void* into, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    static_cast<unsigned char*>(into)[i] = static_cast<unsigned char>(next_random());
  }
}

void steady_surroundings() {
  static const bool once = [] {
    static randombytes_implementation steady{};
    steady.implementation_name = [] { return "steady"; };
    steady.random = next_random;
    steady.buf = fill_random;
    FUZZ_EXPECT(randombytes_set_implementation(&steady) == 0 && sodium_init() >= 0);
    spdlog::set_level(spdlog::level::off);
    return true;
  }();
  (void)once;
}

std::string pattern(std::size_t bytes, unsigned seed) {
  std::string out(bytes, '\0');
  for (char& c : out) {
    seed = seed * 1664525U + 1013904223U;
    c = static_cast<char>(1 + (seed >> 24U) % 255);
  }
  return out;
}

void write(Store& store, InodeNo ino, std::uint64_t at, const std::string& bytes) {
  must(store.files().write(ino, FileOffset(at), std::as_bytes(std::span(bytes))));
}

void make_token(Store& store, InodeNo ino, std::uint64_t length) {
  odx_offload call{};
  call.body.read_in.size = sizeof(odx_read_input);
  call.body.read_in.copy_length = length;
  const OffloadCaller caller{.uid = 7, .readable = true, .writable = true};
  FUZZ_EXPECT(store.tokens().offload_read(ino, caller, call) == 0);
}

}  // namespace

StoreSample::StoreSample(Content content) {
  steady_surroundings();
  random_state = 1;
  FormatOptions format;
  format.limit_bytes = 16ULL << 20;
  format.journal_bytes = kRing;
  const std::string dir = folder_.file("store");
  must(Store::format(dir, format));
  device_ = std::make_unique<FaultDevice>();
  {
    const auto store = must(open(device_->handle(), clock_, false));
    uuid_ = store->core().super.uuid;
    fill(*store, content);
    must(store->close());
  }
  must(device_->sync());

  MetaOptions options;
  options.map_bytes = kMap;
  options.read_only = true;
  {
    const auto meta = must(MetaStore::open(
        dir, uuid_, options, [] { return Result<void>(); }, [](TxnSeq) {}));
    for (KeyValue& record : must(meta->scan("\x01", "\xff", SIZE_MAX))) {
      records_.emplace(std::move(record.key), std::move(record.value));
    }
  }
  const AppliedRecord applied = must(must(LmdbBase::open(dir + "/meta", kMap, true))->applied());
  next_lsn_ = applied.lsn.value() + 1;
  next_lap_ = applied.next.lap;
  next_offset_ = applied.next.offset;
  base_ = read_file(dir + "/meta/data.mdb");
}

void StoreSample::fill(Store& store, Content content) {
  const auto file = [&](const std::string& name) {
    return must(store.names().create(kRootInode, name, {.mode = S_IFREG | 0644}))->ino;
  };
  for (std::size_t i = 0; i < files_.size(); ++i) {
    files_[i] = file("f" + std::to_string(i));
  }
  if (content == Content::kEmptyFiles) {
    return;
  }
  Files& files = store.files();
  const auto punch = [&](InodeNo ino, std::uint64_t at, std::uint64_t bytes) {
    must(files.allocate(ino, Files::AllocateMode::kPunchHole, true, FileOffset(at), bytes));
  };
  // f0: a few extents in the inode; f1: a tree of several leaves; f2: a clone of a part of it, so
  // that blocks are shared; f3: a clone of all, so that the root is.
  write(store, files_[0], 0, pattern(5000, 1));
  write(store, files_[0], 20'000, pattern(3000, 2));
  write(store, files_[1], 0, pattern(64'000, 3));
  for (std::uint64_t at = 200; at < 64'000; at += 400) {
    punch(files_[1], at, 100);
  }
  must(files.copy_range(files_[1], FileOffset(10'000), files_[2], FileOffset(100), 30'000));
  must(files.copy_range(files_[1], FileOffset(0), files_[3], FileOffset(0), 64'000));
  make_token(store, files_[1], 32'768);
  make_token(store, files_[0], 4096);

  const InodeNo dir = must(store.names().create(kRootInode, "dir", {.mode = S_IFDIR | 0755}))->ino;
  must(store.names().create(dir, "sub", {.mode = S_IFDIR | 0700}));
  NewInode link;
  link.mode = S_IFLNK | 0777;
  link.symlink_target = "../f0";
  must(store.names().create(dir, "link", link));
  must(store.names().link(files_[0], dir, "second"));
  must(store.names().set_xattr(files_[0], "user.a", "value", Names::XattrMode::kAny));
  must(store.names().set_xattr(dir, "user.b", std::string(300, 'x'), Names::XattrMode::kAny));
  // Removed and still there; and removed, waiting for the reclaimer.
  const InodeNo orphan = file("orphan");
  write(store, orphan, 0, pattern(1000, 4));
  must(store.names().unlink(kRootInode, "orphan"));
  const InodeNo gone = file("gone");
  write(store, gone, 0, pattern(16'000, 5));
  for (std::uint64_t at = 100; at < 16'000; at += 200) {
    punch(gone, at, 50);
  }
  must(store.names().unlink(kRootInode, "gone"));
  must(store.names().reap(gone));
}

void StoreSample::restore(const WriteSet& changes) const {
  const std::string dir = folder_.file("store");
  std::filesystem::remove(dir + "/meta/lock.mdb");
  std::filesystem::remove(dir + "/meta/data.mdb");
  write_file(dir + "/meta/data.mdb", base_);
  const Fd journal(::open((dir + "/journal").c_str(), O_RDWR | O_CLOEXEC));
  FUZZ_EXPECT(journal.valid() && ::ftruncate(journal.get(), 0) == 0 &&
              ::ftruncate(journal.get(), kRing) == 0);
  if (changes.empty()) {
    return;
  }
  auto memtable = std::make_shared<Memtable>();
  OpenBatch batch;
  for (const auto& [key, value] : changes) {
    batch.reserve(1);
    batch.add(memtable->put(Memtable::make_change(
        std::string(key), value ? std::make_shared<const std::string>(*value) : nullptr)));
  }
  std::string payload;
  batch.seal(memtable).encode(payload);
  const std::uint64_t bytes = ring::batch_bytes(payload.size());
  FUZZ_EXPECT(next_offset_ + bytes <= kRing && payload.size() <= kRing / 4);
  AlignedBuffer image(bytes);
  ring::encode(uuid_, Lsn(next_lsn_), next_lap_, payload, image.span().first(bytes));
  FUZZ_EXPECT(::pwrite(journal.get(), image.data(), bytes, static_cast<off_t>(next_offset_)) ==
              static_cast<ssize_t>(bytes));
}

Result<std::unique_ptr<Store>> StoreSample::open(std::unique_ptr<BlockDevice> device,
                                                 const Clock& clock, bool read_only) const {
  OpenOptions options;
  options.read_only = read_only;
  options.meta.flush_interval = std::chrono::milliseconds(0);
  options.meta.map_bytes = kMap;
  options.clock = &clock;
  options.test_device = std::move(device);
  options.background = false;
  return Store::open(folder_.file("store"), std::move(options));
}

namespace {

std::string small_number(Input& in) {
  std::string out;
  put_be(out, in.below(4) == 3 ? in.number() : std::uint64_t{in.byte()} % 32);
  return out;
}

// A key of a table that there is, or of none.
std::string any_key(Input& in) {
  static constexpr std::string_view kTables = "BCDGINPRSTXYZ";
  const std::size_t table = in.below(kTables.size() + 1);
  if (table == kTables.size()) {
    return std::string(in.take(in.below(32)));
  }
  std::string key(1, kTables[table]);
  switch (key[0]) {
    case 'S': {
      static constexpr std::array kNames{"inode", "node", "clean", "other"};
      return key + kNames[in.below(kNames.size())];
    }
    case 'T':
      return key.append(in.take(16));
    case 'D':
    case 'X':
    case 'Y':
      key += small_number(in);
      return key.append(in.take(in.below(20)));
    default:
      return key + small_number(in);
  }
}

}  // namespace

WriteSet changes_from(Input& in, const Records& sample) {
  WriteSet changes;
  const auto some_record = [&] {
    return std::next(sample.begin(), static_cast<std::ptrdiff_t>(in.below(sample.size())));
  };
  for (std::size_t left = in.below(9); left > 0; --left) {
    switch (in.below(5)) {
      case 0:
        changes[some_record()->first] = std::nullopt;
        break;
      case 1:
      case 2: {  // this record with other bytes
        const auto record = some_record();
        std::string value = record->second;
        for (std::size_t more = 1 + in.below(3); more > 0; --more) {
          in.damage(value);
        }
        changes[record->first] = std::move(value);
        break;
      }
      case 3: {  // this value where another belongs
        const auto record = some_record();
        std::string key = some_record()->first;
        if (in.below(2) == 1) {
          key = any_key(in);
        }
        changes[std::move(key)] = record->second;
        break;
      }
      default: {
        std::string key = any_key(in);
        changes[std::move(key)] = std::string(in.take(in.byte()));
        break;
      }
    }
  }
  // What the metadata store never takes.
  std::erase_if(changes, [](const auto& change) {
    return change.first.empty() || change.first.front() == '\0';
  });
  return changes;
}

}  // namespace odx::fuzz
