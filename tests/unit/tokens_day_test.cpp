// A day of token operations on a clock that is moved by hand, beside a naive model: which tokens
// are alive, when each ends, what bytes each holds. At the end everything has expired, and nothing
// is left behind.
#include <algorithm>
#include <map>
#include <random>

#include "unit/token_world.hpp"

namespace odx::test {
namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint64_t kMaxSize = 48 << 10;
constexpr std::int64_t kSecond = 1'000;  // the model counts milliseconds
constexpr std::int64_t kTombstone = 60 * kSecond;
constexpr std::size_t kFiles = 5;

class Day {
 public:
  explicit Day(std::uint64_t seed) : random_(seed) {
    world_.file("first", pattern(4096, 1));  // so that the store has grown its first segment
    world_.remove("first");
    world_.settle();
    free_at_start_ = world_.free_blocks();
    for (std::size_t i = 0; i < kFiles; ++i) {
      create(i);
    }
  }

  void run(std::int64_t until) {
    while (now_ < until) {
      const std::uint64_t dice = pick(1'000);
      if (dice < 250) {
        read();
      } else if (dice < 480) {
        write();
      } else if (dice < 540) {
        drop();
      } else if (dice < 570) {
        compare_lists();
      } else if (dice < 660) {
        change_a_file();
      } else if (dice < 670) {
        replace_a_file();
      } else if (dice < 672) {
        remount();
      } else if (dice < 677) {
        set_back();
      } else {
        pass_time();
      }
    }
  }

  void finish() {
    advance(600 * kSecond);
    expire();
    compare_lists();
    REQUIRE(world_.tokens().live() == 0);
    REQUIRE(world_.tokens().pinned_bytes() == 0);
    advance(kTombstone);
    expire();
    REQUIRE(world_.tokens().usage().tombstones() == 0);
    REQUIRE(world_.records(keys::kToken) == 0);
    REQUIRE(world_.records(keys::kTokenExpiry) == 0);
    for (std::size_t i = 0; i < kFiles; ++i) {
      world_.remove(name(i));
    }
    world_.settle();
    REQUIRE(world_.free_blocks() == free_at_start_);
    for (const char table : {keys::kNode, keys::kNodeRefs, keys::kBlockRefs, keys::kReclaim}) {
      REQUIRE(world_.records(table) == 0);
    }
    for (const What what : {kMoved, kEarly, kLate, kGone}) {
      CAPTURE(what);
      REQUIRE(done_[what] > 20);
    }
    world_.close();
  }

 private:
  // WRITEs of tokens: alive, expired and not cleared away yet, a tombstone, dropped or forgotten.
  enum What { kMoved, kEarly, kLate, kGone };
  struct Held {
    odx_token token;
    std::string bytes;
    std::uint32_t uid;
    std::int64_t ttl;
    std::int64_t due;
    std::int64_t ended = -1;  // when expire() found it; -1: it has not yet
    bool gone = false;        // dropped, or its tombstone has been cleared away
  };
  struct File {
    InodeNo ino;
    std::string bytes;
  };

  std::uint64_t pick(std::uint64_t below) { return random_() % below; }
  static std::string name(std::size_t i) { return "f" + std::to_string(i); }
  [[nodiscard]] bool alive(const Held& held) const {
    return !held.gone && held.ended < 0 && now_ < held.due;
  }

  void create(std::size_t i) {
    files_[i].bytes = pattern(pick(kMaxSize), static_cast<unsigned>(random_()));
    files_[i].ino = world_.file(name(i), files_[i].bytes);
  }
  void advance(std::int64_t ms) {
    world_.advance_ms(ms);
    now_ += ms;
  }
  // As the background thread does.
  void expire() {
    ok(world_.tokens().expire());
    std::erase_if(held_, [](const Held& held) { return held.gone; });
    for (Held& held : held_) {
      if (held.ended < 0 && held.due <= now_) {
        held.ended = now_;
      } else if (held.ended >= 0 && held.ended + kTombstone <= now_) {
        held.gone = true;
      }
    }
  }
  void pass_time() {
    const std::uint64_t dice = pick(100);
    const std::uint64_t most = dice < 40 ? 1'000 : dice < 97 ? 30'000 : 900'000;
    advance(static_cast<std::int64_t>(1 + pick(most)));
    if (pick(4) > 0) {
      expire();
    }
  }
  // An NTP step: token time stands still, to the millisecond.
  void set_back() {
    ok(world_.tokens().list({}, 1, 0));
    const std::int64_t step = static_cast<std::int64_t>(1 + pick(pick(2) == 0 ? 5'000 : 7'200'000));
    world_.advance_ms(-step);
    ahead_ += step;
    compare_lists();
  }

  void read() {
    const File& file = files_[pick(kFiles)];
    if (file.bytes.empty()) {
      return;
    }
    const std::uint64_t at = round_down(pick(file.bytes.size()), kSector);
    const std::uint64_t length = (1 + pick(64)) * kSector;
    constexpr std::uint32_t kTtls[] = {0, 1, 999, 1'000, 5'000, 30'000, 600'000, UINT32_MAX};
    const std::uint32_t asked = kTtls[pick(std::size(kTtls))];
    const auto uid = static_cast<std::uint32_t>(pick(3));
    const Reply reply = world_.read(file.ino, TokenWorld::read_call(at, length, asked), user(uid));
    REQUIRE(reply.error == 0);
    if (is_zero_token(reply.token())) {
      return;
    }
    Held held{reply.token(), file.bytes.substr(at, reply.transfer_length()), uid,
              asked == 0 ? 60'000 : std::min<std::int64_t>(asked, 600'000), 0};
    held.bytes.resize(reply.transfer_length());
    held.due = now_ + held.ttl;
    held_.push_back(std::move(held));
  }

  void write() {
    if (held_.empty()) {
      return;
    }
    // Young ones more often: old ones have mostly expired.
    Held& held = held_[held_.size() - 1 - pick(1 + pick(held_.size()))];
    File& file = files_[pick(kFiles)];
    if (file.bytes.empty()) {
      return;
    }
    const std::uint64_t at = round_down(pick(file.bytes.size()), kSector);
    const std::uint64_t token_at = round_down(pick(held.bytes.size()), kSector);
    const std::uint64_t length = (1 + pick(64)) * kSector;
    CAPTURE(now_, held.due, held.ended, held.gone, held.ttl);
    const Reply reply = world_.write(file.ino, at, length, held.token, token_at, user(1));
    if (held.gone) {
      ++done_[kGone];
      REQUIRE(reply.error == EKEYREJECTED);
      REQUIRE(reply.reason() == ODX_REASON_TOKEN_UNKNOWN);
    } else if (!alive(held)) {
      ++done_[held.ended < 0 ? kEarly : kLate];
      REQUIRE(reply.error == EKEYEXPIRED);
      REQUIRE(reply.reason() == ODX_REASON_TOKEN_EXPIRED);
    } else {
      ++done_[kMoved];
      REQUIRE(reply.error == 0);
      std::string image = held.bytes.substr(token_at, length);
      image.resize(std::min(image.size(), round_up(file.bytes.size(), kSector) - at));
      REQUIRE(reply.written() == image.size());
      image.resize(std::min(image.size(), file.bytes.size() - at));
      file.bytes.replace(at, image.size(), image);
      REQUIRE(world_.content(file.ino) == file.bytes);
      if (now_ + held.ttl - held.due >= std::min(kSecond, held.ttl / 8)) {
        held.due = now_ + held.ttl;
      }
    }
  }

  void drop() {
    if (held_.empty()) {
      return;
    }
    Held& held = held_[held_.size() - 1 - pick(1 + pick(held_.size()))];
    const auto uid = static_cast<std::uint32_t>(pick(3));
    const Result<void> dropped = world_.tokens().drop(id_of(held.token), uid);
    if (!alive(held)) {
      REQUIRE(dropped.error().errno_value() == ENOENT);
    } else if (uid != 0 && uid != held.uid) {
      REQUIRE(dropped.error().errno_value() == EPERM);
    } else {
      REQUIRE(dropped.has_value());
      held.gone = true;
    }
  }

  void compare_lists() {
    std::map<TokenId, const Held*> expected;
    std::uint64_t counted = 0;
    for (const Held& held : held_) {
      counted += !held.gone && held.ended < 0 ? 1 : 0;
      if (alive(held)) {
        expected.emplace(id_of(held.token), &held);
      }
    }
    REQUIRE(world_.tokens().live() == counted);
    for (const std::uint32_t uid : {0U, 1U, 2U}) {
      std::size_t seen = 0;
      for (const odx_token_info& info : ok(world_.tokens().list({}, 100'000, uid))) {
        TokenId id;
        std::copy_n(info.id, id.size(), id.begin());
        const Held& held = *expected.at(id);
        REQUIRE((uid == 0 || held.uid == uid));
        REQUIRE(info.uid == held.uid);
        REQUIRE(info.length == held.bytes.size());
        REQUIRE(info.expires_ns - world_.clock().now_ns() == (held.due - now_) * kNsPerMs);
        ++seen;
      }
      REQUIRE(seen == static_cast<std::size_t>(std::count_if(
                          expected.begin(), expected.end(),
                          [&](const auto& each) { return uid == 0 || each.second->uid == uid; })));
    }
  }

  void change_a_file() {
    File& file = files_[pick(kFiles)];
    switch (pick(3)) {
      case 0: {
        const std::uint64_t at = pick(std::min(file.bytes.size() + 1, kMaxSize));
        const std::string piece = pattern(1 + pick(20'000), static_cast<unsigned>(random_()));
        world_.write_bytes(file.ino, at, piece);
        file.bytes.resize(std::max(file.bytes.size(), at + piece.size()));
        file.bytes.replace(at, piece.size(), piece);
        break;
      }
      case 1:
        file.bytes.resize(pick(kMaxSize));
        world_.truncate(file.ino, file.bytes.size());
        break;
      default:
        if (!file.bytes.empty()) {
          const std::uint64_t at = pick(file.bytes.size());
          const std::uint64_t count = std::min(1 + pick(9'000), file.bytes.size() - at);
          world_.punch(file.ino, at, count);
          std::fill_n(file.bytes.begin() + static_cast<std::ptrdiff_t>(at), count, '\0');
        }
    }
  }
  void replace_a_file() {
    const std::size_t i = pick(kFiles);
    world_.remove(name(i));
    create(i);
  }

  void remount() {
    expire();
    const auto living =
        std::find_if(held_.begin(), held_.end(), [&](const Held& held) { return alive(held); });
    if (living == held_.end()) {
      return;
    }
    if (pick(3) == 0) {
      world_.sync();
      world_.crash();
    } else {
      world_.reopen();
    }
    for (std::size_t i = 0; i < kFiles; ++i) {
      files_[i].ino = world_.find(name(i));
      REQUIRE(world_.content(files_[i].ino) == files_[i].bytes);
    }
    // What the clock was set back by since the last trace of time on disk is lucky time: never
    // more than that, and never more than a whole TTL. All tokens gain the same.
    const std::int64_t before = living->due - now_;
    std::int64_t gained = -1;
    for (const odx_token_info& info : ok(world_.tokens().list({}, 100'000, 0))) {
      const TokenId id = id_of(living->token);
      if (std::equal(id.begin(), id.end(), info.id)) {
        gained = (info.expires_ns - world_.clock().now_ns()) / kNsPerMs - before;
      }
    }
    REQUIRE(gained >= 0);
    REQUIRE(gained <= ahead_);
    REQUIRE(before + gained <= living->ttl);
    now_ -= gained;
    ahead_ -= gained;
    compare_lists();
  }

  std::mt19937_64 random_;
  TokenWorld world_{{.limit_bytes = 128ULL << 20}};
  std::uint64_t free_at_start_ = 0;
  std::array<File, kFiles> files_;
  std::vector<Held> held_;
  std::int64_t now_ = 0;    // token time since the start
  std::int64_t ahead_ = 0;  // of the wall clock
  std::map<What, int> done_;
};

TEST_CASE("a day of tokens leaves nothing behind", "[token][day]") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  Day day(seed);
  day.run(24 * 3'600 * kSecond);
  day.finish();
}

}  // namespace
}  // namespace odx::test
