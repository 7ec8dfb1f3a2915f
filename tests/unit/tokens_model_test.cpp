// Random calls against a model that is nothing but byte strings: lengths and contents must agree,
// whatever is done to the files in between.
#include <rapidcheck.h>

#include <algorithm>

#include "unit/token_world.hpp"

namespace odx::test {
namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint64_t kMaxSize = 96 << 10;

struct ModelToken {
  odx_token token;
  std::string bytes;  // whole sectors
  bool zero = false;
};

class Model {
 public:
  Model(TokenWorld& world, const std::string& prefix) : world_(world) {
    for (unsigned i = 0; i < 2; ++i) {
      files_[i].bytes = pattern(20'000 + 777 * i, i);
      files_[i].ino = world.file(prefix + std::to_string(i), files_[i].bytes);
    }
  }

  void step(std::uint32_t what, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    File& file = files_[what / 16 % 2];
    std::string& bytes = file.bytes;
    switch (what % 8) {
      case 0: {  // write
        const std::uint64_t at = a % (bytes.size() + 1);
        const std::string piece = pattern(1 + b % 20'000, static_cast<unsigned>(c));
        world_.write_bytes(file.ino, at, piece);
        bytes.resize(std::max(bytes.size(), at + piece.size()));
        bytes.replace(at, piece.size(), piece);
        break;
      }
      case 1:
        bytes.resize(a % kMaxSize);
        world_.truncate(file.ino, bytes.size());
        break;
      case 2: {  // punch
        if (bytes.empty()) {
          break;
        }
        const std::uint64_t at = a % bytes.size();
        const std::uint64_t count = std::min(1 + b % 30'000, bytes.size() - at);
        world_.punch(file.ino, at, count);
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), count, '\0');
        break;
      }
      case 3:
      case 4:
        read(file, a % kMaxSize / kSector * kSector, (1 + b % 64) * kSector);
        break;
      default:
        if (!tokens_.empty()) {
          write(file, tokens_[c % tokens_.size()], a % kMaxSize / kSector * kSector,
                (1 + b % 64) * kSector, c / 7 % 64 * kSector);
        }
        break;
    }
    RC_ASSERT(world_.content(file.ino) == bytes);
  }

 private:
  struct File {
    InodeNo ino;
    std::string bytes;
  };

  void read(const File& file, std::uint64_t at, std::uint64_t length) {
    const Reply reply = world_.read(file.ino, at, length);
    if (at >= file.bytes.size()) {
      RC_ASSERT(reply.error == ENXIO);
      return;
    }
    const std::uint64_t expected = std::min(length, round_up(file.bytes.size(), kSector) - at);
    RC_ASSERT(reply.error == 0);
    RC_ASSERT(reply.transfer_length() == expected);
    ModelToken token{reply.token(), file.bytes.substr(at, expected), is_zero_token(reply.token())};
    token.bytes.resize(expected);
    if (token.zero) {
      RC_ASSERT(token.bytes == std::string(expected, '\0'));
      RC_ASSERT(at + expected <= file.bytes.size());
    }
    if (reply.zeros_beyond()) {
      RC_ASSERT(std::all_of(file.bytes.begin() + static_cast<std::ptrdiff_t>(
                                                     std::min(at + expected, file.bytes.size())),
                            file.bytes.end(), [](char byte) { return byte == '\0'; }));
    }
    tokens_.push_back(std::move(token));
  }

  void write(File& file, const ModelToken& token, std::uint64_t at, std::uint64_t length,
             std::uint64_t token_at) {
    const Reply reply = world_.write(file.ino, at, length, token.token, token_at);
    if (at >= file.bytes.size()) {
      RC_ASSERT(reply.error == ENXIO);
      return;
    }
    if (!token.zero && token_at >= token.bytes.size()) {
      RC_ASSERT(reply.error == EINVAL);
      return;
    }
    std::string image =
        token.zero ? std::string(length, '\0') : token.bytes.substr(token_at, length);
    image.resize(std::min(image.size(), round_up(file.bytes.size(), kSector) - at));
    RC_ASSERT(reply.error == 0);
    RC_ASSERT(reply.written() == image.size());
    RC_ASSERT(reply.shared() <= image.size());
    image.resize(std::min(image.size(), file.bytes.size() - at));
    file.bytes.replace(at, image.size(), image);
  }

  TokenWorld& world_;
  std::array<File, 2> files_;
  std::vector<ModelToken> tokens_;
};

TEST_CASE("the controls agree with a model of byte strings", "[token][model]") {
  TokenWorld world({.limit_bytes = 128 << 20});
  unsigned round = 0;
  const bool held = rc::check([&] {
    Model model(world, "m" + std::to_string(++round) + "-");
    const int steps = *rc::gen::inRange(1, 40);
    for (int i = 0; i < steps; ++i) {
      model.step(*rc::gen::inRange<std::uint32_t>(0, 32), *rc::gen::arbitrary<std::uint32_t>(),
                 *rc::gen::arbitrary<std::uint32_t>(), *rc::gen::arbitrary<std::uint32_t>());
    }
  });
  REQUIRE(held);
  // Files and tokens of all rounds are still there; without them every block must be free.
  for (const DirectoryEntry& entry : ok(world.store().names().list(kRootInode, 0, 1'000'000))) {
    world.remove(entry.name);
  }
  for (const odx_token_info& info : ok(world.tokens().list({}, 1'000'000, 0))) {
    TokenId id;
    std::copy_n(info.id, id.size(), id.begin());
    ok(world.tokens().drop(id, 0));
  }
  world.settle();
  const SpaceStats space = world.core().space.stats();
  REQUIRE(space.free_blocks == space.total_blocks);
  world.close();
}

}  // namespace
}  // namespace odx::test
