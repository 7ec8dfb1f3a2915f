// libodx: the calls, and the copy engine against a filesystem that misbehaves on purpose.
#include <fcntl.h>
#include <rapidcheck.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "client/negative_cache.hpp"
#include "fake_odxfs.hpp"
#include "odx/odx.h"

using namespace odx::testing;
using odx::Fd;
using odx::proto::Control;

namespace {

constexpr std::size_t kMiB = 1 << 20;

// Files are too long to be shown when they differ.
bool same(const std::string& a, const std::string& b) { return a == b; }

struct Outcome {
  int error;
  odx_copy_report report;
};

Outcome copy(const std::string& from, const std::string& to, const odx_copy_options& options = {}) {
  const Fd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  const Fd destination(::open(to.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  REQUIRE(source.valid());
  REQUIRE(destination.valid());
  Outcome outcome{};
  outcome.error = odx_copy(source.get(), destination.get(), &options, &outcome.report);
  return outcome;
}

std::uint64_t moved(const odx_copy_report& report) {
  return report.bytes_offloaded + report.bytes_cloned + report.bytes_copied + report.bytes_skipped;
}

odx_copy_options with_flags(std::uint32_t flags) {
  odx_copy_options options{};
  options.flags = flags;
  return options;
}

// Refuses the n-th WRITE, counted from 0, for `reason`.
auto refuse_write(unsigned n, odx_reason reason) {
  return [=](Control control, unsigned before) {
    return control == Control::kWrite && before == n ? std::optional(reason) : std::nullopt;
  };
}

// Has the steps of a copy put into `ranges`.
void collect(odx_copy_options& options, std::vector<odx_copy_range>& ranges) {
  options.context = &ranges;
  options.progress = [](const odx_copy_report*, const odx_copy_range* step, void* context) {
    static_cast<std::vector<odx_copy_range>*>(context)->push_back(*step);
    return 0;
  };
}

struct Fixture {
  TempDir dir;
  FakeOdxfs fs{dir.path()};
  std::string from = dir.file("from");
  std::string to = dir.file("to");
};

}  // namespace

TEST_CASE_METHOD(Fixture, "a whole file goes by one token in steps, and the token is dropped") {
  const std::string data = pattern(3 * kMiB + 123);
  write_file(from, data);
  odx_copy_options options{};
  options.step = kMiB;
  const Outcome outcome = copy(from, to, options);
  CHECK(outcome.error == 0);
  CHECK(same(read_file(to), data));
  CHECK(outcome.report.note == ODX_COPY_WHOLE);
  CHECK(outcome.report.bytes_total == data.size());
  CHECK(outcome.report.bytes_offloaded == data.size());
  CHECK(outcome.report.bytes_shared == data.size());
  CHECK(moved(outcome.report) == data.size());
  CHECK(outcome.report.tokens == 1);
  CHECK(fs.reads == 1);
  CHECK(fs.writes == 4);
  CHECK(fs.live_tokens() == 0);
}

TEST_CASE_METHOD(Fixture, "short reads and writes are taken as they come") {
  const std::string data = pattern(2 * kMiB + 77);
  write_file(from, data);
  fs.most_per_read = 512 * 1000;
  fs.most_per_write = 512 * 300;
  const Outcome outcome = copy(from, to);
  CHECK(outcome.error == 0);
  CHECK(outcome.report.note == ODX_COPY_WHOLE);
  CHECK(outcome.report.tokens == 5);
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(Fixture, "known zeros at the end are not written") {
  const std::string data = pattern(kMiB) + std::string(4 * kMiB, '\0');
  write_file(from, data);
  fs.most_per_read = kMiB;
  const Outcome outcome = copy(from, to);
  CHECK(outcome.error == 0);
  CHECK(outcome.report.bytes_offloaded == data.size());
  CHECK(fs.reads == 1);
  CHECK(fs.writes == 1);
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(Fixture, "zeros in front go by the zero token, which is not dropped") {
  const std::string data = std::string(kMiB, '\0') + pattern(kMiB);
  write_file(from, data);
  fs.most_per_read = kMiB;
  const Outcome outcome = copy(from, to);
  CHECK(outcome.report.note == ODX_COPY_WHOLE);
  CHECK(outcome.report.tokens == 2);
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(Fixture, "an expired token is replaced once") {
  const std::string data = pattern(2 * kMiB);
  write_file(from, data);
  fs.most_per_write = 512 * 1024;
  fs.interfere = refuse_write(2, ODX_REASON_TOKEN_EXPIRED);
  const Outcome outcome = copy(from, to);
  CHECK(outcome.error == 0);
  CHECK(outcome.report.note == ODX_COPY_WHOLE);
  CHECK(outcome.report.tokens == 2);
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(Fixture, "tokens that always expire end in an ordinary copy") {
  const std::string data = pattern(2 * kMiB);
  write_file(from, data);
  fs.interfere = [](Control control, unsigned) {
    return control == Control::kWrite ? std::optional(ODX_REASON_TOKEN_EXPIRED) : std::nullopt;
  };
  const Outcome outcome = copy(from, to);
  CHECK(outcome.error == 0);
  CHECK(outcome.report.note == ODX_COPY_REFUSED);
  CHECK(outcome.report.error == EKEYEXPIRED);
  CHECK(outcome.report.status == ODX_STATUS_INVALID_TOKEN);
  CHECK(outcome.report.reason == ODX_REASON_TOKEN_EXPIRED);
  CHECK(outcome.report.tokens == 2);
  CHECK(outcome.report.bytes_offloaded == 0);
  CHECK(moved(outcome.report) == data.size());
  CHECK(same(read_file(to), data));
  CHECK(fs.live_tokens() == 0);
}

TEST_CASE_METHOD(Fixture, "a refusal half-way: the rest is copied from the point reached") {
  const std::string data = pattern(3 * kMiB + 5);
  write_file(from, data);
  fs.most_per_write = kMiB;
  fs.interfere = refuse_write(1, ODX_REASON_IO_ERROR);
  const Outcome outcome = copy(from, to);
  CHECK(outcome.error == 0);
  CHECK(outcome.report.note == ODX_COPY_REFUSED);
  CHECK(outcome.report.error == EIO);
  CHECK(outcome.report.bytes_offloaded == kMiB);
  CHECK(outcome.report.bytes_cloned + outcome.report.bytes_copied == data.size() - kMiB);
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(Fixture, "a refused READ: all of it is copied the ordinary way") {
  const std::string data = pattern(kMiB);
  write_file(from, data);
  fs.interfere = [](Control control, unsigned) {
    return control == Control::kRead ? std::optional(ODX_REASON_TOKEN_LIMIT) : std::nullopt;
  };
  const Outcome outcome = copy(from, to);
  CHECK(outcome.error == 0);
  CHECK(outcome.report.error == ENOBUFS);
  CHECK(outcome.report.tokens == 0);
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(Fixture, "three stalls are borne, four are not") {
  const std::string data = pattern(kMiB);
  write_file(from, data);
  unsigned stalls = 3;
  fs.interfere = [&](Control control, unsigned before) {
    return control == Control::kWrite && before < stalls ? std::optional(ODX_REASON_SHORT)
                                                         : std::nullopt;
  };
  CHECK(copy(from, to).report.note == ODX_COPY_WHOLE);
  CHECK(same(read_file(to), data));
  fs.writes = 0;
  stalls = 4;
  const Outcome outcome = copy(from, to);
  CHECK(outcome.error == 0);
  CHECK(outcome.report.note == ODX_COPY_NO_PROGRESS);
  CHECK(same(read_file(to), data));
  fs.writes = 0;
  CHECK(copy(from, to, with_flags(ODX_COPY_REQUIRE_OFFLOAD)).error == -EIO);
}

TEST_CASE_METHOD(Fixture, "offload required: a refusal is the answer and nothing else is tried") {
  write_file(from, pattern(2 * kMiB));
  fs.most_per_write = kMiB;
  fs.interfere = refuse_write(1, ODX_REASON_NO_SPACE);
  const Outcome outcome = copy(from, to, with_flags(ODX_COPY_REQUIRE_OFFLOAD));
  CHECK(outcome.error == -ENOSPC);
  CHECK(outcome.report.reason == ODX_REASON_NO_SPACE);
  CHECK(outcome.report.bytes_cloned + outcome.report.bytes_copied == 0);
}

TEST_CASE_METHOD(Fixture, "offload required: small and empty files too") {
  for (const std::size_t size : {0u, 1u, 511u, 512u, 1000u, 4097u}) {
    const std::string data = pattern(size);
    write_file(from, data);
    const Outcome outcome = copy(from, to, with_flags(ODX_COPY_REQUIRE_OFFLOAD));
    CAPTURE(size);
    CHECK(outcome.error == 0);
    CHECK(outcome.report.bytes_offloaded == size);
    CHECK(same(read_file(to), data));
  }
}

TEST_CASE_METHOD(Fixture, "small files are copied the ordinary way, as the threshold says") {
  write_file(from, pattern(256 * 1024 - 1));
  CHECK(copy(from, to).report.note == ODX_COPY_BELOW_THRESHOLD);
  CHECK(fs.reads == 0);
  CHECK(same(read_file(to), read_file(from)));
  write_file(from, pattern(256 * 1024));
  CHECK(copy(from, to).report.note == ODX_COPY_WHOLE);
  odx_copy_options options{};
  options.threshold = 256 * 1024 + 1;
  CHECK(copy(from, to, options).report.note == ODX_COPY_BELOW_THRESHOLD);
  options.threshold = 1;
  write_file(from, "x");
  CHECK(copy(from, to, options).report.note == ODX_COPY_WHOLE);
  CHECK(same(read_file(to), "x"));
}

TEST_CASE_METHOD(Fixture, "offload not wanted: none is tried") {
  write_file(from, pattern(kMiB));
  const Outcome outcome = copy(from, to, with_flags(ODX_COPY_NO_OFFLOAD));
  CHECK(outcome.report.note == ODX_COPY_SWITCHED_OFF);
  CHECK(fs.reads == 0);
  CHECK(same(read_file(to), read_file(from)));
}

TEST_CASE("files elsewhere are copied the ordinary way, or refused") {
  TempDir dir;
  const std::string from = dir.file("from");
  const std::string data = pattern(kMiB + 3);
  write_file(from, data);
  const Outcome outcome = copy(from, dir.file("to"));
  CHECK(outcome.error == 0);
  CHECK(outcome.report.note == ODX_COPY_NOT_ODXFS);
  CHECK(same(read_file(dir.file("to")), data));
  CHECK(copy(from, dir.file("to"), with_flags(ODX_COPY_REQUIRE_OFFLOAD)).error == -ENOTTY);
  write_file(from, "");
  CHECK(copy(from, dir.file("to"), with_flags(ODX_COPY_REQUIRE_OFFLOAD)).error == -ENOTTY);
}

TEST_CASE_METHOD(Fixture, "the destination's old content goes") {
  const std::string data = pattern(300'000);
  write_file(from, data);
  write_file(to, pattern(900'000, 7));
  CHECK(copy(from, to).error == 0);
  CHECK(same(read_file(to), data));
  write_file(from, data.substr(0, 10));
  CHECK(copy(from, to).error == 0);
  CHECK(same(read_file(to), data.substr(0, 10)));
  write_file(from, "");
  CHECK(copy(from, to).error == 0);
  CHECK(read_file(to).empty());
}

TEST_CASE("an ordinary copy keeps holes") {
  TempDir dir;
  const std::string from = dir.file("from");
  const Fd file(::open(from.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const std::string data = pattern(8192);
  REQUIRE(::pwrite(file.get(), data.data(), data.size(), 4 << 20) == 8192);
  REQUIRE(::pwrite(file.get(), data.data(), 100, 64 << 20) == 100);
  REQUIRE(::ftruncate(file.get(), 100 << 20) == 0);
  const Outcome outcome = copy(from, dir.file("to"));
  CHECK(outcome.error == 0);
  CHECK(same(read_file(dir.file("to")), read_file(from)));
  struct stat st {};
  REQUIRE(::stat(dir.file("to").c_str(), &st) == 0);
  CHECK(st.st_blocks * 512 < 1 << 20);
  CHECK(moved(outcome.report) == 100u << 20);
  CHECK(outcome.report.bytes_skipped > 99u << 20);
}

TEST_CASE("a file of unknown size is read to its end") {
  TempDir dir;
  const Outcome outcome = copy("/proc/self/limits", dir.file("to"));
  CHECK(outcome.error == 0);
  CHECK(same(read_file(dir.file("to")), read_file("/proc/self/limits")));
  CHECK(outcome.report.bytes_copied > 0);
}

TEST_CASE_METHOD(Fixture, "a source cut short meanwhile gives a shorter copy that says so") {
  write_file(from, pattern(4 * kMiB));
  fs.most_per_read = kMiB;
  odx_copy_options options{};
  options.context = this;
  options.progress = [](const odx_copy_report* report, const odx_copy_range*, void* context) {
    const auto* self = static_cast<Fixture*>(context);
    return report->bytes_offloaded == kMiB ? ::truncate(self->from.c_str(), kMiB + 10) : 0;
  };
  const Outcome outcome = copy(from, to, options);
  CHECK(outcome.error == 0);
  CHECK(same(read_file(to), pattern(4 * kMiB).substr(0, kMiB + 10)));
}

TEST_CASE_METHOD(Fixture, "a source cut to the point reached gives a shorter copy that says so") {
  write_file(from, pattern(4 * kMiB));
  fs.most_per_read = kMiB;
  odx_copy_options options{};
  options.context = this;
  options.progress = [](const odx_copy_report*, const odx_copy_range*, void* context) {
    return ::truncate(static_cast<Fixture*>(context)->from.c_str(), kMiB);
  };
  const Outcome outcome = copy(from, to, options);
  CHECK(outcome.error == 0);
  CHECK(outcome.report.note == ODX_COPY_SOURCE_CHANGED);
  CHECK(same(read_file(to), pattern(4 * kMiB).substr(0, kMiB)));
}

TEST_CASE_METHOD(Fixture, "progress is told, and its callback can end the copy") {
  write_file(from, pattern(4 * kMiB));
  odx_copy_options options{};
  options.step = kMiB;
  int calls = 0;
  options.context = &calls;
  options.progress = [](const odx_copy_report* report, const odx_copy_range*, void* context) {
    int& count = *static_cast<int*>(context);
    ++count;
    CHECK(report->bytes_offloaded == static_cast<unsigned>(count) * kMiB);
    return count == 2 ? 1 : 0;
  };
  CHECK(copy(from, to, options).error == -ECANCELED);
  CHECK(calls == 2);
  CHECK(fs.live_tokens() == 0);
}

TEST_CASE_METHOD(Fixture, "each step says where, how and why") {
  write_file(from, pattern(3 * kMiB));
  fs.interfere = refuse_write(1, ODX_REASON_IO_ERROR);
  odx_copy_options options{};
  options.step = kMiB;
  std::vector<odx_copy_range> ranges;
  collect(options, ranges);
  CHECK(copy(from, to, options).error == 0);
  REQUIRE(ranges.size() == 2);
  CHECK(ranges[0].offset == 0);
  CHECK(ranges[0].length == kMiB);
  CHECK(ranges[0].way == ODX_WAY_TOKEN);
  CHECK(ranges[0].note == ODX_COPY_WHOLE);
  CHECK(ranges[0].bytes_shared == kMiB);
  CHECK(ranges[1].offset == kMiB);
  CHECK(ranges[1].length == 2 * kMiB);
  CHECK(ranges[1].way == ODX_WAY_CLONE);
  CHECK(ranges[1].note == ODX_COPY_REFUSED);
  CHECK(fs.fallback_bytes[ODX_COPY_REFUSED] == 2 * kMiB);
}

TEST_CASE_METHOD(Fixture, "a filesystem that refuses as such is not asked for every file") {
  write_file(from, pattern(kMiB));
  fs.interfere = [](Control, unsigned) { return std::optional(ODX_REASON_DISABLED); };
  CHECK(copy(from, to).report.reason == ODX_REASON_DISABLED);
  CHECK(fs.reads == 1);
  const Outcome second = copy(from, to);
  CHECK(second.error == 0);
  CHECK(second.report.note == ODX_COPY_REFUSED);
  CHECK(second.report.error == EPERM);
  CHECK(second.report.reason == ODX_REASON_DISABLED);
  CHECK(second.report.bytes_cloned == kMiB);
  CHECK(fs.reads == 1);
  CHECK(fs.fallback_bytes[ODX_COPY_REFUSED] == 2 * kMiB);
  // Who insists is answered anew, and from then on everybody is.
  CHECK(copy(from, to, with_flags(ODX_COPY_REQUIRE_OFFLOAD)).error == -EPERM);
  CHECK(fs.reads == 2);
  fs.interfere = nullptr;
  CHECK(copy(from, to, with_flags(ODX_COPY_REQUIRE_OFFLOAD)).error == 0);
  CHECK(copy(from, to).report.note == ODX_COPY_WHOLE);
}

TEST_CASE_METHOD(Fixture, "what is wrong with one file is not held against the next") {
  write_file(from, pattern(kMiB));
  for (const odx_reason reason : {ODX_REASON_IO_ERROR, ODX_REASON_LOCKED, ODX_REASON_NO_SPACE,
                                  ODX_REASON_TOKEN_LIMIT, ODX_REASON_TOKEN_UNKNOWN}) {
    fs.interfere = [=](Control, unsigned) { return std::optional(reason); };
    CHECK(copy(from, to).report.note == ODX_COPY_REFUSED);
    fs.interfere = nullptr;
    CHECK(copy(from, to).report.note == ODX_COPY_WHOLE);
  }
}

TEST_CASE("what is known to be hopeless is believed for three minutes") {
  odx::client::NegativeCache cache;
  const auto now = odx::client::NegativeCache::Clock::now();
  cache.remember(1, 2, {ODX_COPY_OTHER_STORE, EXDEV, {}}, now);
  REQUIRE(cache.find(1, 2, now + std::chrono::seconds(179)));
  CHECK(cache.find(1, 2, now)->note == ODX_COPY_OTHER_STORE);
  CHECK_FALSE(cache.find(2, 1, now));
  CHECK_FALSE(cache.find(1, 2, now + std::chrono::seconds(180)));
  cache.remember(1, 2, {ODX_COPY_NOT_ODXFS, 0, {}}, now);
  cache.forget(1, 2);
  CHECK_FALSE(cache.find(1, 2, now));
}

TEST_CASE_METHOD(Fixture, "bad arguments are refused") {
  write_file(from, "x");
  write_file(to, "old");
  CHECK(copy(from, to, with_flags(4)).error == -EINVAL);
  CHECK(copy(from, to, with_flags(ODX_COPY_NO_OFFLOAD | ODX_COPY_REQUIRE_OFFLOAD)).error ==
        -EINVAL);
  odx_copy_options options{};
  options.reserved[7] = 1;
  CHECK(copy(from, to, options).error == -EINVAL);
  options = {};
  options.step = UINT64_MAX;
  CHECK(copy(from, to, options).error == -EINVAL);
  CHECK(same(read_file(to), "old"));

  const Fd file(::open(from.c_str(), O_RDWR | O_CLOEXEC));
  const Fd place(::open(dir.path().c_str(), O_RDONLY | O_CLOEXEC));
  CHECK(odx_copy(file.get(), file.get(), nullptr, nullptr) == -EINVAL);
  CHECK(odx_copy(place.get(), file.get(), nullptr, nullptr) == -EISDIR);
  CHECK(odx_copy(file.get(), -1, nullptr, nullptr) == -EBADF);
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  CHECK(odx_copy(null.get(), file.get(), nullptr, nullptr) == -EINVAL);
  CHECK(odx_copy(file.get(), null.get(), nullptr, nullptr) == -EINVAL);
  CHECK(same(read_file(from), "x"));
}

TEST_CASE_METHOD(Fixture, "the source's file offset stays where it was") {
  const std::string data(4 * kMiB, '\0');
  write_file(from, data);
  REQUIRE(::truncate(from.c_str(), 0) == 0);
  REQUIRE(::truncate(from.c_str(), 4 * kMiB) == 0);
  const Fd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  const Fd destination(::open(to.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  REQUIRE(::lseek(source.get(), 77, SEEK_SET) == 77);
  const odx_copy_options options = with_flags(ODX_COPY_NO_OFFLOAD);
  CHECK(odx_copy(source.get(), destination.get(), &options, nullptr) == 0);
  CHECK(::lseek(source.get(), 0, SEEK_CUR) == 77);
  CHECK(same(read_file(to), data));
}

TEST_CASE_METHOD(Fixture, "calls: a token is taken, listed, redeemed and dropped") {
  const std::string data = pattern(8192);
  write_file(from, data);
  write_file(to, std::string(8192, 'x'));
  const Fd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  const Fd destination(::open(to.c_str(), O_WRONLY | O_CLOEXEC));
  odx_token token;
  std::uint64_t length = 0;
  std::uint32_t flags = 0;
  odx_result result{};
  REQUIRE(odx_offload_read(source.get(), 4096, 1 << 20, 0, 0, &token, &length, &flags, &result) ==
          0);
  CHECK(length == 4096);
  CHECK(flags == ODX_READ_ALL_ZERO_BEYOND_CURRENT_RANGE);
  CHECK(result.status == ODX_STATUS_SUCCESS);
  CHECK(result.reason == ODX_REASON_SHORT);

  std::uint8_t id[16];
  REQUIRE(odx_token_id(&token, id) == 0);
  struct odx_token_list page {};
  REQUIRE(odx_list_tokens(source.get(), &page) == 0);
  REQUIRE(page.count == 1);
  CHECK(std::memcmp(page.tokens[0].id, id, sizeof id) == 0);

  std::uint64_t written = 0;
  REQUIRE(odx_offload_write(destination.get(), 0, 4096, &token, 0, &written, &result) == 0);
  CHECK(written == 4096);
  CHECK(result.bytes_shared == 4096);
  REQUIRE(odx_zero(destination.get(), 4096, 512, nullptr, nullptr) == 0);
  CHECK(same(read_file(to), data.substr(4096) + std::string(512, '\0') + std::string(3584, 'x')));

  CHECK(odx_drop_token(source.get(), id) == 0);
  CHECK(odx_drop_token(source.get(), id) == -ENOENT);
  CHECK(odx_offload_write(destination.get(), 0, 4096, &token, 0, &written, &result) ==
        -EKEYREJECTED);
  CHECK(result.status == ODX_STATUS_INVALID_TOKEN);
  CHECK(result.reason == ODX_REASON_TOKEN_UNKNOWN);
  struct odx_stat stat {};
  REQUIRE(odx_statistics(source.get(), &stat) == 0);
  CHECK(stat.tokens_created == 1);
  CHECK(std::string(stat.label) == "fake");
}

TEST_CASE("calls: what the kernel refuses by itself has a status and no reason") {
  TempDir dir;
  write_file(dir.file("x"), "x");
  const Fd file(::open(dir.file("x").c_str(), O_RDWR | O_CLOEXEC));
  odx_token token;
  odx_result result{};
  CHECK(odx_offload_read(file.get(), 0, 512, 0, 0, &token, nullptr, nullptr, &result) == -ENOTTY);
  CHECK(result.status == ODX_STATUS_INVALID_DEVICE_REQUEST);
  CHECK(result.reason == ODX_REASON_NONE);
  CHECK(odx_zero(-1, 0, 512, nullptr, &result) == -EBADF);
  CHECK(result.status == ODX_STATUS_ACCESS_DENIED);
  std::uint8_t id[16];
  odx_zero_token(&token);
  CHECK(odx_token_id(&token, id) == -EINVAL);
  struct odx_stat stat {};
  CHECK(odx_statistics(file.get(), &stat) == -ENOTTY);
}

TEST_CASE("texts: every note has one") {
  for (unsigned note = 0; note <= ODX_COPY_SOURCE_CHANGED; ++note) {
    CHECK(std::string(odx_copy_note_text(note)) != "unknown note");
  }
  CHECK(std::string(odx_copy_note_text(99)) == "unknown note");
  CHECK(std::string(odx_copy_note_name(ODX_COPY_NOT_ODXFS)) == "NOT_ODXFS");
  CHECK(std::string(odx_reason_name(ODX_REASON_TOKEN_EXPIRED)) == "TOKEN_EXPIRED");
  CHECK(std::string(odx_reason_name(ODX_REASON_DISABLED)) == "DISABLED");
  CHECK(std::string(odx_reason_name(ODX_REASON_DISABLED + 1)) == "UNKNOWN");
}

TEST_CASE("property: whatever the filesystem does, the copy is right and no token is left") {
  CHECK(rc::check([] {
    Fixture t;
    const auto size = *rc::gen::inRange<std::size_t>(0, 400'000);
    std::string data = pattern(size, *rc::gen::arbitrary<unsigned>());
    for (int holes = *rc::gen::inRange(0, 3); holes > 0 && size > 0; --holes) {
      const auto at = *rc::gen::inRange<std::size_t>(0, size);
      const auto n = std::min(size - at, *rc::gen::inRange<std::size_t>(0, 100'000));
      data.replace(at, n, n, '\0');
    }
    write_file(t.from, data);
    t.fs.most_per_read = *rc::gen::inRange<std::uint64_t>(20, 800) * 512;
    t.fs.most_per_write = *rc::gen::inRange<std::uint64_t>(20, 800) * 512;
    const auto trouble = *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 12));
    t.fs.interfere = [&](Control control, unsigned before) -> std::optional<odx_reason> {
      const unsigned n = before * 2 + (control == Control::kRead ? 1 : 0);
      switch (n < trouble.size() ? trouble[n] : 0) {
        case 1:
          return ODX_REASON_TOKEN_EXPIRED;
        case 2:
          return ODX_REASON_IO_ERROR;
        case 3:
        case 4:
        case 5:
          return control == Control::kWrite ? std::optional(ODX_REASON_SHORT) : std::nullopt;
        default:
          return std::nullopt;
      }
    };
    odx_copy_options options{};
    options.threshold = 1;
    options.step = *rc::gen::inRange<std::uint64_t>(0, 300'000);
    std::vector<odx_copy_range> ranges;
    collect(options, ranges);
    const Outcome outcome = copy(t.from, t.to, options);
    std::uint64_t reached = 0;
    for (const odx_copy_range& range : ranges) {
      RC_ASSERT(range.offset == reached);
      RC_ASSERT(range.length > 0u);
      reached += range.length;
    }
    RC_ASSERT(reached == data.size());
    RC_ASSERT(outcome.error == 0);
    RC_ASSERT(same(read_file(t.to), data));
    RC_ASSERT(moved(outcome.report) == data.size());
    RC_ASSERT(t.fs.live_tokens() == 0u);
    RC_CLASSIFY(outcome.report.note == ODX_COPY_WHOLE, "whole");
    RC_CLASSIFY(outcome.report.bytes_offloaded > 0 && outcome.report.note != ODX_COPY_WHOLE,
                "in part");
  }));
}
