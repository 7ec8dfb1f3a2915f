#include <catch2/catch.hpp>

#include "store/journal/journal.hpp"
#include "temp_dir.hpp"

using namespace odx;

TEST_CASE("a new journal is empty") {
  const test::TempDir dir;
  const std::string path = dir.file("journal");
  REQUIRE(Journal::format(path, 1 << 20));
  auto journal = Journal::open(path, Uuid{1}, false).value();
  CHECK(journal->replay({}, Lsn(1), true, [](Lsn, std::string_view) -> Result<void> {
    return corrupt("no batch expected");
  }).value() == JournalEnd::kClean);
  CHECK(journal->append("hello").value() == Lsn(1));
  CHECK(journal->used_bytes() == 4096);
}
