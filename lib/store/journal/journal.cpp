// The ring journal.
//
// The ring is an endless line of batches rolled up over a file of fixed size. A place on that line
// is lap * ring + offset; a batch never crosses the end of the ring but begins the next lap
// instead. What the caller still needs is [released, next), at most one ring long, so a batch that
// fits there overwrites nothing that is needed.
//
// How replay knows a batch. It walks from the caller's start and accepts at a place only the batch
// with exactly the expected lsn and that place's lap, whose header and payload agree with checksums
// salted by the store, lap and lsn. Bytes of older laps, of other stores and of other batches fail
// that, whatever they are. If the place does not hold the expected batch it may have been too long
// for the rest of the lap, so offset 0 of the next lap is tried too. Both places cannot hold an
// intact batch of the same lsn: an lsn is written again only after a replay that found neither.
//
// How replay ends. Suppose batch N is in neither place. Appends are strictly serial: the write of
// N+1 begins only when N is durable, and after a failed write nothing is written at all. Hence any
// header with an lsn above N, intact by its own salted checksum, wherever it stands in the ring and
// whether or not its payload is complete, proves that N was durable and acknowledged, and is now
// unreadable: damage. There is no innocent explanation:
// - older laps, and what torn appends of earlier lives left behind, carry an lsn of at most N (a
//   torn N is followed by another N, never by N+1);
// - payload cannot look like a header, because each block of a batch begins with a mark of ours;
// - an older start than the newest one (a base that lost its last checkpoint) is damage indeed.
// The whole ring is searched, not only what could be live, for the sake of that last case. A place
// that the host cannot read at all is damage as well: what it held may have been acknowledged.
// Without such a header, N is the tail. If some block says it belongs to N the append was torn,
// else it never began; either way it was not acknowledged, and N is the next batch to write. A
// last batch that was acknowledged and then rotted looks like a torn one; no journal without a
// second place for its tail can tell these apart.
//
// A batch that replay found may have been written by a process that died before it was durable, so
// replay ends with one sync: what it hands out is never taken back.
#include "store/journal/journal.hpp"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "base/aligned_buffer.hpp"
#include "store/journal/batch_format.hpp"
#include "store/journal/ring_file.hpp"

namespace odx {

namespace {

constexpr std::uint64_t kMinRingBytes = 1ULL << 20;

class RingJournal final : public Journal {
 public:
  RingJournal(RingFile file, const Uuid& store, bool read_only)
      : file_(std::move(file)), store_(store), read_only_(read_only) {}

  Result<JournalEnd> replay(
      JournalPosition start, Lsn first, bool closed,
      const std::function<Result<void>(Lsn, std::string_view)>& batch) override;
  Result<void> give_up_tail() override;
  Result<Lsn> append(std::string_view payload) override;
  [[nodiscard]] bool has_room(std::uint64_t payload_bytes) const override;

  [[nodiscard]] JournalPosition next_position() const override {
    const std::uint64_t place = next_.load(std::memory_order_acquire);
    return {place / ring_bytes(), place % ring_bytes()};
  }
  [[nodiscard]] Lsn next_lsn() const override { return next_lsn_; }

  void release(JournalPosition position) override {
    const std::uint64_t place = place_of(position);
    ODX_CHECK(place >= released_.load() && place <= next_.load());
    released_.store(place);
  }

  [[nodiscard]] std::uint64_t used_bytes() const override {
    // The released place is read first: it only grows, and never past the next one.
    const std::uint64_t released = released_.load();
    return next_.load() - released;
  }
  [[nodiscard]] std::uint64_t ring_bytes() const override { return file_.bytes(); }
  [[nodiscard]] std::uint64_t max_payload_bytes() const override { return ring_bytes() / 4; }

 private:
  enum class State : std::uint8_t { kOpened, kReady, kFailed };
  enum class Found : std::uint8_t { kIntact, kNothing, kUnreadable };

  [[nodiscard]] std::uint64_t place_of(JournalPosition p) const {
    return p.lap * ring_bytes() + p.offset;
  }
  // Where a batch of `bytes` goes if the next one starts at `place`.
  [[nodiscard]] std::uint64_t fit(std::uint64_t place, std::uint64_t bytes) const {
    return place % ring_bytes() + bytes <= ring_bytes() ? place : round_up(place, ring_bytes());
  }
  // Reads batch `lsn` at `place`; `end` is where it ends.
  Found read_batch(RingReader& reader, std::uint64_t place, Lsn lsn, std::string& payload,
                   std::uint64_t& end) const;
  // What the ring says about the end of the chain, batch `missing` being in neither place.
  JournalEnd judge_end(RingReader& reader, Lsn missing) const;

  const RingFile file_;
  const Uuid store_;
  const bool read_only_;
  State state_ = State::kOpened;
  AlignedBuffer buffer_;
  Lsn next_lsn_{1};
  std::atomic<std::uint64_t> next_{0};  // places on the endless line
  std::atomic<std::uint64_t> released_{0};
};

RingJournal::Found RingJournal::read_batch(RingReader& reader, std::uint64_t place, Lsn lsn,
                                           std::string& payload, std::uint64_t& end) const {
  const std::uint64_t offset = place % ring_bytes();
  const auto block = reader.view(offset, kBlockBytes);
  if (!block) {
    return Found::kUnreadable;
  }
  const std::optional<ring::Header> header = ring::decode_header(store_, *block);
  if (!header || header->lsn != lsn || header->lap != place / ring_bytes() ||
      header->payload_bytes > max_payload_bytes()) {
    return Found::kNothing;
  }
  const std::uint64_t bytes = ring::batch_bytes(header->payload_bytes);
  if (offset + bytes > ring_bytes()) {
    return Found::kNothing;
  }
  const auto batch = reader.view(offset, bytes);
  if (!batch) {
    return Found::kUnreadable;
  }
  end = place + bytes;
  return ring::decode_payload(store_, *header, *batch, payload) ? Found::kIntact : Found::kNothing;
}

JournalEnd RingJournal::judge_end(RingReader& reader, Lsn missing) const {
  bool torn = false;
  for (std::uint64_t offset = 0; offset < ring_bytes(); offset += kBlockBytes) {
    const auto block = reader.view(offset, kBlockBytes);
    if (!block) {
      continue;
    }
    const std::optional<ring::Header> header = ring::decode_header(store_, *block);
    if (header && header->lsn > missing) {
      return JournalEnd::kDamaged;
    }
    torn = torn || (header && header->lsn == missing) || ring::continues(*block, missing);
  }
  return torn ? JournalEnd::kTornTail : JournalEnd::kClean;
}

Result<JournalEnd> RingJournal::replay(
    JournalPosition start, Lsn first, bool closed,
    const std::function<Result<void>(Lsn, std::string_view)>& batch) {
  ODX_CHECK(state_ == State::kOpened);
  // No ring comes to the last of these numbers; sums of them must not wrap.
  constexpr std::uint64_t kMostBatches = UINT64_MAX / 2;
  if (start.lap == 0 || start.lap > UINT64_MAX / 2 / ring_bytes() || start.offset >= ring_bytes() ||
      start.offset % kBlockBytes != 0 || first.value() == 0 || first.value() > kMostBatches) {
    return corrupt("the journal cannot start at offset " + std::to_string(start.offset) +
                   " of lap " + std::to_string(start.lap));
  }
  RingReader reader(file_);
  const std::uint64_t limit = place_of(start) + ring_bytes();
  std::uint64_t place = place_of(start);
  Lsn lsn = first;
  std::string payload;
  JournalEnd end = JournalEnd::kClean;
  for (;;) {
    std::uint64_t after = 0;
    Found found = Found::kNothing;
    for (const std::uint64_t at : {place, round_up(place + 1, ring_bytes())}) {
      if (at < limit && found != Found::kIntact) {
        const Found here = read_batch(reader, at, lsn, payload, after);
        found = here == Found::kNothing ? found : here;
      }
    }
    if (found != Found::kIntact) {
      if (found == Found::kUnreadable) {
        end = JournalEnd::kDamaged;
      } else if (!closed || lsn != first) {
        end = judge_end(reader, lsn);
      }
      break;
    }
    ODX_TRY(batch(lsn, payload));
    place = after;
    lsn += 1;
  }
  if (!read_only_ && end != JournalEnd::kDamaged) {
    ODX_TRY(file_.sync());
    state_ = State::kReady;
  }
  next_lsn_ = lsn;
  released_ = place_of(start);
  next_ = place;
  return end;
}

Result<void> RingJournal::give_up_tail() {
  ODX_CHECK(state_ == State::kOpened && !read_only_);
  RingReader reader(file_);
  Lsn highest = next_lsn_;
  std::uint64_t lap = next_position().lap;
  for (std::uint64_t offset = 0; offset < ring_bytes(); offset += kBlockBytes) {
    const auto block = reader.view(offset, kBlockBytes);
    if (const auto header = block ? ring::decode_header(store_, *block) : std::nullopt) {
      highest = std::max(highest, header->lsn);
      lap = std::max(lap, header->lap);
    }
  }
  constexpr std::uint64_t kMost = UINT64_MAX / 4;
  if (highest.value() > kMost || lap > kMost / ring_bytes()) {
    return corrupt("the journal's numbers are impossible");
  }
  // Batches that cannot be read may be newer than any that can: at most one for each block.
  next_lsn_ = highest + ring_bytes() / kBlockBytes;
  next_ = (lap + 2) * ring_bytes();
  released_ = next_.load();
  ODX_TRY(file_.sync());
  state_ = State::kReady;
  return {};
}

bool RingJournal::has_room(std::uint64_t payload_bytes) const {
  if (payload_bytes > max_payload_bytes()) {
    return false;
  }
  const std::uint64_t bytes = ring::batch_bytes(payload_bytes);
  return fit(next_.load(), bytes) + bytes - released_.load() <= ring_bytes();
}

Result<Lsn> RingJournal::append(std::string_view payload) {
  if (state_ != State::kReady) {
    return fail(read_only_ ? EROFS : EIO, "the journal takes no more batches");
  }
  if (payload.size() > max_payload_bytes()) {
    return fail(EMSGSIZE, "batch too large for the journal");
  }
  if (!has_room(payload.size())) {
    return fail(ENOSPC, "journal full");
  }
  const std::uint64_t bytes = ring::batch_bytes(payload.size());
  const std::uint64_t place = fit(next_.load(), bytes);
  buffer_.ensure(bytes);
  const std::span<std::byte> image = buffer_.span().first(bytes);
  ring::encode(store_, next_lsn_, place / ring_bytes(), payload, image);
  if (auto written = file_.write(place % ring_bytes(), image); !written) {
    // Nobody knows what the ring holds now; only a replay can find out.
    state_ = State::kFailed;
    return std::unexpected(std::move(written).error());
  }
  const Lsn lsn = next_lsn_;
  next_lsn_ += 1;
  next_ = place + bytes;
  return lsn;
}

}  // namespace

Result<void> Journal::format(const std::string& path, std::uint64_t ring_bytes) {
  if (ring_bytes < kMinRingBytes || ring_bytes % kBlockBytes != 0) {
    return fail(EINVAL, "journal size must be a multiple of 4096 of at least 1 MiB");
  }
  return RingFile::create(path, ring_bytes);
}

Result<std::unique_ptr<Journal>> Journal::open(const std::string& path, const Uuid& store_uuid,
                                               bool read_only) {
  RingFile file = ODX_TRY(RingFile::open(path, read_only));
  if (file.bytes() < kMinRingBytes || file.bytes() % kBlockBytes != 0) {
    return corrupt("journal has the impossible size " + std::to_string(file.bytes()));
  }
  return std::make_unique<RingJournal>(std::move(file), store_uuid, read_only);
}

}  // namespace odx
