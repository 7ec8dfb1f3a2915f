// Names from many threads at once: only errors that the rules allow, and a clean check at the end.
#include <algorithm>
#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "name_world.hpp"

namespace odx {
namespace {

using test::err;
using test::must;
using test::NameWorld;

// What can happen to somebody whose names change under his hands.
bool is_expected(int error) {
  static const std::set<int> expected = {0,      ENOENT, EEXIST,    ENOTDIR, EISDIR,
                                         EINVAL, EPERM,  ENOTEMPTY, ENODATA};
  return expected.contains(error);
}

class Crowd {
 public:
  explicit Crowd(NameWorld& world) : names_(world.names()) {
    dirs_.push_back(kRootInode);
    for (const char* name : {"a", "b", "c"}) {
      dirs_.push_back(world.mkdir(kRootInode, name));
    }
    dirs_.push_back(world.mkdir(dirs_[1], "d"));
  }

  void change(unsigned seed, int count) {
    std::mt19937 random(seed);
    const auto below = [&](std::size_t n) { return random() % n; };
    const auto dir = [&] { return dirs_[below(dirs_.size())]; };
    const auto name = [&] { return std::string(1, static_cast<char>('a' + below(6))); };
    for (int i = 0; i < count; ++i) {
      switch (below(8)) {
        case 0:
        case 1:
          see(names_.create(dir(), name(),
                            below(3) == 0 ? NameWorld::directory() : NameWorld::regular()));
          break;
        case 2:
          see_lost(names_.unlink(dir(), name()));
          break;
        case 3:
          see_lost(names_.rmdir(dir(), name()));
          break;
        case 4:
          if (const auto found = names_.lookup(dir(), name())) {
            see(names_.link((*found)->ino, dir(), name()));
          }
          break;
        case 5:
          if (const auto found = names_.lookup(dir(), name())) {
            see(names_.set_xattr((*found)->ino, "user." + name(), "v", Names::XattrMode::kAny));
            see(names_.remove_xattr((*found)->ino, "user." + name()));
          }
          break;
        default:
          see_lost(names_.rename(dir(), name(), dir(), name(), static_cast<RenameMode>(below(3))));
      }
    }
  }

  // Every entry that is listed or found is whole.
  void look(const std::atomic<bool>& stop) {
    while (!stop) {
      for (const InodeNo dir : dirs_) {
        const auto entries = names_.list(dir, 0, 100);
        see(entries);
        if (!entries) {
          continue;
        }
        std::set<std::string> seen;
        for (const DirectoryEntry& entry : *entries) {
          problems_ += seen.insert(entry.name).second ? 0 : 1;
          const auto inode = names_.get(entry.ino);
          see(inode);
          problems_ += inode && ((*inode)->mode & S_IFMT) != entry.mode ? 1 : 0;
          const auto found = names_.lookup(dir, entry.name);
          see(found);
          if (found) {
            see(names_.list_xattrs((*found)->ino));
          }
        }
        see(names_.lookup(dir, ".."));
      }
    }
  }

  [[nodiscard]] int problems() const { return problems_; }

 private:
  template <class T>
  void see(const Result<T>& result) {
    problems_ += is_expected(err(result)) ? 0 : 1;
  }
  // Two may well see the same inode go.
  void see_lost(const Result<InodePtr>& result) {
    see(result);
    if (result && *result && (*result)->nlink == 0) {
      const InodeNo ino = (*result)->ino;
      std::thread other([&] { see(names_.reap(ino)); });
      see(names_.reap(ino));
      other.join();
      problems_ += err(names_.get(ino)) == ENOENT ? 0 : 1;
    }
  }

  Names& names_;
  std::vector<InodeNo> dirs_;
  std::atomic<int> problems_{0};
};

TEST_CASE("many threads in the same directories") {
  NameWorld world;
  Crowd crowd(world);
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] { crowd.look(stop); });
  }
  std::vector<std::thread> writers;
  for (unsigned seed = 1; seed <= 4; ++seed) {
    writers.emplace_back([&crowd, seed] { crowd.change(seed, 2000); });
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  stop = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  REQUIRE(crowd.problems() == 0);
  world.close();
  world.require_clean();
}

TEST_CASE("what is gone stays gone, whoever looks while it goes") {
  NameWorld world;
  Names& names = world.names();
  std::atomic<std::uint64_t> victim{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        (void)names.get(InodeNo(victim));
      }
    });
  }
  int ghosts = 0;
  for (int i = 0; i < 20000; ++i) {
    const InodeNo ino = world.file(kRootInode, "f");
    victim = ino.value();
    must(names.unlink(kRootInode, "f"));
    must(names.reap(ino));
    ghosts += err(names.get(ino)) == ENOENT ? 0 : 1;
  }
  stop = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  REQUIRE(ghosts == 0);
  world.close();
  world.require_clean();
}

}  // namespace
}  // namespace odx
