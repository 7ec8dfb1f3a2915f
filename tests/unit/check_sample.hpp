// What the tests of check share: a store with everything in it, and copies of it that are damaged
// behind the store's back.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "name_world.hpp"
#include "odx/offload.h"
#include "store/check/check.hpp"
#include "store/inode/directory.hpp"
#include "store/meta/keys.hpp"

namespace odx::test {

// A store, closed, with fragmented files, clones, a token, an orphan and a reclaim queue.
class Sample {
 public:
  static const Sample& get() {
    static Sample sample;
    return sample;
  }

  InodeNo big, clone, part, small, empty, orphan, dir_a, dir_b, inner;
  Uuid uuid{};
  std::string dir;

 private:
  Sample() {
    Names& names = world_.names();
    uuid = world_.core().super.uuid;
    dir = world_.store_dir();
    dir_a = world_.mkdir(kRootInode, "a");
    dir_b = world_.mkdir(kRootInode, "b");
    inner = world_.mkdir(dir_a, "inner");
    empty = world_.file(dir_a, "empty");
    small = world_.file(dir_a, "small");
    must(names.link(small, dir_b, "other name"));
    must(names.set_xattr(small, "user.one", "1", Names::XattrMode::kAny));
    must(names.set_xattr(small, "user.two", "2", Names::XattrMode::kAny));
    must(names.create(dir_b, "link", NameWorld::symlink("../a")));
    write(small, 0, 10000);

    big = world_.file(kRootInode, "big");
    fragment(big, 300);
    clone = world_.file(kRootInode, "clone");
    copy(big, 0, clone, 0, UINT32_MAX);
    part = world_.file(kRootInode, "part");
    copy(big, 123457, part, 0, 1000000);
    write(clone, 50000, 5000);
    take_token(big, 65536, 1 << 20);

    orphan = world_.file(kRootInode, "gone");
    fragment(orphan, 20);
    must(names.unlink(kRootInode, "gone"));
    const InodeNo dropped = world_.file(kRootInode, "dropped");
    fragment(dropped, 100);
    must(names.unlink(kRootInode, "dropped"));
    must(names.reap(dropped));
    world_.close();
  }

  void write(InodeNo ino, std::uint64_t at, std::size_t bytes) {
    std::vector<std::byte> data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
      data[i] = static_cast<std::byte>(at + i * 7 + 1);
    }
    must(world_.files().write(ino, FileOffset(at), data));
  }
  // Pieces with holes between them.
  void fragment(InodeNo ino, std::uint64_t pieces) {
    for (std::uint64_t i = 0; i < pieces; ++i) {
      write(ino, i * 8192, 4096);
    }
  }
  void copy(InodeNo from, std::uint64_t at, InodeNo to, std::uint64_t to_at, std::uint64_t bytes) {
    must(world_.files().copy_range(from, FileOffset(at), to, FileOffset(to_at), bytes));
  }
  void take_token(InodeNo ino, std::uint64_t at, std::uint64_t bytes) {
    odx_offload call{};
    call.body.read_in.size = sizeof(odx_read_input);
    call.body.read_in.file_offset = at;
    call.body.read_in.copy_length = bytes;
    OffloadCaller caller;
    caller.readable = true;
    REQUIRE(world_.store().tokens().offload_read(ino, caller, call) == 0);
  }

  NameWorld world_;
};

// A copy of the sample whose records are changed behind the store's back.
class Damaged {
 public:
  Damaged() {
    namespace fs = std::filesystem;
    for (const auto& entry : fs::directory_iterator(Sample::get().dir)) {
      if (entry.path().filename() != "data") {
        fs::copy(entry.path(), path(entry.path().filename()), fs::copy_options::recursive);
      }
    }
    fs::create_directory_symlink(Sample::get().dir + "/data", path("data"));
    meta_ = must(MetaStore::open(
        dir_.path(), Sample::get().uuid, MetaOptions{}, [] { return Result<void>{}; },
        [](TxnSeq) {}));
  }

  [[nodiscard]] std::string path(const std::string& name) const { return dir_.file(name); }
  MetaStore& meta() { return *meta_; }

  void put(const std::string& key, const std::string& value) {
    must(meta_->commit({{key, value}}));
  }
  void erase(const std::string& key) { must(meta_->commit({{key, std::nullopt}})); }
  std::string value(const std::string& key) {
    const auto found = must(meta_->get(key));
    REQUIRE(found);
    return *found;
  }
  std::vector<KeyValue> table(char table) {
    return must(meta_->scan(keys::table_begin(table), keys::table_end(table), 100000));
  }
  Inode inode(InodeNo ino) { return must(Inode::decode(ino, value(keys::inode(ino)))); }
  void put(const Inode& inode) { put(keys::inode(inode.ino), inode.encode()); }
  DirectoryEntry entry(InodeNo dir, std::string_view name) {
    const auto found = must(find_entry(*meta_, Sample::get().uuid, dir, name));
    REQUIRE(found);
    return *found;
  }
  void put_entry(InodeNo dir, std::uint64_t cookie, std::string_view name, InodeNo ino,
                 std::uint32_t type) {
    std::string value;
    put_le(value, ino.value());
    put_le(value, type);
    put(keys::dirent(dir, cookie), value.append(name));
  }

  CheckReport check(const CheckOptions& options = {}) {
    must(meta_->close());
    return must(check_store(dir_.path(), options));
  }
  // Exactly these problems, in any order; each given by a part of it.
  void require(std::vector<std::string> expected) {
    const CheckReport report = check();
    for (const std::string& problem : report.problems) {
      UNSCOPED_INFO(problem);
      const auto at = std::find_if(expected.begin(), expected.end(), [&](const std::string& part) {
        return problem.find(part) != std::string::npos;
      });
      REQUIRE(at != expected.end());
      expected.erase(at);
    }
    INFO((expected.empty() ? "" : "missing: " + expected.front()));
    REQUIRE(expected.empty());
    REQUIRE_FALSE(report.clean());
  }
  // Among others, as the damage has consequences.
  void require_among(const std::string& expected) {
    const CheckReport report = check();
    for (const std::string& problem : report.problems) {
      UNSCOPED_INFO(problem);
    }
    REQUIRE(std::any_of(report.problems.begin(), report.problems.end(), [&](const auto& problem) {
      return problem.find(expected) != std::string::npos;
    }));
  }

 private:
  TempDir dir_;
  std::unique_ptr<MetaStore> meta_;
};

inline std::string counted(std::uint64_t n) {
  std::string value;
  put_le(value, n);
  return value;
}

inline std::string text(InodeNo ino) { return std::to_string(ino.value()); }

}  // namespace odx::test
