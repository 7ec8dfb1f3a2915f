// odx cp: by offload within a filesystem that answers the ioctls in this process, and between
// ordinary files and trees.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "base/fd.hpp"
#include "fake_odxfs.hpp"
#include "odx_cli_run.hpp"

using namespace odx::testing;
namespace fs = std::filesystem;

TEST_CASE_METHOD(InOdxfs, "cp: offloads, and -v says so") {
  const std::string data = pattern(1 << 20);
  write_file(from, data);
  const Run run = run_odx({"cp", "-v", from, to});
  CHECK(run.code == 0);
  CHECK(run.err.empty());
  CHECK(run.out == from + " -> " + to + ": 1.0 MiB by offload\n");
  CHECK(same(read_file(to), data));
  CHECK(fake.live_tokens() == 0);
}

TEST_CASE_METHOD(InOdxfs, "cp: falls back, and -v says why") {
  write_file(from, pattern(1 << 20));
  fake.interfere = [](auto, unsigned) { return std::optional(ODX_REASON_TOKEN_LIMIT); };
  const Run run = run_odx({"cp", "-v", from, to});
  CHECK(run.code == 0);
  CHECK(contains(run.out, "the limit of live tokens is reached"));
  CHECK(same(read_file(to), read_file(from)));
}

TEST_CASE_METHOD(InOdxfs, "cp --require-offload: no copy is left where it is refused") {
  write_file(from, pattern(1000));
  CHECK(run_odx({"cp", "--require-offload", from, to}).code == 0);
  CHECK(same(read_file(to), read_file(from)));
  fs::remove(to);
  fake.interfere = [](auto, unsigned) { return std::optional(ODX_REASON_IO_ERROR); };
  const Run run = run_odx({"cp", "--require-offload", from, to});
  CHECK(run.code == 1);
  CHECK(is_error_line(run.err, from));
  CHECK(contains(run.err, "not offloaded"));
  CHECK_FALSE(fs::exists(to));
}

TEST_CASE_METHOD(InOdxfs, "cp --no-offload and --threshold") {
  write_file(from, pattern(1 << 20));
  CHECK(run_odx({"cp", "--no-offload", from, to}).code == 0);
  CHECK(run_odx({"cp", "--threshold", "2M", from, to}).code == 0);
  CHECK(fake.reads == 0);
  CHECK(run_odx({"cp", "--threshold", "0", from, to}).code == 0);
  CHECK(fake.reads == 1);
}

TEST_CASE("cp: between ordinary files, into directories, several at once") {
  TempDir dir;
  write_file(dir.file("a"), pattern(300'000));
  write_file(dir.file("b"), "b");
  ::chmod(dir.file("b").c_str(), 0640);
  fs::create_directory(dir.file("d"));
  const Run run = run_odx({"cp", "-v", dir.file("a"), dir.file("b"), dir.file("d")});
  CHECK(run.code == 0);
  CHECK(contains(run.out, "(not within odxfs)"));
  CHECK(same(read_file(dir.file("d/a")), read_file(dir.file("a"))));
  CHECK(read_file(dir.file("d/b")) == "b");
  CHECK((stat_of(dir.file("d/b")).st_mode & 0777) == 0640);
  // Overwriting keeps the file, and takes all of the old content away.
  const auto inode = stat_of(dir.file("d/a")).st_ino;
  CHECK(run_odx({"cp", dir.file("b"), dir.file("d/a")}).code == 0);
  CHECK(read_file(dir.file("d/a")) == "b");
  CHECK(stat_of(dir.file("d/a")).st_ino == inode);

  Run bad = run_odx({"cp", dir.file("a"), dir.file("b"), dir.file("nowhere")});
  CHECK(bad.code == 1);
  CHECK(is_error_line(bad.err, dir.file("nowhere")));
  bad = run_odx({"cp", dir.file("a"), dir.file("a")});
  CHECK(bad.code == 1);
  CHECK(contains(bad.err, "same file"));
  CHECK(read_file(dir.file("a")).size() == 300'000);
  bad = run_odx({"cp", dir.file("d"), dir.file("e")});
  CHECK(bad.code == 1);
  CHECK(contains(bad.err, "directory"));
  CHECK(run_odx({"cp", dir.file("b"), dir.file("d") + "/"}).code == 0);
  CHECK(run_odx({"cp", dir.file("b"), dir.file("new") + "/"}).code == 1);
}

TEST_CASE("cp: goes on after an error with one file") {
  TempDir dir;
  write_file(dir.file("a"), "a");
  write_file(dir.file("c"), "c");
  fs::create_directory(dir.file("d"));
  const Run run = run_odx({"cp", dir.file("a"), dir.file("b"), dir.file("c"), dir.file("d")});
  CHECK(run.code == 1);
  CHECK(is_error_line(run.err, dir.file("b")));
  CHECK(read_file(dir.file("d/a")) == "a");
  CHECK(read_file(dir.file("d/c")) == "c");
}

TEST_CASE("cp: keeps holes of ordinary files") {
  TempDir dir;
  write_file(dir.file("a"), "start");
  REQUIRE(::truncate(dir.file("a").c_str(), 64 << 20) == 0);
  CHECK(run_odx({"cp", dir.file("a"), dir.file("b")}).code == 0);
  CHECK(stat_of(dir.file("b")).st_size == 64 << 20);
  CHECK(stat_of(dir.file("b")).st_blocks * 512 < 1 << 20);
  CHECK(same(read_file(dir.file("a")), read_file(dir.file("b"))));
}

TEST_CASE(
    "cp -r: modes, times, symlinks, hard links, fifos, empty and unreadable-to-be directories") {
  TempDir dir;
  const std::string tree = dir.file("tree");
  fs::create_directories(tree + "/sub/deep");
  fs::create_directory(tree + "/empty");
  write_file(tree + "/file", pattern(300'000));
  write_file(tree + "/sub/tool", "#!/bin/sh\n");
  ::chmod((tree + "/sub/tool").c_str(), 04755);
  write_file(tree + "/sub/deep/secret", "s");
  ::chmod((tree + "/sub/deep/secret").c_str(), 0400);
  fs::create_symlink("sub/tool", tree + "/link");
  fs::create_symlink("nowhere", tree + "/dangling");
  fs::create_directory_symlink("sub", tree + "/dirlink");
  fs::create_hard_link(tree + "/file", tree + "/sub/again");
  fs::create_hard_link(tree + "/file", tree + "/zz");
  REQUIRE(::mkfifo((tree + "/fifo").c_str(), 0600) == 0);
  set_mtime(tree + "/file", 1'000'000'000, 123'456'789);
  set_mtime(tree + "/link", 1'000'000'001, 5);
  ::chmod((tree + "/sub/deep").c_str(), 0555);
  set_mtime(tree + "/sub/deep", 1'000'000'002, 6);
  set_mtime(tree + "/sub", 1'000'000'003, 7);
  set_mtime(tree, 1'000'000'004, 8);

  const std::string copy = dir.file("copy");
  const Run run = run_odx({"cp", "-r", tree, copy});
  CHECK(run.code == 0);
  CHECK(run.err.empty());
  std::size_t entries = 0;
  for (const auto& entry : fs::recursive_directory_iterator(tree)) {
    ++entries;
    const std::string a = entry.path().string();
    const std::string b = copy + a.substr(tree.size());
    CAPTURE(a);
    const auto was = stat_of(a);
    const auto is = stat_of(b);
    CHECK(is.st_mode == was.st_mode);
    CHECK(same_times(is, was));
    CHECK(is.st_uid == was.st_uid);
    if (S_ISREG(was.st_mode)) {
      CHECK(same(read_file(b), read_file(a)));
    } else if (S_ISLNK(was.st_mode)) {
      CHECK(fs::read_symlink(b) == fs::read_symlink(a));
    }
  }
  CHECK(entries == 12);
  CHECK(same_times(stat_of(copy), stat_of(tree)));
  CHECK(stat_of(copy + "/file").st_ino == stat_of(copy + "/sub/again").st_ino);
  CHECK(stat_of(copy + "/file").st_ino == stat_of(copy + "/zz").st_ino);
  CHECK(stat_of(copy + "/file").st_nlink == 3);

  // Once more over the first copy: the same result, and links are still links.
  CHECK(run_odx({"cp", "-r", tree + "/", copy + "/../copy2"}).code == 0);
  CHECK(run_odx({"cp", "-r", tree + "/.", copy}).code == 0);
  CHECK(stat_of(copy + "/file").st_nlink == 3);
  CHECK(fs::read_symlink(copy + "/link") == "sub/tool");
  CHECK_FALSE(fs::exists(copy + "/tree"));
  // Into an existing directory it goes under its own name.
  CHECK(run_odx({"cp", "-r", tree, copy}).code == 0);
  CHECK(fs::exists(copy + "/tree/sub/deep/secret"));
}

TEST_CASE("cp -r: a directory is not copied into itself") {
  TempDir dir;
  fs::create_directory(dir.file("a"));
  write_file(dir.file("a/file"), "x");
  const Run run = run_odx({"cp", "-r", dir.file("a"), dir.file("a/b")});
  CHECK(run.code == 1);
  CHECK(contains(run.err, "itself"));
  CHECK(read_file(dir.file("a/b/file")) == "x");
  CHECK_FALSE(fs::exists(dir.file("a/b/b")));
  const Run same_place = run_odx({"cp", "-r", dir.file("a") + "/.", dir.file("a")});
  CHECK(same_place.code == 1);
  CHECK(read_file(dir.file("a/file")) == "x");
}

TEST_CASE("cp -r: links that others put in its way are not followed, those that it is given are") {
  TempDir dir;
  const std::string tree = dir.file("tree");
  fs::create_directories(tree + "/dir");
  write_file(tree + "/dir/inner", "new");
  write_file(tree + "/file", "new");
  REQUIRE(::mkfifo((tree + "/pipe").c_str(), 0604) == 0);
  write_file(dir.file("victim"), "old");
  ::chmod(dir.file("victim").c_str(), 0600);
  fs::create_directory(dir.file("elsewhere"));

  const std::string copy = dir.file("copies") + "/tree";
  fs::create_directories(copy);
  for (const char* name : {"/file", "/pipe"}) {
    fs::create_symlink(dir.file("victim"), copy + name);
  }
  fs::create_symlink(dir.file("elsewhere"), copy + "/dir");
  const Run run = run_odx({"cp", "-r", tree, dir.file("copies")});
  CHECK(run.code == 1);
  CHECK(is_error_line(run.err, copy + "/dir"));
  CHECK(read_file(dir.file("victim")) == "old");
  CHECK(stat_of(dir.file("victim")).st_mode == (S_IFREG | 0600));
  CHECK(fs::is_empty(dir.file("elsewhere")));
  CHECK(S_ISREG(stat_of(copy + "/file").st_mode));
  CHECK(read_file(copy + "/file") == "new");
  CHECK(stat_of(copy + "/pipe").st_mode == (S_IFIFO | 0604));

  // A pipe where a file is to be is not waited for.
  fs::remove(copy + "/file");
  fs::remove(copy + "/dir");
  REQUIRE(::mkfifo((copy + "/file").c_str(), 0600) == 0);
  CHECK(is_error_line(run_odx({"cp", "-r", tree, dir.file("copies")}).err, copy + "/file"));

  fs::create_symlink(dir.file("elsewhere"), dir.file("into"));
  CHECK(run_odx({"cp", "-r", tree + "/.", dir.file("into")}).code == 0);
  CHECK(read_file(dir.file("elsewhere/dir/inner")) == "new");
  fs::create_symlink(dir.file("victim"), dir.file("over"));
  CHECK(run_odx({"cp", "-r", tree + "/file", dir.file("over")}).code == 0);
  CHECK(read_file(dir.file("victim")) == "new");
}

TEST_CASE("cp -r: a tree deeper than a path may be long") {
  TempDir dir;
  const std::string name(200, 'd');
  odx::Fd at(::open(dir.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(::mkdirat(at.get(), "tree", 0755) == 0);
  at.reset(::openat(at.get(), "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int depth = 0; depth < 40; ++depth) {
    REQUIRE(::mkdirat(at.get(), name.c_str(), 0755) == 0);
    at.reset(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  const odx::Fd file(::openat(at.get(), "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  REQUIRE(::write(file.get(), "deep", 4) == 4);
  const Run run = run_odx({"cp", "-r", "-v", dir.file("tree"), dir.file("copy")});
  CHECK(run.code == 0);
  CHECK(run.err.empty());
  CHECK(contains(run.out, "/file: "));
}
