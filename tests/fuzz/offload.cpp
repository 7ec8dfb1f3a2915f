// The two controls on a live store: any calls, with real tokens, changed ones and made-up ones,
// between ordinary writes, compared with files and tokens that are plain strings.
#include <cstring>
#include <map>
#include <vector>

#include "input.hpp"
#include "proto/token_codec.hpp"
#include "store/check/check.hpp"
#include "store_sample.hpp"

namespace odx::fuzz {

namespace {

constexpr std::uint64_t kMostBytes = 256 * 1024;  // of a file
constexpr std::uint64_t kSector = 512;

struct Token {
  odx_token bytes{};
  std::string content;  // up to the source's end of file
  std::uint64_t span = 0;
  std::int64_t due_ns = 0;
  std::int64_t ttl_ns = 0;
  bool zero = false;
  bool dropped = false;
};

class World {
 public:
  explicit World(const StoreSample& sample) : sample_(sample), device_(sample.device()) {
    sample.restore({});
    store_ = must(sample.open(device_->handle(), clock_, false));
  }

  void step(Input& in) {
    switch (in.below(10)) {
      case 0:
      case 1:
        write(in);
        break;
      case 2:
        truncate(in);
        break;
      case 3:
        copy(in);
        break;
      case 4:
      case 5:
        offload_read(in);
        break;
      case 6:
      case 7:
        offload_write(in);
        break;
      case 8:
        drop(in);
        break;
      default:
        clock_.advance_ns(static_cast<std::int64_t>(in.byte()) * kNsPerSecond / 4);
        must(store_->tokens().expire());
        if (in.below(4) == 3) {
          reopen();
        }
        break;
    }
  }

  void compare() {
    for (std::size_t i = 0; i < contents_.size(); ++i) {
      FUZZ_EXPECT(content_of(i) == contents_[i]);
    }
  }

  void finish(bool closed) {
    compare();
    must(store_->reclaim());
    if (closed) {
      must(store_->close());
      store_ = must(sample_.open(device_->handle(), clock_, true));
      compare();
    }
    const CheckReport report = must(check_state(
        {*store_->core().meta, sample_.uuid(), device_->blocks(), device_.get()}, {.data = true}));
    for (const std::string& problem : report.problems) {
      std::fprintf(stderr, "check: %s\n", problem.c_str());
    }
    FUZZ_EXPECT(report.clean());
  }

 private:
  [[nodiscard]] InodeNo ino(std::size_t file) const { return sample_.files()[file]; }

  std::string content_of(std::size_t file) {
    std::string out(kMostBytes + 1, '\xEE');
    const std::size_t read = must(
        store_->files().read(ino(file), FileOffset(0), std::as_writable_bytes(std::span(out))));
    out.resize(read);
    return out;
  }

  static std::uint64_t place(Input& in) {
    const std::uint64_t at = in.below(65536) * 4;
    return in.below(4) == 0 ? at : at / kSector * kSector;
  }

  void write(Input& in) {
    const std::size_t file = in.below(contents_.size());
    const std::uint64_t at = place(in);
    std::string bytes(1 + in.below(20'000), '\0');
    unsigned seed = in.byte();
    for (char& c : bytes) {
      seed = seed * 1664525U + 1013904223U;
      c = static_cast<char>(seed >> 24U);
    }
    bytes.resize(std::min<std::uint64_t>(bytes.size(), kMostBytes - std::min(at, kMostBytes)));
    if (bytes.empty()) {
      return;
    }
    must(store_->files().write(ino(file), FileOffset(at), std::as_bytes(std::span(bytes))));
    std::string& content = contents_[file];
    content.resize(std::max<std::size_t>(content.size(), at + bytes.size()));
    content.replace(at, bytes.size(), bytes);
  }

  void truncate(Input& in) {
    const std::size_t file = in.below(contents_.size());
    const std::uint64_t bytes = std::min(place(in) + in.below(2), kMostBytes);
    must(store_->files().truncate(ino(file), bytes));
    contents_[file].resize(bytes);
  }

  void copy(Input& in) {
    const std::size_t from = in.below(contents_.size());
    const std::size_t to = in.below(contents_.size());
    const std::uint64_t from_at = place(in);
    const std::uint64_t to_at = std::min(place(in), kMostBytes);
    const std::uint64_t bytes = std::min(place(in), kMostBytes - to_at);
    const Files::Copied copied = must(store_->files().copy_range(
        ino(from), FileOffset(from_at), ino(to), FileOffset(to_at), bytes));
    const std::string source = contents_[from];
    const std::uint64_t expected =
        from_at >= source.size() ? 0 : std::min<std::uint64_t>(bytes, source.size() - from_at);
    FUZZ_EXPECT(copied.bytes == expected && copied.shared <= expected);
    if (expected > 0) {
      std::string& content = contents_[to];
      content.resize(std::max<std::size_t>(content.size(), to_at + expected));
      content.replace(to_at, expected, source, from_at, expected);
    }
  }

  // Puts other things into a call than a well-meaning caller would. True if it did.
  static bool upset(Input& in, odx_offload& call) {
    if (in.below(8) != 7) {
      return false;
    }
    std::string bytes(reinterpret_cast<const char*>(&call), sizeof call);
    for (std::size_t left = 1 + in.below(3); left > 0; --left) {
      in.damage(bytes);
    }
    bytes.resize(sizeof call);
    std::memcpy(&call, bytes.data(), bytes.size());
    return true;
  }

  static void expect_reply(const odx_offload& call, int error) {
    FUZZ_EXPECT((error == 0) == (call.a.status == ODX_STATUS_SUCCESS));
    if (error != 0) {
      FUZZ_EXPECT(error > 0 && call.b.reason != ODX_REASON_NONE && call.c.bytes_shared == 0);
      for (const std::uint8_t byte : call.body.bytes) {
        FUZZ_EXPECT(byte == 0);
      }
    }
  }

  void offload_read(Input& in) {
    const std::size_t file = in.below(contents_.size());
    const std::string& content = contents_[file];
    odx_offload call{};
    odx_read_input& input = call.body.read_in;
    input.size = sizeof input;
    input.file_offset = place(in);
    input.copy_length = place(in);
    input.token_time_to_live = static_cast<std::uint32_t>(in.below(64) * 1000);
    const bool upset = World::upset(in, call);
    const std::uint64_t at = input.file_offset;
    const std::uint64_t length = input.copy_length;
    const std::uint32_t ttl_ms = input.token_time_to_live;
    const int error = store_->tokens().offload_read(ino(file), kCaller, call);
    expect_reply(call, error);
    const bool in_order =
        at % kSector == 0 && length % kSector == 0 && length > 0 && at < content.size() && !upset;
    FUZZ_EXPECT(!in_order || error == 0);
    if (error != 0 || call.body.read_out.transfer_length == 0) {
      return;
    }
    FUZZ_EXPECT(at < content.size());
    const std::uint64_t given = call.body.read_out.transfer_length;
    FUZZ_EXPECT(given <= length && given <= round_up(content.size() - at, kSector));
    Token token;
    token.bytes = call.body.read_out.token;
    token.content = content.substr(at, given);
    token.span = round_up(given, kSector);
    token.ttl_ns =
        static_cast<std::int64_t>(ttl_ms == 0 ? 60'000 : std::min<std::uint32_t>(ttl_ms, 600'000)) *
        kNsPerMs;
    token.due_ns = clock_.now_ns() + token.ttl_ns;
    token.zero = proto::classify(token.bytes) == proto::TokenKind::kZero;
    if (token.zero) {
      FUZZ_EXPECT(token.content.find_first_not_of('\0') == std::string::npos);
    }
    tokens_.push_back(std::move(token));
  }

  void offload_write(Input& in) {
    const std::size_t file = in.below(contents_.size());
    odx_offload call{};
    odx_write_input& input = call.body.write_in;
    input.size = sizeof input;
    input.file_offset = place(in);
    input.copy_length = place(in);
    input.transfer_offset = in.below(2) == 0 ? 0 : place(in);
    Token made_up;
    const Token* token = &made_up;
    switch (in.below(8)) {
      case 0: {
        const std::string_view bytes = in.take(sizeof(odx_token));
        std::memcpy(&made_up.bytes, bytes.data(), bytes.size());
        break;
      }
      case 1:
        made_up.bytes = proto::zero_token();
        break;
      case 2:
        made_up.bytes =
            proto::encode_token({sample_.uuid(), in.raw<TokenId>(), in.raw<proto::TokenSecret>()});
        break;
      default:
        if (!tokens_.empty()) {
          token = &tokens_[in.below(std::min<std::size_t>(tokens_.size(), 256))];
        }
        break;
    }
    const bool real = token != &made_up;
    input.token = token->bytes;
    const bool upset = World::upset(in, call);
    const bool same_token = std::memcmp(&input.token, &token->bytes, sizeof(odx_token)) == 0;
    const std::uint64_t at = input.file_offset;
    const std::uint64_t length = input.copy_length;
    const std::uint64_t skip = input.transfer_offset;
    const bool zero = proto::classify(input.token) == proto::TokenKind::kZero;
    const bool live = real && !token->dropped && clock_.now_ns() < token->due_ns;

    std::string& content = contents_[file];
    const int error = store_->tokens().offload_write(ino(file), kCaller, call);
    expect_reply(call, error);
    const bool in_order = !upset && at % kSector == 0 && length % kSector == 0 && length > 0 &&
                          skip % kSector == 0 && at < content.size();
    if (in_order && ((live && !token->zero && skip < token->span) || zero)) {
      FUZZ_EXPECT(error == 0);
    }
    if (error != 0) {
      compare();  // a refused call changes nothing
      return;
    }
    const std::uint64_t written = call.body.write_out.length_written;
    if (written == 0) {
      FUZZ_EXPECT(length == 0);
      return;
    }
    FUZZ_EXPECT(written <= length && (zero || (live && same_token)));
    std::string moved(written, '\0');
    if (!zero) {
      FUZZ_EXPECT(skip < token->span && written <= token->span - skip);
      if (skip < token->content.size()) {
        const std::uint64_t there = std::min<std::uint64_t>(written, token->content.size() - skip);
        moved.replace(0, there, token->content, skip, there);
      }
      prolong(tokens_[static_cast<std::size_t>(token - tokens_.data())]);
    }
    FUZZ_EXPECT(at < content.size());
    const std::uint64_t kept = std::min<std::uint64_t>(written, content.size() - at);
    content.replace(at, kept, moved, 0, kept);
  }

  // Using a token renews it, though not for a small gain.
  void prolong(Token& token) const {
    const std::int64_t due = clock_.now_ns() + token.ttl_ns;
    if (due - token.due_ns >= std::min(kNsPerSecond, token.ttl_ns / 8)) {
      token.due_ns = due;
    }
  }

  void drop(Input& in) {
    if (tokens_.empty()) {
      return;
    }
    Token& token = tokens_[in.below(std::min<std::size_t>(tokens_.size(), 256))];
    const auto fields = proto::decode(token.bytes);
    if (!fields) {
      return;
    }
    const bool live = !token.dropped && clock_.now_ns() < token.due_ns;
    FUZZ_EXPECT(store_->tokens().drop(fields->id, kCaller.uid).has_value() == live);
    token.dropped = true;
  }

  void reopen() {
    must(store_->close());
    store_.reset();
    store_ = must(sample_.open(device_->handle(), clock_, false));
  }

  static constexpr OffloadCaller kCaller{.uid = 7, .readable = true, .writable = true};

  const StoreSample& sample_;
  std::unique_ptr<FaultDevice> device_;
  ManualClock clock_{StoreSample::kNow};
  std::unique_ptr<Store> store_;
  std::array<std::string, 3> contents_;
  std::vector<Token> tokens_;
};

void run(Input in) {
  static const StoreSample sample(StoreSample::Content::kEmptyFiles);
  World world(sample);
  const bool close = in.below(4) == 3;
  for (std::size_t left = 40; left > 0 && !in.empty(); --left) {
    world.step(in);
  }
  world.finish(close);
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
