#include <fcntl.h>
#include <rapidcheck.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <deque>
#include <fstream>
#include <string>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "base/fd.hpp"
#include "store/journal/batch_format.hpp"
#include "store/journal/journal.hpp"
#include "temp_dir.hpp"

using namespace odx;

namespace {

constexpr std::uint64_t kRing = 1ULL << 20;
constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kSector = 512;
const Uuid kStore{7, 1, 2, 3};

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
  REQUIRE(out.flush());
}

// Changes a part in place: rewriting whole files would keep the disk busy for long.
void patch_file(const std::string& path, std::uint64_t offset, std::string_view bytes) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  REQUIRE(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
          static_cast<ssize_t>(bytes.size()));
}

// A payload of no zeros that differs from every other one.
std::string payload_of(std::uint64_t bytes, std::uint64_t number) {
  std::string out = "<" + std::to_string(number) + ">";
  std::uint64_t x = number * 2 + 1;
  while (out.size() < bytes) {
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    out.push_back(static_cast<char>(1 + (x >> 56) % 255));
  }
  out.resize(bytes);
  return out;
}

// The payload that makes a batch of that many blocks, filled to the last byte.
std::uint64_t full_blocks(std::uint64_t blocks) {
  return blocks * kBlock - ring::kHeaderBytes - (blocks - 1) * ring::kContinuationBytes;
}

struct Replayed {
  std::unique_ptr<Journal> journal;
  JournalEnd end = JournalEnd::kClean;
  std::vector<std::string> payloads;
};

Replayed open_at(const std::string& path, JournalPosition start, Lsn first, bool closed = false,
                 const Uuid& store = kStore, bool read_only = false) {
  Replayed out;
  out.journal = Journal::open(path, store, read_only).value();
  Lsn expected = first;
  out.end = out.journal
                ->replay(start, first, closed,
                         [&](Lsn lsn, std::string_view payload) -> Result<void> {
                           CHECK(lsn == expected);
                           expected += 1;
                           out.payloads.emplace_back(payload);
                           return {};
                         })
                .value();
  CHECK(out.journal->next_lsn() == expected);
  return out;
}

struct Fixture {
  test::TempDir dir;
  std::string path = dir.file("journal");
  Fixture() { REQUIRE(Journal::format(path, kRing)); }
};

// A journal with some laps behind it whose live part begins at `start` with `first`.
struct Used : Fixture {
  JournalPosition start;
  Lsn first{1};
  std::vector<std::string> live;

  // Writes batches of the sizes, in blocks, around the ring until at least `laps` are full.
  explicit Used(const std::vector<std::uint64_t>& sizes, std::uint64_t laps) {
    auto journal = open_at(path, {}, Lsn(1)).journal;
    std::uint64_t number = 0;
    while (journal->next_position().lap <= laps) {
      for (const std::uint64_t blocks : sizes) {
        journal->release(journal->next_position());
        REQUIRE(journal->append(payload_of(full_blocks(blocks), ++number)));
      }
    }
    start = journal->next_position();
    first = journal->next_lsn();
    journal->release(start);
  }
  void append(Journal& journal, std::uint64_t bytes) {
    live.push_back(payload_of(bytes, 1'000'000 + live.size()));
    REQUIRE(journal.append(live.back()));
  }
  void fill_to(Journal& journal, std::uint64_t offset) {
    while (journal.next_position().offset != offset) {
      const std::uint64_t left = (offset - journal.next_position().offset) / kBlock;
      append(journal, full_blocks(std::min<std::uint64_t>(left, 60)));
    }
  }
};

}  // namespace

TEST_CASE("a ring is created once, of a sensible size, full of real zeros") {
  const test::TempDir dir;
  const std::string path = dir.file("journal");
  CHECK(Journal::format(path, kRing - kBlock).error().errno_value() == EINVAL);
  CHECK(Journal::format(path, kRing + 1).error().errno_value() == EINVAL);
  REQUIRE(Journal::format(path, kRing));
  CHECK(Journal::format(path, kRing).error().errno_value() == EEXIST);
  CHECK(read_file(path) == std::string(kRing, '\0'));
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 >= kRing);

  CHECK(Journal::open(dir.file("none"), kStore, false).error().errno_value() == ENOENT);
  write_file(dir.file("odd"), std::string(kRing + 5, '\0'));
  CHECK(Journal::open(dir.file("odd"), kStore, false).error().is_corruption());
}

TEST_CASE("payloads of every shape come back") {
  Fixture f;
  std::vector<std::string> written;
  {
    auto journal = open_at(f.path, {}, Lsn(1)).journal;
    CHECK(journal->next_position() == JournalPosition{1, 0});
    CHECK(journal->max_payload_bytes() == kRing / 4);
    std::uint64_t used = 0;
    for (const std::uint64_t bytes :
         {std::uint64_t{0}, std::uint64_t{1}, full_blocks(1) - 1, full_blocks(1),
          full_blocks(1) + 1, full_blocks(2), full_blocks(2) + 1, kRing / 4}) {
      written.push_back(payload_of(bytes, bytes));
      CHECK(journal->append(written.back()).value() == Lsn(written.size()));
      used += ring::batch_bytes(bytes);
      CHECK(journal->used_bytes() == used);
      CHECK(journal->next_position() == JournalPosition{1, used});
    }
    CHECK(ring::batch_bytes(full_blocks(1)) == kBlock);
    CHECK(ring::batch_bytes(full_blocks(1) + 1) == 2 * kBlock);
    CHECK(ring::batch_bytes(full_blocks(3)) == 3 * kBlock);
    const auto refused = journal->append(std::string(kRing / 4 + 1, 'x'));
    CHECK(refused.error().errno_value() == EMSGSIZE);
  }
  const Replayed again = open_at(f.path, {}, Lsn(1));
  CHECK(again.end == JournalEnd::kClean);
  CHECK(again.payloads == written);
  CHECK(again.journal->append("more").value() == Lsn(written.size() + 1));
}

TEST_CASE("an impossible start is corruption, and the callback's error ends the replay") {
  Fixture f;
  open_at(f.path, {}, Lsn(1)).journal->append("one").value();
  const auto replay = [&](JournalPosition start, Lsn first) {
    return Journal::open(f.path, kStore, false)
        .value()
        ->replay(start, first, false,
                 [](Lsn, std::string_view) -> Result<void> { return fail(ENOMEM); });
  };
  CHECK(replay({1, kRing}, Lsn(1)).error().is_corruption());
  CHECK(replay({1, 100}, Lsn(1)).error().is_corruption());
  CHECK(replay({0, 0}, Lsn(1)).error().is_corruption());
  CHECK(replay({1, 0}, Lsn(0)).error().is_corruption());
  CHECK(replay({1, 0}, Lsn(1)).error().errno_value() == ENOMEM);
}

TEST_CASE("a full ring refuses and keeps what it has") {
  Used u({30, 11, 20}, 2);
  Replayed opened = open_at(u.path, u.start, u.first);
  CHECK(opened.end == JournalEnd::kClean);
  Journal& journal = *opened.journal;
  std::vector<JournalPosition> starts;
  for (;;) {
    const std::uint64_t bytes = full_blocks(1 + u.live.size() % 17);
    if (!journal.has_room(bytes)) {
      CHECK(journal.append(std::string(bytes, 'x')).error().errno_value() == ENOSPC);
      break;
    }
    starts.push_back(journal.next_position());
    u.append(journal, bytes);
  }
  while (journal.has_room(1)) {
    starts.push_back(journal.next_position());
    u.append(journal, 1);
  }
  CHECK(journal.append("x").error().errno_value() == ENOSPC);
  CHECK(journal.used_bytes() == kRing);
  const Replayed full = open_at(u.path, u.start, u.first);
  CHECK(full.end == JournalEnd::kClean);
  CHECK(full.payloads == u.live);
  CHECK(full.journal->append("x").error().errno_value() == ENOSPC);

  // Room for exactly the released batch.
  journal.release(starts[1]);
  CHECK(journal.has_room(u.live[0].size()));
  u.append(journal, u.live[0].size());
  CHECK(journal.append("x").error().errno_value() == ENOSPC);
  const Replayed later = open_at(u.path, starts[1], u.first + 1);
  CHECK(later.payloads == std::vector<std::string>(u.live.begin() + 1, u.live.end()));
}

TEST_CASE("batches of one size leave old ones exactly where new ones go") {
  // 32 blocks divide the ring, so every place has an intact batch of the lap before.
  for (const std::uint64_t laps : {1, 2, 5}) {
    Used u({32}, laps);
    const Replayed first = open_at(u.path, u.start, u.first);
    CHECK(first.end == JournalEnd::kClean);
    CHECK(first.payloads.empty());
    u.append(*first.journal, full_blocks(32));
    u.append(*first.journal, full_blocks(32));
    const Replayed again = open_at(u.path, u.start, u.first);
    CHECK(again.end == JournalEnd::kClean);
    CHECK(again.payloads == u.live);
  }
}

TEST_CASE("random appends, releases and reopens equal a queue") {
  REQUIRE(rc::check("replay yields what was appended since the released place", [] {
    Fixture f;
    struct Batch {
      JournalPosition at;
      std::string payload;
    };
    std::deque<Batch> live;
    Lsn first(1);
    JournalPosition released;
    Replayed opened = open_at(f.path, released, first);
    std::uint64_t number = 0;
    const auto steps = *rc::gen::inRange(1, 40);
    for (int step = 0; step < steps; ++step) {
      Journal& journal = *opened.journal;
      const auto kind = *rc::gen::inRange(0, 10);
      if (kind < 7) {
        const auto bytes = *rc::gen::oneOf(rc::gen::inRange<std::uint64_t>(0, 3 * kBlock),
                                           rc::gen::inRange<std::uint64_t>(0, kRing / 4 + 1));
        const bool room = journal.has_room(bytes);
        const std::string payload = payload_of(bytes, ++number);
        const auto appended = journal.append(payload);
        RC_ASSERT(appended.has_value() == room);
        if (room) {
          RC_ASSERT(*appended == first + live.size());
          const JournalPosition end = journal.next_position();
          live.push_back({end, payload});
        } else {
          RC_ASSERT(!live.empty());
        }
      } else if (kind < 9 && !live.empty()) {
        const auto count = *rc::gen::inRange<std::size_t>(1, live.size() + 1);
        for (std::size_t i = 0; i < count; ++i) {
          released = live.front().at;
          live.pop_front();
          first += 1;
        }
        journal.release(released);
      } else {
        opened = open_at(f.path, released, first);
        RC_ASSERT(opened.end == JournalEnd::kClean);
        RC_ASSERT(opened.payloads.size() == live.size());
        for (std::size_t i = 0; i < live.size(); ++i) {
          RC_ASSERT(opened.payloads[i] == live[i].payload);
        }
      }
    }
  }));
}

TEST_CASE("a torn tail is never replayed, wherever it tore") {
  // Over zeros, over old batches, and at the start of the next lap because it did not fit.
  const auto scenario = GENERATE(0, 1, 2);
  const auto blocks = GENERATE(std::uint64_t{1}, std::uint64_t{3});
  CAPTURE(scenario, blocks);
  Used u({45}, scenario == 0 ? 0 : 2);
  {
    const Replayed opened = open_at(u.path, u.start, u.first);
    u.append(*opened.journal, 100);
    if (scenario == 2) {
      u.fill_to(*opened.journal, kRing - 2 * kBlock);
    }
  }
  if (scenario == 2 && blocks == 1) {
    return;  // it would fit
  }
  const std::string before = read_file(u.path);
  const std::string tail = payload_of(full_blocks(blocks), 99);
  JournalPosition end;
  {
    const Replayed opened = open_at(u.path, u.start, u.first);
    REQUIRE(opened.journal->append(tail));
    end = opened.journal->next_position();
  }
  const std::string after = read_file(u.path);
  const std::uint64_t at = end.offset - blocks * kBlock;
  CHECK((at == 0) == (scenario == 2));

  const std::uint64_t sectors = blocks * kBlock / kSector;
  const auto check = [&](const std::vector<bool>& reached) {
    std::string image = before.substr(at, blocks * kBlock);
    std::uint64_t count = 0;
    for (std::uint64_t i = 0; i < sectors; ++i) {
      if (reached[i]) {
        image.replace(i * kSector, kSector, after, at + i * kSector, kSector);
        ++count;
      }
    }
    patch_file(u.path, at, image);
    const Replayed torn = open_at(u.path, u.start, u.first);
    if (count == sectors) {
      CHECK(torn.end == JournalEnd::kClean);
      CHECK(torn.payloads.size() == u.live.size() + 1);
      return;
    }
    CHECK(torn.payloads == u.live);
    // Without any mark of the new batch nobody can know that it was begun.
    bool marked = false;
    for (std::uint64_t b = 0; b < blocks; ++b) {
      marked = marked || reached[b * kBlock / kSector];
    }
    CHECK(torn.end == (marked ? JournalEnd::kTornTail : JournalEnd::kClean));

    // The place is used again, and what is left of the torn batch does not come back.
    const std::string shorter = payload_of(10, 5);
    REQUIRE(torn.journal->append(shorter));
    const Replayed repaired = open_at(u.path, u.start, u.first);
    CHECK(repaired.end == JournalEnd::kClean);
    REQUIRE(repaired.payloads.size() == u.live.size() + 1);
    CHECK(repaired.payloads.back() == shorter);
    patch_file(u.path, kRing - 2 * kBlock, before.substr(kRing - 2 * kBlock));  // it may fit there
  };
  for (std::uint64_t n = 0; n <= sectors; ++n) {
    CAPTURE(n);
    std::vector<bool> reached(sectors);
    for (std::uint64_t i = 0; i < n; ++i) {
      reached[i] = true;
    }
    check(reached);  // a prefix got to the disk
    reached.flip();
    check(reached);  // a suffix
    for (std::uint64_t i = 0; i < sectors; ++i) {
      reached[i] = (i * 7 + n * 13) % 5 < 2;
    }
    check(reached);
  }
}

TEST_CASE("a batch that no longer fits after a torn one is found in the next lap") {
  Used u({45}, 1);
  {
    const Replayed opened = open_at(u.path, u.start, u.first);
    u.fill_to(*opened.journal, kRing - 2 * kBlock);
  }
  {
    const Replayed opened = open_at(u.path, u.start, u.first);
    REQUIRE(opened.journal->append(payload_of(full_blocks(2), 1)));
  }
  patch_file(u.path, kRing - kBlock, std::string(kBlock, '\0'));  // only its first block came
  {
    const Replayed torn = open_at(u.path, u.start, u.first);
    CHECK(torn.end == JournalEnd::kTornTail);
    u.append(*torn.journal, full_blocks(3));
    CHECK(torn.journal->next_position() == JournalPosition{u.start.lap + 1, 3 * kBlock});
    u.append(*torn.journal, 1);
  }
  const Replayed again = open_at(u.path, u.start, u.first);
  CHECK(again.end == JournalEnd::kClean);
  CHECK(again.payloads == u.live);
}

TEST_CASE("an unreadable batch before a good one is damage") {
  Used u({33, 22}, 2);
  std::vector<JournalPosition> starts;
  {
    const Replayed opened = open_at(u.path, u.start, u.first);
    for (std::uint64_t i = 0; i < 12; ++i) {
      u.append(*opened.journal, i % 3 == 2 ? 50'000 : full_blocks(1 + i % 3));
      const std::uint64_t bytes = ring::batch_bytes(u.live.back().size());
      JournalPosition end = opened.journal->next_position();
      if (end.offset == 0) {
        end = {end.lap - 1, kRing};
      }
      starts.push_back({end.lap, end.offset - bytes});
    }
  }
  CHECK(starts.back().lap >= u.start.lap);
  const std::string good = read_file(u.path);
  const auto flip = [&](std::uint64_t at) {
    patch_file(u.path, at, std::string(1, static_cast<char>(good[at] ^ 0x40)));
  };
  const auto repair = [&](std::uint64_t at) { patch_file(u.path, at, good.substr(at, 1)); };
  for (std::size_t i = 0; i < u.live.size(); ++i) {
    const std::uint64_t bytes = ring::batch_bytes(u.live[i].size());
    std::vector<std::uint64_t> places{0, 9, 13, 17, 25, 33, 44, 48, 4095};
    if (bytes > kBlock) {
      places.insert(places.end(), {kBlock, kBlock + 9, kBlock + 16, 2 * kBlock - 1});
    }
    for (const std::uint64_t place : places) {
      CAPTURE(i, place);
      flip(starts[i].offset + place);
      const Replayed hurt = open_at(u.path, u.start, u.first);
      repair(starts[i].offset + place);
      CHECK(hurt.payloads ==
            std::vector<std::string>(u.live.begin(), u.live.begin() + static_cast<long>(i)));
      if (i + 1 < u.live.size()) {
        CHECK(hurt.end == JournalEnd::kDamaged);
        CHECK_FALSE(hurt.journal->append("x").has_value());
      } else {
        CHECK(hurt.end != JournalEnd::kDamaged);  // as if it had never been acknowledged
      }
    }
  }
  // Several in a row, and behind them only the header of one that tore.
  for (std::size_t i = 3; i + 1 < u.live.size(); ++i) {
    flip(starts[i].offset);
  }
  flip(starts.back().offset + ring::kHeaderBytes + 5);
  CHECK(open_at(u.path, u.start, u.first).end == JournalEnd::kDamaged);
  for (std::size_t i = 3; i + 1 < u.live.size(); ++i) {
    repair(starts[i].offset);
  }

  // A caller who knows the chain to be closed is believed about its first batch only.
  flip(starts[0].offset);
  CHECK(open_at(u.path, u.start, u.first).end == JournalEnd::kDamaged);
  CHECK(open_at(u.path, u.start, u.first, true).end == JournalEnd::kClean);
  repair(starts[0].offset);
  flip(starts[1].offset);
  CHECK(open_at(u.path, u.start, u.first, true).end == JournalEnd::kDamaged);
}

TEST_CASE("a start that the ring has overwritten since is damage") {
  Used u({31, 10}, 1);
  const JournalPosition old_start = u.start;
  const Lsn old_first = u.first;
  {
    const Replayed opened = open_at(u.path, u.start, u.first);
    while (opened.journal->next_position().lap < old_start.lap + 2) {
      opened.journal->release(opened.journal->next_position());
      REQUIRE(opened.journal->append(std::string(full_blocks(5), 'x')));
    }
  }
  CHECK(open_at(u.path, old_start, old_first).end == JournalEnd::kDamaged);
}

TEST_CASE("another store's journal is not ours") {
  Used u({3, 2}, 0);
  {
    const Replayed opened = open_at(u.path, u.start, u.first);
    u.append(*opened.journal, 10);
    u.append(*opened.journal, 50'000);
  }
  Uuid other = kStore;
  other[15] ^= 1;
  const Replayed foreign = open_at(u.path, u.start, u.first, false, other);
  CHECK(foreign.payloads.empty());
  CHECK(foreign.end == JournalEnd::kClean);
  CHECK(open_at(u.path, u.start, u.first).payloads == u.live);
}

TEST_CASE("payload that looks like the next batch is not taken for one") {
  Used u({1}, 0);
  const JournalPosition at = u.start;
  // A perfect forgery of the batch that will be next after a one-block batch at `at`, at whatever
  // distance from a block border the payload happens to lie.
  AlignedBuffer forged(kBlock);
  ring::encode(kStore, u.first + 1, at.lap, "evil", forged.span());
  const std::string evil(reinterpret_cast<const char*>(forged.data()), 64);
  const std::string image = read_file(u.path);
  // Each mark shifts the rest by 16 bytes, so 16 shifts meet every distance.
  for (std::uint64_t shift = 0; shift < ring::kContinuationBytes; ++shift) {
    std::string payload(shift, '.');
    while (payload.size() < full_blocks(8)) {
      payload += evil;
    }
    {
      const Replayed opened = open_at(u.path, u.start, u.first);
      REQUIRE(opened.journal->append(payload));
    }
    // It tore, so its place goes to a short batch, and its other blocks stay behind.
    patch_file(u.path, at.offset + kBlock - 1, "~");
    {
      const Replayed opened = open_at(u.path, u.start, u.first);
      REQUIRE(opened.end == JournalEnd::kTornTail);
      REQUIRE(opened.journal->append("good"));
    }
    const Replayed again = open_at(u.path, u.start, u.first);
    CHECK(again.payloads == std::vector<std::string>{"good"});
    CHECK(again.end == JournalEnd::kClean);
    patch_file(u.path, at.offset, image.substr(at.offset, 8 * kBlock));
  }
}

TEST_CASE("a read-only journal replays and changes nothing") {
  Used u({50}, 1);
  {
    const Replayed opened = open_at(u.path, u.start, u.first);
    u.append(*opened.journal, 5000);
  }
  const std::string image = read_file(u.path);
  const Replayed opened = open_at(u.path, u.start, u.first, false, kStore, true);
  CHECK(opened.payloads == u.live);
  CHECK(opened.journal->append("x").error().errno_value() == EROFS);
  CHECK(read_file(u.path) == image);
}

TEST_CASE("after a failed write the journal takes no more batches") {
  // A sealed memory file refuses writes; it also shows the way without O_DIRECT, where the host's
  // tmpfs has none.
  const Fd memory(::memfd_create("journal", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(memory.valid());
  REQUIRE(::ftruncate(memory.get(), kRing) == 0);
  const std::string path = "/proc/self/fd/" + std::to_string(memory.get());
  {
    const Replayed opened = open_at(path, {}, Lsn(1));
    CHECK(opened.journal->append("one").value() == Lsn(1));
    REQUIRE(::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE) == 0);
    CHECK(opened.journal->append("two").error().errno_value() == EPERM);
    CHECK(opened.journal->next_lsn() == Lsn(2));
    CHECK(opened.journal->append("three").error().errno_value() == EIO);
  }
  CHECK(open_at(path, {}, Lsn(1)).payloads == std::vector<std::string>{"one"});
}
