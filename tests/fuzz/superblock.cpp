// The super block: two copies, each sound but for what the input changes in it.
#include "store/superblock.hpp"

#include "base/codec.hpp"
#include "base/crc32c.hpp"
#include "folder.hpp"
#include "input.hpp"

namespace odx::fuzz {

namespace {

constexpr std::size_t kImageBytes = 4096;
constexpr std::size_t kCrcAt = kImageBytes - 4;

Superblock sample(std::uint64_t generation) {
  Superblock super;
  super.generation = generation;
  super.uuid = {1, 2, 3};
  super.label = "fuzz";
  super.limit_blocks = 4096;
  return super;
}

bool same(const Superblock& a, const Superblock& b) {
  return a.uuid == b.uuid && a.label == b.label && a.sector_bytes == b.sector_bytes &&
         a.limit_blocks == b.limit_blocks && a.compat == b.compat && a.ro_compat == b.ro_compat &&
         a.incompat == b.incompat && a.generation == b.generation;
}

void seal(std::string& image) {
  if (image.size() >= kImageBytes) {
    std::string crc;
    put_le(crc, crc32c(std::string_view(image).substr(0, kCrcAt)));
    image.replace(kCrcAt, crc.size(), crc);
  }
}

void run(Input in) {
  static const Folder folder;
  static const Folder other;
  for (const char* name : {"SUPER.0", "SUPER.1"}) {
    const std::uint8_t flags = in.byte();
    std::filesystem::remove(folder.file(name));
    if ((flags & 1U) != 0) {
      continue;
    }
    must(write_superblock(folder.path(), sample(name[6] == '0' ? 2 : 1)));
    if ((flags & 2U) != 0) {
      std::string image = read_file(folder.file(name));
      for (unsigned changes = 1U + (flags >> 5U); changes > 0; --changes) {
        in.damage(image);
      }
      if ((flags & 4U) != 0) {
        seal(image);
      }
      write_file(folder.file(name), image);
    }
  }
  const Result<Superblock> super = read_superblock(folder.path());
  if (!super) {
    const int error = super.error().errno_value();
    FUZZ_EXPECT(error == ENOENT || error == EIO || error == ENOTSUP);
    return;
  }
  // What could be read can be written, and says the same then.
  for (const char* name : {"SUPER.0", "SUPER.1"}) {
    std::filesystem::remove(other.file(name));
  }
  must(write_superblock(other.path(), *super));
  FUZZ_EXPECT(same(must(read_superblock(other.path())), *super));
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
