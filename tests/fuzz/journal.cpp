// The ring journal: batches appended by the journal itself, others put where the input says, and
// bytes changed at will, their checksums mended or not; then replay, append, and replay again.
#include "store/journal/journal.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <set>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "base/fd.hpp"
#include "folder.hpp"
#include "input.hpp"
#include "store/journal/batch_format.hpp"
#include "store/meta/batch.hpp"

namespace odx::fuzz {

namespace {

constexpr std::uint64_t kRing = 1ULL << 20;
constexpr std::uint64_t kRingBlocks = kRing / kBlockBytes;
constexpr Uuid kStore{7, 7, 7};
constexpr std::size_t kHeaderCrcAt = 44;

// The ring as a file whose used blocks become zeros again at the end.
class Ring {
 public:
  Ring() : path_(folder_.file("journal")) {
    must(Journal::format(path_, kRing));
    fd_.reset(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    FUZZ_EXPECT(fd_.valid());
  }
  [[nodiscard]] const std::string& path() const { return path_; }

  std::string read(std::uint64_t block) {
    std::string bytes(kBlockBytes, '\0');
    // Zeros where the file has been cut.
    FUZZ_EXPECT(::pread(fd_.get(), bytes.data(), bytes.size(), at(block)) >= 0);
    return bytes;
  }
  void write(std::uint64_t block, std::string_view bytes) {
    FUZZ_EXPECT(::pwrite(fd_.get(), bytes.data(), bytes.size(), at(block)) ==
                static_cast<ssize_t>(bytes.size()));
  }
  void clear() {
    FUZZ_EXPECT(::ftruncate(fd_.get(), 0) == 0);
    FUZZ_EXPECT(::ftruncate(fd_.get(), kRing) == 0);
  }
  void cut(std::uint64_t bytes) {
    FUZZ_EXPECT(::ftruncate(fd_.get(), static_cast<off_t>(bytes)) == 0);
  }

 private:
  static off_t at(std::uint64_t block) { return static_cast<off_t>(block * kBlockBytes); }
  Folder folder_;
  std::string path_;
  Fd fd_;
};

struct Batch {
  Lsn lsn;
  std::string payload;
  friend bool operator==(const Batch&, const Batch&) = default;
};

struct Replayed {
  std::unique_ptr<Journal> journal;
  Result<JournalEnd> end;
  std::vector<Batch> batches;
};

Replayed replay(const Ring& ring, JournalPosition start, Lsn first, bool closed, bool read_only) {
  auto opened = Journal::open(ring.path(), kStore, read_only);
  if (!opened) {
    return {nullptr, std::unexpected(opened.error()), {}};
  }
  Replayed replayed{std::move(*opened), JournalEnd::kClean, {}};
  replayed.end = replayed.journal->replay(
      start, first, closed, [&](Lsn lsn, std::string_view payload) -> Result<void> {
        replayed.batches.push_back({lsn, std::string(payload)});
        // What is inside need not make sense.
        (void)decode_batch(payload, [](const std::string&, const SharedValue&) {});
        return {};
      });
  return replayed;
}

std::string text(std::size_t bytes, unsigned seed) {
  std::string out(bytes, '\0');
  for (char& c : out) {
    seed = seed * 1664525U + 1013904223U;
    c = static_cast<char>(seed >> 24U);
  }
  return out;
}

// Makes the header in this block one that its checksum agrees with.
void seal_header(std::string& block) {
  const std::string_view header = std::string_view(block).substr(0, kHeaderCrcAt);
  std::string crc;
  put_le(crc, crc32c(header, crc32c(kStore.data(), kStore.size())));
  block.replace(kHeaderCrcAt, crc.size(), crc);
}

void put_batch(Ring& ring, std::uint64_t block, Lsn lsn, std::uint64_t lap,
               std::string_view payload) {
  const std::uint64_t bytes = ring::batch_bytes(payload.size());
  if (block * kBlockBytes + bytes > kRing) {
    return;
  }
  AlignedBuffer image(bytes);
  ring::encode(kStore, lsn, lap, payload, image.span().first(bytes));
  ring.write(block, {reinterpret_cast<const char*>(image.data()), bytes});
}

void run(Input in) {
  static Ring ring;
  ring.clear();

  JournalPosition start{1 + in.below(3), in.below(kRingBlocks) * kBlockBytes};
  Lsn first(1 + in.below(100));
  std::vector<Batch> appended;
  {
    Replayed empty = replay(ring, start, first, true, false);
    FUZZ_EXPECT(must(std::move(empty.end)) == JournalEnd::kClean);
    for (std::size_t left = in.below(6); left > 0; --left) {
      const std::string payload = text(in.below(20'000), in.byte());
      const Lsn lsn = must(empty.journal->append(payload));
      appended.push_back({lsn, payload});
    }
  }

  bool touched = false;
  for (std::size_t left = in.below(8); left > 0; --left) {
    touched = true;
    const std::uint64_t near = (start.offset / kBlockBytes + in.below(32)) % kRingBlocks;
    switch (in.below(4)) {
      case 0: {
        const Lsn lsn = first + in.below(8);
        const std::uint64_t lap = start.lap + in.below(2);
        put_batch(ring, near, lsn, lap, in.take(in.byte()));
        break;
      }
      case 1: {
        std::string block = ring.read(near);
        in.damage(block);
        block.resize(kBlockBytes);
        if (in.below(2) == 1) {
          seal_header(block);
        }
        ring.write(near, block);
        break;
      }
      case 2:
        start = {in.number(), in.number()};
        break;
      default:
        if (in.below(4) == 3) {
          ring.cut(in.number() % (2 * kRing));
        } else {
          first = Lsn(in.number());
        }
        break;
    }
  }
  const bool closed = appended.empty() && !touched && in.below(2) == 1;
  const bool read_only = in.below(2) == 1;
  Replayed replayed = replay(ring, start, first, closed, read_only);
  if (!touched) {
    FUZZ_EXPECT(replayed.end && *replayed.end == JournalEnd::kClean);
    FUZZ_EXPECT(replayed.batches == appended);
  }
  Lsn expected = first;
  for (const Batch& batch : replayed.batches) {
    FUZZ_EXPECT(batch.lsn == expected);
    expected += 1;
  }
  if (!replayed.end) {
    return;
  }
  const Result<Lsn> more = replayed.journal->append("one more");
  if (read_only || *replayed.end == JournalEnd::kDamaged) {
    FUZZ_EXPECT(!more);
    return;
  }
  if (!more) {
    return;
  }
  const JournalPosition next = replayed.journal->next_position();
  replayed.batches.push_back({*more, "one more"});
  const Replayed again = replay(ring, start, first, false, true);
  FUZZ_EXPECT(again.end && *again.end != JournalEnd::kDamaged);
  FUZZ_EXPECT(again.batches == replayed.batches);
  replayed.journal->release(next);
  FUZZ_EXPECT(replayed.journal->used_bytes() == 0);
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
