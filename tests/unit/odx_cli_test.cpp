// The odx command but for cp: parsing, help, errors; and the offload commands against a filesystem
// that answers the ioctls in this process.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "fake_odxfs.hpp"
#include "odx/odx.h"
#include "odx_cli_run.hpp"
#include "odx_main.hpp"
#include "text.hpp"

using namespace odx::testing;
using namespace odx::cli;
namespace fs = std::filesystem;

// ---- numbers ----

TEST_CASE("sizes: digits and suffixes, nothing else") {
  CHECK(parse_size("0") == 0u);
  CHECK(parse_size("512") == 512u);
  CHECK(parse_size("4K") == 4096u);
  CHECK(parse_size("4k") == 4096u);
  CHECK(parse_size("4KiB") == 4096u);
  CHECK(parse_size("3M") == 3u << 20);
  CHECK(parse_size("2G") == 2ULL << 30);
  CHECK(parse_size("1T") == 1ULL << 40);
  CHECK(parse_size("15E") == 15ULL << 60);
  CHECK(parse_size("18446744073709551615") == UINT64_MAX);
  for (const char* bad : {"", "K", "-1", "+1", " 1", "1 ", "1X", "1KB", "1KK", "0x10", "1.5K",
                          "16E", "18446744073709551616", "99999999999999999999K", "1ki"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_size(bad).has_value());
  }
  CHECK(parse_number("60000") == 60000u);
  CHECK_FALSE(parse_number("1K").has_value());
}

TEST_CASE("sizes and times for people") {
  CHECK(size_text(0) == "0 B");
  CHECK(size_text(1023) == "1023 B");
  CHECK(size_text(1024) == "1.0 KiB");
  CHECK(size_text(1536) == "1.5 KiB");
  CHECK(size_text((1 << 20) - 1) == "1.0 MiB");
  CHECK(size_text(5ULL << 30) == "5.0 GiB");
  CHECK(size_text(UINT64_MAX) == "16.0 EiB");
  CHECK(duration_text(7) == "0:07");
  CHECK(duration_text(754) == "12:34");
  CHECK(duration_text(3723) == "1:02:03");
}

TEST_CASE("hex: there and back, and nothing else") {
  const std::uint8_t bytes[3] = {0x00, 0xAF, 0x10};
  CHECK(hex(bytes) == "00af10");
  std::uint8_t back[3];
  CHECK(parse_hex("00aF10", back));
  CHECK(std::equal(bytes, bytes + 3, back));
  for (const char* bad : {"", "00af1", "00af100", "00ag10", "0 af10", "-1af10"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_hex(bad, back));
  }
}

TEST_CASE("progress: a line that fits, with rate and time left") {
  CHECK(progress_line(0, 1000, 0, 79).starts_with("  0% ["));
  const std::string half = progress_line(1ULL << 30, 2ULL << 30, 4.0, 99);
  CHECK(half.starts_with(" 50% [###############               ] 1.0 GiB of 2.0 GiB"));
  CHECK(contains(half, "256.0 MiB/s"));
  CHECK(contains(half, "0:04 left"));
  CHECK(contains(progress_line(5, 5, 1, 79), "100%"));
  // More than there was to do: files grow.
  CHECK(progress_line(9, 5, 1, 79).starts_with("100%"));
  for (std::size_t width = 0; width < 120; ++width) {
    REQUIRE(progress_line(1ULL << 40, 3ULL << 40, 1e5, width).size() <= width);
  }
}

// ---- the command line ----

TEST_CASE("help and version") {
  CHECK(run_odx({"--version"}).out.starts_with("odx "));
  CHECK(run_odx({"--version"}).code == 0);
  const Run help = run_odx({"--help"});
  CHECK(help.code == 0);
  CHECK(help.err.empty());
  for (const char* name : {"cp", "read", "write", "zero", "token", "stat", "unmount"}) {
    CAPTURE(name);
    CHECK(contains(help.out, std::string("  ") + name + " "));
    const Run own = run_odx({name, "--help"});
    CHECK(own.code == 0);
    CHECK(own.err.empty());
    CHECK(own.out.starts_with(std::string("Usage: odx ") + name + " "));
    CHECK(run_odx({name, "-h"}).out == own.out);
  }
  for (const char* name : {"list", "show", "drop"}) {
    CHECK(run_odx({"token", name, "--help"}).out.starts_with("Usage: odx token "));
  }
}

TEST_CASE("wrong usage: exit code 2, one line, nothing on standard output") {
  const std::vector<std::vector<std::string>> lines{
      {"frobnicate"},
      {"--frobnicate"},
      {"cp"},
      {"cp", "a"},
      {"cp", "--no-offload", "--require-offload", "a", "b"},
      {"cp", "--threshold", "12Q", "a", "b"},
      {"cp", "--recur", "a", "b"},  // no abbreviations
      {"cp", "--frobnicate", "a", "b"},
      {"read"},
      {"read", "a", "b"},
      {"read", "--offset", "x", "a"},
      {"read", "--offset", "-1", "a"},
      {"read", "--offset", "a"},
      {"read", "--ttl", "4294967296", "a"},
      {"read", "--ttl", "1K", "a"},
      {"write"},
      {"write", "--length", "1.5", "a"},
      {"zero", "a"},
      {"zero", "--offset", "0", "a"},
      {"zero", "--length", "512", "a"},
      {"zero", "--offset", "0", "--length", "512"},
      {"token", "frobnicate"},
      {"token", "show"},
      {"token", "drop"},
      {"token", "list", "operand"},
      {"stat", "a", "b"},
      {"unmount"},
      {"unmount", "a", "b"},
  };
  for (const auto& line : lines) {
    std::string shown;
    for (const auto& word : line) {
      shown += word + ' ';
    }
    CAPTURE(shown);
    const Run run = run_odx(line);
    CHECK(run.code == 2);
    CHECK(run.out.empty());
    CHECK(run.err.starts_with("odx: "));
    CHECK(std::count(run.err.begin(), run.err.end(), '\n') == 1);
  }
  CHECK(run_odx({}).code == 2);
  CHECK(run_odx({"token"}).code == 2);
}

TEST_CASE("output that cannot be written is an error") {
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  out.setstate(std::ios::badbit);
  CHECK(odx_main({"--version"}, in, out, err) == 1);
  CHECK_FALSE(err.str().empty());
}

TEST_CASE("files that are not there, or not on odxfs: one clear line, exit code 1") {
  TempDir dir;
  const std::string file = dir.file("file");
  write_file(file, std::string(8192, 'x'));
  odx_token token;
  odx_zero_token(&token);
  const std::string bytes(reinterpret_cast<const char*>(&token), sizeof token);
  const std::string id(32, 'a');

  struct Case {
    std::vector<std::string> args;
    std::string subject;
  };
  for (const Case& c :
       {Case{{"read", file}, file}, Case{{"write", file}, file},
        Case{{"zero", "--offset", "0", "--length", "512", file}, file}, Case{{"stat", file}, file},
        Case{{"token", "list", "--mount", dir.path()}, dir.path()},
        Case{{"token", "show", "--mount", dir.path(), id}, dir.path()},
        Case{{"token", "drop", "--mount", dir.path(), id}, dir.path()}}) {
    const Run run = run_odx(c.args, bytes);
    CAPTURE(c.args[0], run.err);
    CHECK(run.code == 1);
    CHECK(run.out.empty());
    CHECK(is_error_line(run.err, c.subject));
    CHECK(contains(run.err, "not on an odxfs filesystem"));
  }
  const std::string nowhere = dir.file("nowhere");
  for (const Case& c :
       {Case{{"read", nowhere}, nowhere}, Case{{"write", nowhere}, nowhere},
        Case{{"stat", nowhere}, nowhere}, Case{{"cp", nowhere, dir.file("to")}, nowhere},
        Case{{"write", "--token", nowhere, file}, nowhere},
        Case{{"token", "show", nowhere}, nowhere}}) {
    const Run run = run_odx(c.args, bytes);
    CAPTURE(c.args[0], run.err);
    CHECK(run.code == 1);
    CHECK(is_error_line(run.err, c.subject));
    CHECK(contains(run.err, "No such file or directory"));
  }
  CHECK_FALSE(fs::exists(dir.file("to")));
  const Run unmounted = run_odx({"unmount", dir.path()});
  CHECK(unmounted.code == 1);
  CHECK(is_error_line(unmounted.err, dir.path()));
  CHECK(contains(unmounted.err, "not a mount point of odxfs"));
}

// ---- read, write, zero ----

TEST_CASE_METHOD(InOdxfs, "read and write: a whole file by way of a token") {
  const std::string data = pattern(100'000);
  write_file(from, data);
  write_file(to, std::string(100'000, 'x'));
  fake.most_per_write = 16 * 512;
  const Run read = run_odx({"read", from});
  CHECK(read.code == 0);
  CHECK(read.err.empty());
  REQUIRE(read.out.size() == 512);
  const Run write = run_odx({"write", to, "-v"}, read.out);
  CHECK(write.code == 0);
  CHECK(write.err.empty());
  CHECK(contains(write.out, "100352 bytes written"));
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(InOdxfs, "write: as much as the file has room for, or the token holds") {
  const std::string data = pattern(8192);
  write_file(from, data);
  const std::string token = run_odx({"read", from}).out;
  write_file(to, std::string(3000, 'x'));
  CHECK(run_odx({"write", to}, token).code == 0);
  CHECK(same(read_file(to), data.substr(0, 3000)));
  write_file(to, std::string(16384, 'x'));
  CHECK(run_odx({"write", "--offset", "4K", "--transfer-offset", "1K", to}, token).code == 0);
  CHECK(same(read_file(to),
             std::string(4096, 'x') + data.substr(1024) + std::string(16384 - 4096 - 7168, 'x')));
}

TEST_CASE_METHOD(InOdxfs, "write --length: exactly that, or an error that says how far it came") {
  const std::string data = pattern(8192);
  write_file(from, data);
  write_file(to, std::string(8192, 'x'));
  const std::string token = run_odx({"read", "--offset", "512", "--length", "1K", from}).out;
  CHECK(run_odx({"write", "--length", "512", to}, token).code == 0);
  CHECK(same(read_file(to), data.substr(512, 512) + std::string(8192 - 512, 'x')));
  const Run run = run_odx({"write", "--length", "4K", to}, token);
  CHECK(run.code == 1);
  CHECK(is_error_line(run.err, to));
  CHECK(contains(run.err, "only 1024 bytes were written"));
}

TEST_CASE_METHOD(InOdxfs, "read: an error of the filesystem is told with its reason") {
  write_file(from, pattern(8192));
  Run run = run_odx({"read", "--offset", "100", from});
  CHECK(run.code == 1);
  CHECK(run.out.empty());
  CHECK(is_error_line(run.err, from));
  CHECK(contains(run.err, "multiple of the sector"));
  CHECK(contains(run.err, "EINVAL"));
  CHECK(contains(run.err, "STATUS_INVALID_PARAMETER"));
  write_file(from, "");
  run = run_odx({"read", from});
  CHECK(run.code == 1);
  CHECK(contains(run.err, "end of the file"));
}

TEST_CASE_METHOD(InOdxfs, "read -o: a file that only its owner can read; write --token") {
  const std::string data = pattern(4096);
  write_file(from, data);
  write_file(to, std::string(4096, 'x'));
  const std::string token = dir.file("token");
  const Run read = run_odx({"read", "-v", "-o", token, from});
  CHECK(read.code == 0);
  CHECK(read.out.empty());
  CHECK(contains(read.err, "4096 bytes, token "));
  CHECK(contains(read.err, "nothing but zeros after it"));
  CHECK((stat_of(token).st_mode & 07777) == 0600);
  CHECK(run_odx({"write", "--token", token, to}).code == 0);
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(InOdxfs, "read, write and zero --json tell what was done, also if it failed") {
  write_file(from, pattern(8192));
  write_file(to, std::string(8192, 'x'));
  const std::string token = dir.file("token");
  const Run read = run_odx({"read", "--json", "-o", token, from});
  REQUIRE(read.code == 0);
  auto told = nlohmann::json::parse(read.out);
  CHECK(told["length"] == 8192);
  CHECK(told["token"].get<std::string>().size() == 32);
  CHECK(told["zeros_beyond"] == true);
  CHECK(told["reason"] == "NONE");
  CHECK(run_odx({"read", "--json", from}).code == 2);

  told = nlohmann::json::parse(run_odx({"write", "--json", "--token", token, to}).out);
  CHECK(told["bytes_written"] == 8192);
  CHECK(told["bytes_shared"] == 8192);
  told = nlohmann::json::parse(
      run_odx({"zero", "--json", "--offset", "0", "--length", "512", to}).out);
  CHECK(told["bytes_written"] == 512);

  fake.interfere = [](odx::proto::Control, unsigned) { return std::optional(ODX_REASON_LOCKED); };
  const Run refused = run_odx({"write", "--json", "--token", token, to});
  CHECK(refused.code == 1);
  told = nlohmann::json::parse(refused.out);
  CHECK(told["errno"] == EAGAIN);
  CHECK(told["status"] == "STATUS_FILE_LOCK_CONFLICT");
  CHECK(told["reason"] == "LOCKED");
  CHECK(nlohmann::json::parse(run_odx({"read", "--json", "-o", token, from}).out)["errno"] ==
        EAGAIN);
}

TEST_CASE_METHOD(InOdxfs, "write: what is no token is refused before anything is touched") {
  write_file(to, "old");
  for (const std::size_t size : {0u, 511u, 513u, 4096u}) {
    const Run run = run_odx({"write", to}, std::string(size, 'x'));
    CHECK(run.code == 1);
    CHECK(is_error_line(run.err, "standard input"));
    CHECK(contains(run.err, "exactly 512 bytes"));
  }
  CHECK(fake.writes == 0);
  const Run forged = run_odx({"write", to}, std::string(512, 'x'));
  CHECK(forged.code == 1);
  CHECK(contains(forged.err, "EKEYREJECTED"));
  CHECK(read_file(to) == "old");
}

TEST_CASE_METHOD(InOdxfs, "write: the zero token goes to the end of the file") {
  write_file(to, std::string(3000, 'x'));
  odx_token token;
  odx_zero_token(&token);
  const std::string bytes(reinterpret_cast<const char*>(&token), sizeof token);
  CHECK(run_odx({"write", "--offset", "512", to}, bytes).code == 0);
  CHECK(same(read_file(to), std::string(512, 'x') + std::string(2488, '\0')));
}

TEST_CASE_METHOD(InOdxfs, "zero: the range and nothing else, in as many calls as it takes") {
  write_file(to, std::string(8192, 'x'));
  fake.most_per_write = 512;
  const Run run = run_odx({"zero", "--offset", "1K", "--length", "2K", "-v", to});
  CHECK(run.code == 0);
  CHECK(contains(run.out, "2048 bytes zeroed"));
  CHECK(fake.writes == 4);
  CHECK(same(read_file(to),
             std::string(1024, 'x') + std::string(2048, '\0') + std::string(5120, 'x')));
  const Run beyond = run_odx({"zero", "--offset", "8K", "--length", "512", to});
  CHECK(beyond.code == 1);
  CHECK(is_error_line(beyond.err, to));
}

TEST_CASE_METHOD(InOdxfs, "zero: a filesystem that moves nothing is given up") {
  write_file(to, std::string(8192, 'x'));
  fake.interfere = [](auto, unsigned) { return std::optional(ODX_REASON_SHORT); };
  const Run run = run_odx({"zero", "--offset", "0", "--length", "512", to});
  CHECK(run.code == 1);
  CHECK(is_error_line(run.err, to));
}

// ---- token, stat ----

TEST_CASE_METHOD(InOdxfs, "token list, show, drop") {
  write_file(from, pattern(8192));
  const std::string token = dir.file("token");
  for (int i = 0; i < 20; ++i) {  // more than one page
    REQUIRE(run_odx({"read", "-o", token, from}).code == 0);
  }
  const Run list = run_odx({"token", "list", "--json", "--mount", from});
  CHECK(list.code == 0);
  const auto tokens = nlohmann::json::parse(list.out);
  REQUIRE(tokens.size() == 20);
  CHECK(tokens[0]["length"] == 8192);
  const Run text = run_odx({"token", "list", "--mount", from});
  CHECK(std::count(text.out.begin(), text.out.end(), '\n') == 21);

  for (const auto& entry : tokens) {
    const std::string id = entry["id"];
    const Run shown = run_odx({"token", "show", "--json", "--mount", from, id});
    CHECK(shown.code == 0);
    CHECK(nlohmann::json::parse(shown.out)["id"] == id);
    CHECK(nlohmann::json::parse(shown.out)["live"] == true);
  }
  const Run by_file = run_odx({"token", "show", "--mount", from, token});
  CHECK(by_file.code == 0);
  CHECK(contains(by_file.out, "live"));
  CHECK(contains(by_file.out, "8192 bytes"));

  CHECK(run_odx({"token", "drop", "--mount", from, token, tokens[0]["id"]}).code == 0);
  CHECK(fake.live_tokens() == 18);
  const Run again = run_odx({"token", "drop", "--mount", from, token, tokens[1]["id"]});
  CHECK(again.code == 1);
  CHECK(is_error_line(again.err, token));
  CHECK(contains(again.err, "no such live token"));
  CHECK(fake.live_tokens() == 17);
  const Run gone = run_odx({"token", "show", "--mount", from, token});
  CHECK(gone.code == 1);
  CHECK(contains(gone.out, "not live"));
  const Run none = run_odx({"token", "show", "--mount", from, std::string(32, '0')});
  CHECK(none.code == 1);
  CHECK(run_odx({"token", "drop", "--mount", from, "-"}, std::string(512, '\0')).code == 1);
}

TEST_CASE_METHOD(InOdxfs, "stat: for people and for programs") {
  write_file(from, pattern(8192));
  REQUIRE(run_odx({"read", from}).code == 0);
  const Run json = run_odx({"stat", "--json", dir.path()});
  CHECK(json.code == 0);
  const auto parsed = nlohmann::json::parse(json.out);
  CHECK(parsed["label"] == "fake");
  CHECK(parsed["sector_bytes"] == 512);
  CHECK(parsed["tokens_live"] == 1);
  CHECK(parsed["uuid"].get<std::string>().size() == 36);
  const Run text = run_odx({"stat", dir.path()});
  CHECK(text.code == 0);
  CHECK(contains(text.out, "fake"));
}
