#include <catch2/catch.hpp>

#include "store/meta/meta_store.hpp"
#include "temp_dir.hpp"

using namespace odx;

namespace {
std::unique_ptr<MetaStore> open_store(const std::string& dir) {
  return MetaStore::open(dir, Uuid{1}, {}, []() -> Result<void> { return {}; }, [](TxnSeq) {})
      .value();
}
}  // namespace

TEST_CASE("what was committed is there after close and open") {
  const test::TempDir dir;
  REQUIRE(MetaStore::format(dir.path(), 1 << 20));
  {
    auto store = open_store(dir.path());
    CHECK(store->commit({{"a", "1"}, {"b", "2"}}).value() == TxnSeq(1));
    CHECK(store->get("a").value() == "1");
    REQUIRE(store->wait_durable(TxnSeq(1)));
    CHECK(store->durable() == TxnSeq(1));
    CHECK(store->commit({{"b", std::nullopt}}).value() == TxnSeq(2));
    REQUIRE(store->close());
  }
  auto store = open_store(dir.path());
  CHECK(store->stats().replayed_batches == 0);
  CHECK(store->get("a").value() == "1");
  CHECK(store->get("b").value() == std::nullopt);
}
