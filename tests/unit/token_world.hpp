// A small store with a clock that is moved by hand, and the two controls as one-line calls.
#pragma once

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/token_codec.hpp"
#include "store/check/check.hpp"
#include "store/meta/keys.hpp"
#include "store/mutation.hpp"
#include "store/store.hpp"
#include "temp_dir.hpp"

namespace odx::test {

template <class T>
T ok(Result<T> result) {
  if (!result) {
    FAIL(result.error().message());
  }
  if constexpr (!std::is_void_v<T>) {
    return *std::move(result);
  }
}

inline std::string pattern(std::size_t bytes, unsigned seed) {
  std::string out(bytes, '\0');
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1;
  for (char& c : out) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    c = static_cast<char>(1 + (state >> 33) % 255);  // never 0: not to be taken for a hole
  }
  return out;
}

struct Reply {
  int error = 0;
  odx_offload raw{};
  [[nodiscard]] std::uint32_t status() const { return raw.a.status; }
  [[nodiscard]] std::uint32_t reason() const { return raw.b.reason; }
  [[nodiscard]] std::uint64_t shared() const { return raw.c.bytes_shared; }
  [[nodiscard]] std::uint64_t transfer_length() const { return raw.body.read_out.transfer_length; }
  [[nodiscard]] bool zeros_beyond() const {
    return raw.body.read_out.flags == ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE;
  }
  [[nodiscard]] const odx_token& token() const { return raw.body.read_out.token; }
  [[nodiscard]] std::uint64_t written() const { return raw.body.write_out.length_written; }
};

inline bool same(const odx_token& a, const odx_token& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}
inline bool is_zero_token(const odx_token& token) { return same(token, proto::zero_token()); }
inline TokenId id_of(const odx_token& token) { return proto::decode(token).value().id; }

inline constexpr std::int64_t kStartNs = 1'700'000'000 * kNsPerSecond;
inline constexpr OffloadCaller kRoot{.uid = 0, .readable = true, .writable = true};
inline OffloadCaller user(std::uint32_t uid) {
  return {.uid = uid, .readable = true, .writable = true};
}

// The metadata store, and what is asked of it.
class CountingMeta final : public MetaStore {
 public:
  explicit CountingMeta(std::unique_ptr<MetaStore> below) : below_(std::move(below)) {}

  struct Counts {
    std::uint64_t gets = 0;
    std::uint64_t scanned = 0;       // pairs that scans answered with
    std::set<std::string> nodes;     // keys of tree nodes read, written or erased
    std::string lowest_expiry_scan;  // first key that a scan of table `Y` asked for
  };
  Counts take() { return std::exchange(counts_, {}); }

  Result<std::optional<std::string>> get(std::string_view key) const override {
    note(key);
    return below_->get(key);
  }
  Result<std::optional<std::string>> get_stamped(std::string_view key,
                                                 TxnSeq& stamp) const override {
    note(key);
    return below_->get_stamped(key, stamp);
  }
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override {
    Result<std::vector<KeyValue>> found = below_->scan(from, end, limit);
    counts_.scanned += found ? found->size() : 0;
    if (from.front() == keys::kTokenExpiry &&
        (counts_.lowest_expiry_scan.empty() || from < counts_.lowest_expiry_scan)) {
      counts_.lowest_expiry_scan = from;
    }
    return found;
  }
  Result<TxnSeq> commit(WriteSet writes) override {
    for (const auto& [key, value] : writes) {
      if (key.front() == keys::kNode) {
        counts_.nodes.insert(key);
      }
    }
    return below_->commit(std::move(writes));
  }
  Result<std::unique_ptr<KvReader>> frozen_view() override { return below_->frozen_view(); }
  [[nodiscard]] TxnSeq committed() const override { return below_->committed(); }
  [[nodiscard]] TxnSeq durable() const override { return below_->durable(); }
  Result<void> throttle() override { return below_->throttle(); }
  Result<void> wait_durable(TxnSeq seq) override { return below_->wait_durable(seq); }
  Result<void> checkpoint() override { return below_->checkpoint(); }
  Result<void> close() override { return below_->close(); }
  [[nodiscard]] Result<void> health() const override { return below_->health(); }
  [[nodiscard]] MetaStats stats() const override { return below_->stats(); }

 private:
  void note(std::string_view key) const {
    ++counts_.gets;
    if (key.front() == keys::kNode) {
      counts_.nodes.emplace(key);
    }
  }
  std::unique_ptr<MetaStore> below_;
  mutable Counts counts_;
};

struct WorldOptions {
  TokenOptions tokens{};
  std::uint32_t sector = 512;
  std::uint64_t limit_bytes = 64ULL << 20;
  std::uint64_t journal_bytes = 4ULL << 20;
};

class TokenWorld {
 public:
  explicit TokenWorld(const WorldOptions& options = {}) : options_(options) {
    FormatOptions format;
    format.limit_bytes = options.limit_bytes;
    format.sector_bytes = options.sector;
    format.journal_bytes = options.journal_bytes;
    ok(Store::format(path(), format));
    open();
  }

  [[nodiscard]] std::string path() const { return dir_.path() + "/store"; }
  Store& store() { return *store_; }
  Core& core() { return store_->core(); }
  Tokens& tokens() { return store_->tokens(); }
  ManualClock& clock() { return clock_; }
  void advance_ms(std::int64_t ms) { clock_.advance_ns(ms * kNsPerMs); }

  void open(bool read_only = false) {
    OpenOptions open;
    open.read_only = read_only;
    open.device.mode = IoMode::kBuffered;
    open.device.engine = IoEngineKind::kSync;
    open.meta.flush_interval = std::chrono::milliseconds(0);
    open.tokens = options_.tokens;
    open.clock = &clock_;
    open.background = false;
    store_ = ok(Store::open(path(), std::move(open)));
  }
  // What it leaves is not sound, and meant to be.
  void close_unchecked() {
    ok(store_->close());
    store_.reset();
  }
  // Every test ends with this: what it leaves on disk must be sound.
  void close() {
    close_unchecked();
    const CheckReport report = ok(check_store(path(), {.data = true}));
    for (const std::string& problem : report.problems) {
      UNSCOPED_INFO(problem);
    }
    REQUIRE(report.clean());
  }
  void reopen(bool read_only = false) {
    close();
    open(read_only);
  }
  void crash() {
    store_.reset();
    open();
  }
  void sync() { ok(core().meta->wait_durable(core().meta->committed())); }
  // From now on until the store is closed. One thread.
  CountingMeta& count_meta() {
    auto counting = std::make_unique<CountingMeta>(std::move(core().meta));
    CountingMeta& answer = *counting;
    core().meta = std::move(counting);
    return answer;
  }
  void set_token_options(const TokenOptions& tokens) { options_.tokens = tokens; }

  // Files are found again by name after open().
  InodeNo file(const std::string& name, std::string_view content = {}) {
    const InodeNo ino = ok(store_->names().create(kRootInode, name, {.mode = S_IFREG | 0644}))->ino;
    if (!content.empty()) {
      write_bytes(ino, 0, content);
    }
    return ino;
  }
  InodeNo find(const std::string& name) {
    return ok(store_->names().lookup(kRootInode, name))->ino;
  }
  Inode inode(InodeNo ino) { return *ok(core().inode(ino)); }
  void write_bytes(InodeNo ino, std::uint64_t at, std::string_view bytes) {
    constexpr std::size_t kPiece = 1 << 20;
    for (std::size_t done = 0; done < bytes.size(); done += kPiece) {
      ok(store_->files().write(ino, FileOffset(at + done),
                               std::as_bytes(std::span(bytes.substr(done, kPiece)))));
    }
  }
  void truncate(InodeNo ino, std::uint64_t bytes) { ok(store_->files().truncate(ino, bytes)); }
  void punch(InodeNo ino, std::uint64_t at, std::uint64_t bytes) {
    ok(store_->files().allocate(ino, Files::AllocateMode::kPunchHole, true, FileOffset(at), bytes));
  }
  std::string content(InodeNo ino) {
    std::string out(ok(core().inode(ino))->size() + 1, '\xEE');
    out.resize(
        ok(store_->files().read(ino, FileOffset(0), std::as_writable_bytes(std::span(out)))));
    return out;
  }
  void remove(const std::string& name) {
    const InodePtr gone = ok(store_->names().unlink(kRootInode, name));
    ok(store_->names().reap(gone->ino));
  }

  // Everything freed so far becomes free.
  void settle() {
    ok(store_->reclaim());
    sync();
    core().settle_space();
  }
  // Segments grow in steps: what they still may grow by counts.
  std::uint64_t free_blocks() { return core().capacity().free_bytes / kBlockBytes; }
  std::size_t records(char table) {
    return ok(core().meta->scan(keys::table_begin(table), keys::table_end(table), 1'000'000))
        .size();
  }

  static odx_offload read_call(std::uint64_t offset, std::uint64_t length, std::uint32_t ttl_ms = 0,
                               std::uint64_t option_bits = 0) {
    odx_offload call{};
    call.body.read_in.size = sizeof(odx_read_input);
    call.body.read_in.token_time_to_live = ttl_ms;
    call.body.read_in.file_offset = offset;
    call.body.read_in.copy_length = length;
    call.c.options = option_bits;
    return call;
  }
  static odx_offload write_call(std::uint64_t offset, std::uint64_t length, const odx_token& token,
                                std::uint64_t transfer_offset = 0) {
    odx_offload call{};
    call.body.write_in.size = sizeof(odx_write_input);
    call.body.write_in.file_offset = offset;
    call.body.write_in.copy_length = length;
    call.body.write_in.transfer_offset = transfer_offset;
    call.body.write_in.token = token;
    return call;
  }
  Reply read(InodeNo ino, odx_offload call, const OffloadCaller& caller = kRoot) {
    const int error = tokens().offload_read(ino, caller, call);
    return judged({error, call}, sizeof(odx_read_output));
  }
  Reply read(InodeNo ino, std::uint64_t offset, std::uint64_t length,
             const OffloadCaller& caller = kRoot) {
    return read(ino, read_call(offset, length), caller);
  }
  Reply write(InodeNo ino, odx_offload call, const OffloadCaller& caller = kRoot) {
    const int error = tokens().offload_write(ino, caller, call);
    return judged({error, call}, sizeof(odx_write_output));
  }
  Reply write(InodeNo ino, std::uint64_t offset, std::uint64_t length, const odx_token& token,
              std::uint64_t transfer_offset = 0, const OffloadCaller& caller = kRoot) {
    return write(ino, write_call(offset, length, token, transfer_offset), caller);
  }
  // A token for a range that must be whole.
  odx_token token(InodeNo ino, std::uint64_t offset, std::uint64_t length, std::uint32_t ttl_ms = 0,
                  std::uint64_t option_bits = 0, const OffloadCaller& caller = kRoot) {
    const Reply reply = read(ino, read_call(offset, length, ttl_ms, option_bits), caller);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.transfer_length() == length);
    return reply.token();
  }
  // What the token shows.
  std::string shown(const odx_token& token, std::uint64_t length) {
    const InodeNo ino = file("shown" + std::to_string(++shown_));
    truncate(ino, length);
    const Reply reply = write(ino, 0, length, token);
    REQUIRE(reply.error == 0);
    REQUIRE(reply.written() == length);
    std::string out = content(ino);
    remove("shown" + std::to_string(shown_));
    return out;
  }

 private:
  // What holds for every reply.
  static Reply judged(Reply reply, std::uint32_t size) {
    CAPTURE(reply.error, reply.status(), reply.reason());
    if (reply.error != 0) {
      REQUIRE(reply.status() != ODX_STATUS_SUCCESS);
      REQUIRE(reply.reason() != ODX_REASON_NONE);
      REQUIRE(reply.shared() == 0);
      for (const std::uint8_t byte : reply.raw.body.bytes) {
        REQUIRE(byte == 0);
      }
    } else {
      REQUIRE(reply.status() == ODX_STATUS_SUCCESS);
      REQUIRE(reply.raw.body.read_out.size == size);
    }
    return reply;
  }

  WorldOptions options_;
  TempDir dir_;
  ManualClock clock_{kStartNs};
  std::unique_ptr<Store> store_;
  unsigned shown_ = 0;
};

inline void require_refused(const Reply& reply, int error, std::uint32_t status,
                            odx_reason reason) {
  CAPTURE(reply.error, reply.status(), reply.reason());
  REQUIRE(reply.error == error);
  REQUIRE(reply.status() == status);
  REQUIRE(reply.reason() == static_cast<std::uint32_t>(reason));
}

}  // namespace odx::test
