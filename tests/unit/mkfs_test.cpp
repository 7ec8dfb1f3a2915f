// mkfs.odxfs and `odx check` as people call them.
#include "mkfs_main.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "must.hpp"
#include "odx_main.hpp"
#include "store/meta/keys.hpp"
#include "store/store.hpp"
#include "temp_dir.hpp"

namespace odx {
namespace {

using test::must;

struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};

Ran mkfs(const std::vector<std::string>& args) {
  std::ostringstream out;
  std::ostringstream err;
  const int code = cli::mkfs_main(args, out, err);
  return {code, out.str(), err.str()};
}

Ran check(std::vector<std::string> args) {
  args.insert(args.begin(), "check");
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  const int code = cli::odx_main(args, in, out, err);
  return {code, out.str(), err.str()};
}

bool is_one_line(const std::string& text) {
  return !text.empty() && text.find('\n') == text.size() - 1;
}

OpenOptions quiet() {
  OpenOptions options;
  options.background = false;
  return options;
}

TEST_CASE("mkfs makes what it was asked for") {
  const test::TempDir dir;
  const std::string store = dir.file("store");
  const Ran ran =
      mkfs({"--size", "64M", "--sector=4096", "--label", "my disk", "--journal", "2M", store});
  REQUIRE(ran.err.empty());
  REQUIRE(ran.code == 0);
  REQUIRE(is_one_line(ran.out));
  const Superblock super = must(read_superblock(store));
  REQUIRE(super.limit_blocks == (64ULL << 20) / kBlockBytes);
  REQUIRE(super.sector_bytes == 4096);
  REQUIRE(super.label == "my disk");
  REQUIRE(std::filesystem::file_size(store + "/journal") == 2U << 20);
  for (const std::string& part : {store, to_text(super.uuid), std::string("\"my disk\""),
                                  std::string("64.0 MiB"), std::string("4096")}) {
    REQUIRE(ran.out.find(part) != std::string::npos);
  }
  const auto opened = must(Store::open(store, quiet()));
  const InodePtr root = must(opened->names().get(kRootInode));
  REQUIRE(root->uid == ::geteuid());
  REQUIRE(root->gid == ::getegid());
  must(opened->close());
  REQUIRE(check({store}).code == 0);
}

TEST_CASE("mkfs has defaults") {
  const test::TempDir dir;
  const Ran ran = mkfs({dir.path(), "--journal=1M"});  // an empty directory will do
  REQUIRE(ran.code == 0);
  const Superblock super = must(read_superblock(dir.path()));
  REQUIRE(super.sector_bytes == 512);
  REQUIRE(super.label.empty());
  REQUIRE(super.limit_blocks > 0);
  REQUIRE(ran.out.find('"') == std::string::npos);
}

TEST_CASE("two stores differ") {
  const test::TempDir dir;
  REQUIRE(mkfs({"--journal=1M", dir.file("a")}).code == 0);
  REQUIRE(mkfs({"--journal=1M", dir.file("b")}).code == 0);
  const Uuid a = must(read_superblock(dir.file("a"))).uuid;
  REQUIRE(a != must(read_superblock(dir.file("b"))).uuid);
  REQUIRE((a[6] & 0xF0) == 0x40);
  REQUIRE((a[8] & 0xC0) == 0x80);
}

TEST_CASE("mkfs refuses what makes no sense, in one line") {
  const test::TempDir dir;
  const std::string store = dir.file("store");
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {store, "extra"},
      {"--sector", "500", store},
      {"--sector", "8192", store},
      {"--sector", "x", store},
      {"--size", "0", store},
      {"--size", "many", store},
      {"--size", "-1", store},
      {"--size", "99999999999999999999", store},
      {"--size", store},
      {"--label", std::string(32, 'x'), store},
      {"--journal", "4095", store},
      {"--journal", "1000000", store},
      {"--journal", "512K", store},
      {"--frobnicate", store},
      {"--siz", "64M", store},
  };
  for (const auto& args : wrong) {
    INFO(args.size() << (args.empty() ? "" : args[0]));
    const Ran ran = mkfs(args);
    REQUIRE(ran.code == 2);
    REQUIRE(ran.out.empty());
    REQUIRE(is_one_line(ran.err));
    REQUIRE(ran.err.find("mkfs.odxfs: ") == 0);
    REQUIRE_FALSE(std::filesystem::exists(store));
  }
}

TEST_CASE("mkfs fails where it cannot make a store, and leaves nothing") {
  const test::TempDir dir;
  const auto fails = [&](const std::vector<std::string>& args, const std::string& why) {
    const Ran ran = mkfs(args);
    REQUIRE(ran.code == 1);
    REQUIRE(ran.out.empty());
    REQUIRE(is_one_line(ran.err));
    INFO(ran.err);
    REQUIRE(ran.err.find(why) != std::string::npos);
  };
  SECTION("something is there") {
    std::ofstream(dir.file("precious")) << "data";
    fails({"--size=64M", dir.path()}, "not empty");
    REQUIRE(std::filesystem::exists(dir.file("precious")));
  }
  SECTION("a store is there") {
    const std::string store = dir.file("store");
    REQUIRE(mkfs({"--journal=1M", store}).code == 0);
    const Uuid uuid = must(read_superblock(store)).uuid;
    fails({"--journal=1M", store}, "not empty");
    REQUIRE(must(read_superblock(store)).uuid == uuid);
  }
  SECTION("a file is there") {
    std::ofstream(dir.file("file")) << "data";
    fails({"--journal=1M", dir.file("file")}, "Not a directory");
  }
  SECTION("no parent") { fails({"--journal=1M", dir.file("no/where")}, "No such file"); }
  SECTION("too small") {
    fails({"--size=1M", "--journal=1M", dir.file("store")}, "at least");
    REQUIRE_FALSE(std::filesystem::exists(dir.file("store")));
  }
}

TEST_CASE("mkfs explains itself") {
  const Ran help = mkfs({"--help"});
  REQUIRE(help.code == 0);
  for (const char* option : {"--size", "--sector", "--label", "--journal", "STORE"}) {
    REQUIRE(help.out.find(option) != std::string::npos);
  }
  const Ran version = mkfs({"--version"});
  REQUIRE(version.code == 0);
  REQUIRE(version.out.find("mkfs.odxfs ") == 0);
}

TEST_CASE("odx check") {
  const test::TempDir dir;
  const std::string store = dir.file("store");
  REQUIRE(mkfs({"--size=64M", "--journal=1M", store}).code == 0);
  SECTION("clean") {
    const Ran text = check({store});
    REQUIRE(text.code == 0);
    REQUIRE(is_one_line(text.out));
    REQUIRE(text.out.find(store + ": clean") == 0);
    const Ran json = check({"--json", "--data", store});
    REQUIRE(json.code == 0);
    const auto parsed = nlohmann::json::parse(json.out);
    REQUIRE(parsed["clean"] == true);
    REQUIRE(parsed["inodes"] == 1);
    REQUIRE(parsed["problems"].empty());
  }
  SECTION("problems") {
    const Superblock super = must(read_superblock(store));
    const auto meta = must(MetaStore::open(
        store, super.uuid, MetaOptions{}, [] { return Result<void>{}; }, [](TxnSeq) {}));
    must(meta->commit({{keys::orphan(InodeNo(7)), std::string(1, '\0')}}));
    must(meta->commit({{keys::orphan(InodeNo(8)), std::string(1, '\0')}}));
    must(meta->close());
    const Ran text = check({store});
    REQUIRE(text.code == 4);
    REQUIRE(text.out.find("orphan record of inode 7, which does not exist\n") == 0);
    REQUIRE(text.out.find(store + ": 3 PROBLEMS") != std::string::npos);
    const Ran json = check({"--json", store});
    REQUIRE(json.code == 4);
    const auto parsed = nlohmann::json::parse(json.out);
    REQUIRE(parsed["clean"] == false);
    REQUIRE(parsed["problem_count"] == 3);
    REQUIRE(parsed["problems"].size() == 3);
  }
  SECTION("not checked") {
    const auto opened = must(Store::open(store, quiet()));
    const Ran busy = check({store});
    REQUIRE(busy.code == 8);
    REQUIRE(busy.out.empty());
    REQUIRE(is_one_line(busy.err));
    must(opened->close());
    REQUIRE(check({dir.file("nowhere")}).code == 8);
  }
  SECTION("wrong usage") {
    REQUIRE(check({}).code == 16);
    REQUIRE(check({store, store}).code == 16);
    REQUIRE(check({"--frobnicate", store}).code == 16);
    REQUIRE(check({"--help"}).code == 0);
  }
}

}  // namespace
}  // namespace odx
