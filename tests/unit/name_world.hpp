// A small store with a clock that is moved by hand, for tests of names and of check.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "must.hpp"
#include "store/check/check.hpp"
#include "store/store.hpp"
#include "temp_dir.hpp"

namespace odx::test {

// The errno of a failure, 0 of success.
template <class T>
int err(const Result<T>& result) {
  return result ? 0 : result.error().errno_value();
}

class NameWorld {
 public:
  NameWorld() {
    // Formatting waits for the disk many times; a copy does not.
    static const Fresh fresh;
    std::filesystem::copy(fresh.dir.file("store"), store_dir(),
                          std::filesystem::copy_options::recursive);
    open();
  }

  void open() {
    OpenOptions options;
    options.background = false;
    options.clock = &clock;
    options.meta.flush_interval = std::chrono::milliseconds(0);
    store_ = must(Store::open(store_dir(), std::move(options)));
  }
  void close() {
    must(store_->close());
    store_.reset();
  }
  // As after a crash of the process, with everything before it durable.
  void crash() {
    must(store_->names().sync());
    store_.reset();
  }
  void reopen() {
    close();
    open();
  }

  [[nodiscard]] std::string store_dir() const { return dir_.file("store"); }
  Store& store() { return *store_; }
  Names& names() { return store_->names(); }
  Files& files() { return store_->files(); }
  Core& core() { return store_->core(); }

  // The store must be closed.
  CheckReport check(bool data = false) {
    CheckOptions options;
    options.data = data;
    return must(check_store(store_dir(), options));
  }
  void require_clean(bool data = false) {
    const CheckReport report = check(data);
    for (const std::string& problem : report.problems) {
      UNSCOPED_INFO(problem);
    }
    REQUIRE(report.clean());
  }

  static NewInode regular(std::uint32_t permissions = 0644) {
    NewInode what;
    what.mode = S_IFREG | permissions;
    return what;
  }
  static NewInode directory(std::uint32_t permissions = 0755) {
    NewInode what;
    what.mode = S_IFDIR | permissions;
    return what;
  }
  static NewInode symlink(std::string target) {
    NewInode what;
    what.mode = S_IFLNK | 0777;
    what.symlink_target = std::move(target);
    return what;
  }

  InodeNo file(InodeNo dir, std::string_view name) {
    return must(names().create(dir, name, regular()))->ino;
  }
  InodeNo mkdir(InodeNo dir, std::string_view name) {
    return must(names().create(dir, name, directory()))->ino;
  }
  InodePtr get(InodeNo ino) { return must(names().get(ino)); }

  ManualClock clock{1'700'000'000 * kNsPerSecond};

 private:
  struct Fresh {
    Fresh() {
      FormatOptions format;
      format.limit_bytes = 64ULL << 20;
      format.journal_bytes = 1ULL << 20;
      must(Store::format(dir.file("store"), format));
    }
    TempDir dir;
  };
  TempDir dir_;
  std::unique_ptr<Store> store_;
};

// The names in a directory, sorted, gathered in listings of `at_once` entries.
inline std::vector<std::string> listed(Names& names, InodeNo dir, std::size_t at_once = 1000) {
  std::vector<std::string> found;
  std::uint64_t cookie = 0;
  for (;;) {
    const auto entries = must(names.list(dir, cookie, at_once));
    for (const DirectoryEntry& entry : entries) {
      REQUIRE(entry.cookie > cookie);
      REQUIRE(entry.cookie >= 16);
      REQUIRE(entry.cookie <= INT64_MAX);
      cookie = entry.cookie;
      found.push_back(entry.name);
    }
    if (entries.size() < at_once) {
      std::sort(found.begin(), found.end());
      return found;
    }
  }
}

}  // namespace odx::test
