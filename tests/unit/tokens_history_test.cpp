// Tokens made, redeemed, dropped and expired by many threads on files that are being written: each
// token shows one moment of its file, the same each time, and the books agree in the end.
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <set>

#include "unit/crew.hpp"
#include "unit/token_world.hpp"

namespace odx::test {
namespace {

// A file that one thread writes for ever: write number n stamps region n % kRegions with n. So
// every moment of the file is told by the newest stamp in it, and any mixture of two moments shows.
class Chronicle {
 public:
  static constexpr std::uint64_t kRegions = 8;
  static constexpr std::uint64_t kRegionBytes = 12'288;
  static constexpr std::uint64_t kFileBytes = kRegions * kRegionBytes;
  static constexpr int kFirst =
      2 * kRegions;  // write of others than the constructor: no stamp is 0

  Chronicle(TokenWorld& world, const std::string& name) : store_(world.store()) {
    ino_ = world.file(name);
    for (int n = 0; n < kFirst; ++n) {
      write(n);
    }
  }
  [[nodiscard]] InodeNo ino() const { return ino_; }

  // One thread.
  bool write(int number) {
    const auto n = static_cast<std::uint64_t>(number);
    const std::vector<std::uint64_t> stamps(kRegionBytes / sizeof n, n);
    begun_ = n;
    const bool written =
        store_.files()
            .write(ino_, FileOffset(n % kRegions * kRegionBytes), std::as_bytes(std::span(stamps)))
            .has_value();
    done_ = n;
    return written;
  }
  [[nodiscard]] std::uint64_t begun() const { return begun_; }
  [[nodiscard]] std::uint64_t done() const { return done_; }

  // The moment that the bytes from region `first` on show; 0 if they are of no one moment.
  static std::uint64_t moment(std::string_view bytes, std::uint64_t first) {
    const std::uint64_t count = bytes.size() / kRegionBytes;
    std::vector<std::uint64_t> stamps;
    for (std::uint64_t i = 0; i < bytes.size(); i += 8) {
      const auto stamp = load_le<std::uint64_t>(bytes.data() + i);
      if (i % kRegionBytes == 0) {
        stamps.push_back(stamp);
      } else if (stamp != stamps.back()) {
        return 0;
      }
    }
    const std::uint64_t newest = *std::max_element(stamps.begin(), stamps.end());
    for (std::uint64_t i = 0; i < count; ++i) {
      // The latest write to this region that is not behind the newest of all of them; regions that
      // are not shown may have been written in between.
      const std::uint64_t region = (first + i) % kRegions;
      if (stamps[i] % kRegions != region || stamps[i] > newest || newest - stamps[i] >= kRegions) {
        return 0;
      }
    }
    return newest;
  }

 private:
  Store& store_;
  InodeNo ino_;
  std::atomic<std::uint64_t> begun_{0};
  std::atomic<std::uint64_t> done_{0};
};

// What the model knows of a token.
struct Witness {
  odx_token token{};
  std::uint32_t uid = 0;
  std::uint64_t first = 0;  // region
  std::uint64_t regions = 0;
  std::uint64_t earliest = 0;  // moments that it may show
  std::uint64_t latest = 0;
  std::int64_t due_at_least = 0;
  std::atomic<std::uint64_t> moment{0};  // that it has shown; 0: never redeemed
  std::atomic<bool> drop_tried{false};
};

// What any thread may do with the tokens of any other.
class Witnesses {
 public:
  Witnesses(TokenWorld& world, std::vector<std::unique_ptr<Chronicle>>& files)
      : world_(world), files_(files) {}

  bool make(unsigned n, int i) {
    Chronicle& file = *files_[n % files_.size()];
    auto made = std::make_shared<Witness>();
    made->uid = n;
    made->first = i % 3 == 0 ? 0 : static_cast<std::uint64_t>(i) % Chronicle::kRegions;
    made->regions =
        i % 3 == 0 ? Chronicle::kRegions
                   : 1 + static_cast<std::uint64_t>(i * 7) % (Chronicle::kRegions - made->first);
    constexpr std::uint32_t kTtls[] = {3, 20, 200, 600'000};
    const std::uint32_t ttl_ms = kTtls[i % 4];
    odx_offload call = TokenWorld::read_call(made->first * Chronicle::kRegionBytes,
                                             made->regions * Chronicle::kRegionBytes, ttl_ms);
    made->due_at_least = world_.clock().now_ns() + ttl_ms * kNsPerMs;
    made->earliest = file.done();
    const int error = world_.tokens().offload_read(file.ino(), user(n), call);
    made->latest = file.begun();
    if (error != 0 ||
        call.body.read_out.transfer_length != made->regions * Chronicle::kRegionBytes) {
      return false;
    }
    made->token = call.body.read_out.token;
    ++made_;
    const std::lock_guard lock(mutex_);
    all_.push_back(std::move(made));
    return true;
  }

  // Into the caller's own file. Redeeming may fail only for a reason.
  bool redeem(InodeNo into, unsigned salt) {
    const std::shared_ptr<Witness> it = any(salt);
    return it == nullptr || redeem(*it, into);
  }
  bool redeem(Witness& it, InodeNo into) {
    const std::uint64_t bytes = it.regions * Chronicle::kRegionBytes;
    odx_offload call = TokenWorld::write_call(0, bytes, it.token);
    const int error = world_.tokens().offload_write(into, user(it.uid + 1), call);
    if (error == EKEYEXPIRED) {
      ++expired_;
      return world_.clock().now_ns() >= it.due_at_least;
    }
    if (error == EKEYREJECTED) {  // dropped, or a tombstone that has been cleared away
      return it.drop_tried || world_.clock().now_ns() >= it.due_at_least + 60 * kNsPerSecond;
    }
    if (error != 0 || call.body.write_out.length_written != bytes) {
      return false;
    }
    ++redeemed_;
    std::string seen(bytes, '\0');
    const auto got =
        world_.store().files().read(into, FileOffset(0), std::as_writable_bytes(std::span(seen)));
    const std::uint64_t moment = Chronicle::moment(seen, it.first);
    std::uint64_t before = 0;
    const bool first_time = it.moment.compare_exchange_strong(before, moment);
    // All of a file shows the moment itself; a part at least the latest write to it.
    const std::uint64_t slack = it.regions == Chronicle::kRegions ? 0 : Chronicle::kRegions;
    return got && *got == bytes && moment != 0 && (first_time || before == moment) &&
           moment + slack >= it.earliest && moment <= it.latest;
  }

  bool drop(unsigned salt) {
    const std::shared_ptr<Witness> it = any(salt);
    if (it == nullptr) {
      return true;
    }
    const bool tried = it->drop_tried.exchange(true);
    const Result<void> dropped =
        world_.tokens().drop(id_of(it->token), salt % 2 == 0 ? 0 : it->uid);
    if (dropped) {
      ++dropped_;
      return true;
    }
    return dropped.error().errno_value() == ENOENT &&
           (tried || world_.clock().now_ns() >= it->due_at_least);
  }

  std::vector<std::shared_ptr<Witness>> all() {
    const std::lock_guard lock(mutex_);
    return all_;
  }
  std::atomic<std::uint64_t> made_{0};
  std::atomic<std::uint64_t> dropped_{0};
  std::atomic<std::uint64_t> redeemed_{0};
  std::atomic<std::uint64_t> expired_{0};

 private:
  std::shared_ptr<Witness> any(unsigned salt) {
    const std::lock_guard lock(mutex_);
    // The young ones, mostly.
    return all_.empty() ? nullptr
                        : all_[all_.size() - 1 -
                               salt * 2'654'435'761U %
                                   std::min<std::size_t>(all_.size(), salt % 5 == 0 ? 1'000 : 12)];
  }
  TokenWorld& world_;
  std::vector<std::unique_ptr<Chronicle>>& files_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Witness>> all_;
};

TEST_CASE("every token shows one moment, whatever goes on around it", "[token][parallel]") {
  TokenWorld world({.limit_bytes = 256ULL << 20});
  Store& store = world.store();
  world.file("first", pattern(4096, 1));
  world.remove("first");
  world.settle();
  const std::uint64_t free_before = world.free_blocks();
  std::vector<std::unique_ptr<Chronicle>> files;
  files.push_back(std::make_unique<Chronicle>(world, "a"));
  files.push_back(std::make_unique<Chronicle>(world, "b"));
  std::vector<InodeNo> targets;
  for (int n = 0; n < 4; ++n) {
    targets.push_back(world.file("t" + std::to_string(n)));
    world.truncate(targets.back(), Chronicle::kFileBytes);
  }
  Witnesses witnesses(world, files);

  std::atomic<bool> stop{false};
  Crew background;
  for (const auto& file : files) {
    background.add_until(stop, [&](int i) { return file->write(Chronicle::kFirst + i); });
  }
  background.add_until(stop, [&](int) {
    world.advance_ms(1);
    return world.tokens().expire().has_value();
  });
  background.add_until(stop, [&](int) {
    const bool done =
        store.core().meta->wait_durable(store.core().meta->committed()) && store.reclaim();
    store.core().settle_space();
    return done;
  });
  background.add_until(
      stop, [&](int) { return world.tokens().list({}, 16, 0) && world.tokens().list({}, 16, 1); });
  Crew crew;
  for (unsigned n = 0; n < 2; ++n) {
    crew.add(1'500, [&, n](int i) { return witnesses.make(n, i); });
  }
  for (unsigned n = 0; n < 3; ++n) {
    crew.add(1'500, [&, n](int i) {
      return witnesses.redeem(targets[n], static_cast<unsigned>(i) * 3 + n);
    });
  }
  crew.add(900, [&](int i) { return witnesses.drop(static_cast<unsigned>(i)); });
  const int complaints = crew.finish();
  stop = true;
  REQUIRE(background.finish() == 0);
  REQUIRE(complaints == 0);

  // The books agree.
  const Counters& counters = world.core().counters;
  REQUIRE(counters.tokens_created == witnesses.made_);
  REQUIRE(counters.tokens_dropped == witnesses.dropped_);
  REQUIRE(counters.tokens_redeemed == witnesses.redeemed_);
  ok(world.tokens().expire());
  REQUIRE(world.tokens().live() == witnesses.made_ - witnesses.dropped_ - counters.tokens_expired);
  std::set<TokenId> listed;
  for (const odx_token_info& info : ok(world.tokens().list({}, 100'000, 0))) {
    TokenId id;
    std::copy_n(info.id, id.size(), id.begin());
    listed.insert(id);
  }
  REQUIRE(listed.size() == world.tokens().live());
  for (const std::shared_ptr<Witness>& it : witnesses.all()) {
    const std::uint64_t before = witnesses.redeemed_;
    REQUIRE(witnesses.redeem(*it, targets[3]));
    REQUIRE((witnesses.redeemed_ > before) == listed.contains(id_of(it->token)));
  }
  REQUIRE(counters.refused[ODX_REASON_TOKEN_EXPIRED] == witnesses.expired_);

  // And nothing is left once all have ended.
  world.advance_ms(600'000);
  ok(world.tokens().expire());
  world.advance_ms(60'000);
  ok(world.tokens().expire());
  REQUIRE(world.records(keys::kToken) == 0);
  REQUIRE(world.tokens().pinned_bytes() == 0);
  for (const DirectoryEntry& entry : ok(store.names().list(kRootInode, 0, 1'000))) {
    world.remove(entry.name);
  }
  world.settle();
  REQUIRE(world.free_blocks() == free_before);
  REQUIRE(world.records(keys::kNode) == 0);
  world.close();
}

}  // namespace
}  // namespace odx::test
