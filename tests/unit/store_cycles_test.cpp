// Opening and closing a store again and again takes no descriptor and no thread for good.
// ODX_LONG=1: a thousand times.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <thread>

#include "name_world.hpp"

namespace odx {
namespace {

using test::must;
using test::NameWorld;

struct Holdings {
  std::ptrdiff_t descriptors = 0;
  std::ptrdiff_t threads = 0;
  bool operator==(const Holdings&) const = default;
};

std::ptrdiff_t entries_of(const char* directory) {
  return std::ranges::distance(std::filesystem::directory_iterator(directory));
}

Holdings holdings() { return {entries_of("/proc/self/fd"), entries_of("/proc/self/task")}; }

// A thread that was joined, or that the kernel ran for an io_uring, may be seen for a moment more.
bool settles_at(const Holdings& wanted) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  while (!(holdings() == wanted)) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

TEST_CASE("a store that is closed holds nothing") {
  const char* wanted = std::getenv("ODX_LONG");
  const int cycles = wanted != nullptr && *wanted != '0' ? 1000 : 20;
  NameWorld world;
  const InodeNo file = world.file(kRootInode, "file");
  const auto write = [&] {
    must(world.files().write(file, FileOffset(0), std::as_bytes(std::span("something", 9))));
    must(world.names().sync());
  };
  write();
  const Holdings open = holdings();
  world.close();
  const Holdings closed = holdings();
  CHECK(closed.descriptors < open.descriptors);
  CHECK(closed.threads < open.threads);
  for (int i = 0; i < cycles; ++i) {
    world.open();
    write();
    REQUIRE(holdings().descriptors == open.descriptors);
    i % 3 == 0 ? world.crash() : world.close();
    REQUIRE(settles_at(closed));
  }
  world.require_clean();
}

}  // namespace
}  // namespace odx
