#include <rapidcheck.h>

#include <catch2/catch.hpp>
#include <map>
#include <string>

#include "store/meta/kv.hpp"

using odx::KeyValue;
using odx::KvOverlay;
using odx::Result;

namespace {

// A reader over a plain map, which remembers how much was asked of it.
class MapReader final : public odx::KvReader {
 public:
  std::map<std::string, std::string, std::less<>> pairs;
  mutable std::size_t scans = 0;
  bool broken = false;

  Result<std::optional<std::string>> get(std::string_view key) const override {
    if (broken) {
      return odx::corrupt("broken");
    }
    const auto at = pairs.find(key);
    return at == pairs.end() ? std::nullopt : std::optional(at->second);
  }
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override {
    ++scans;
    if (broken) {
      return odx::corrupt("broken");
    }
    std::vector<KeyValue> out;
    for (auto at = pairs.lower_bound(from);
         at != pairs.end() && at->first < end && out.size() < limit; ++at) {
      out.push_back({at->first, at->second});
    }
    return out;
  }
};

std::string text(const std::vector<KeyValue>& pairs) {
  std::string out;
  for (const KeyValue& pair : pairs) {
    out += pair.key + "=" + pair.value + " ";
  }
  return out;
}

std::string scanned(const KvOverlay& overlay, std::string_view from, std::string_view end,
                    std::size_t limit) {
  return text(overlay.scan(from, end, limit).value());
}

// Few and short keys, so that they collide.
rc::Gen<std::string> some_key() {
  return rc::gen::nonEmpty(rc::gen::resize(
      4, rc::gen::container<std::string>(rc::gen::elementOf(std::string("\x01"
                                                                        "ab\xff")))));
}

}  // namespace

TEST_CASE("changes lie over the base") {
  MapReader base;
  base.pairs = {{"a", "1"}, {"b", "2"}, {"c", "3"}, {"d", "4"}};
  KvOverlay overlay(base);

  CHECK(overlay.get("a").value() == "1");
  overlay.put("a", "one");
  overlay.erase("b");
  overlay.put("bb", "new");
  CHECK(overlay.get("a").value() == "one");
  CHECK_FALSE(overlay.get("b").value().has_value());
  CHECK_FALSE(overlay.get("x").value().has_value());
  CHECK(scanned(overlay, "a", "z", 100) == "a=one bb=new c=3 d=4 ");
  CHECK(scanned(overlay, "a", "z", 2) == "a=one bb=new ");
  CHECK(scanned(overlay, "b", "c", 100) == "bb=new ");
  CHECK(scanned(overlay, "c", "c", 100).empty());
  CHECK(scanned(overlay, "d", "c", 100).empty());
  CHECK(scanned(overlay, "a", "z", 0).empty());

  overlay.put("b", "back");
  CHECK(overlay.get("b").value() == "back");
  CHECK(base.pairs.at("b") == "2");

  const odx::WriteSet writes = overlay.take_writes();
  CHECK(writes.size() == 3);
  CHECK(overlay.get("a").value() == "1");
}

TEST_CASE("a scan reads on behind deletions until it has enough") {
  MapReader base;
  KvOverlay overlay(base);
  for (int i = 100; i < 200; ++i) {
    base.pairs[std::to_string(i)] = "x";
    if (i < 195) {
      overlay.erase(std::to_string(i));
    }
  }
  CHECK(scanned(overlay, "1", "2", 3) == "195=x 196=x 197=x ");
  CHECK(scanned(overlay, "1", "2", 100) == "195=x 196=x 197=x 198=x 199=x ");
}

TEST_CASE("the base's errors come through") {
  MapReader base;
  base.broken = true;
  KvOverlay overlay(base);
  overlay.put("k", "v");
  CHECK(overlay.get("k").value() == "v");
  CHECK(overlay.get("other").error().is_corruption());
  CHECK(overlay.scan("a", "z", 10).error().is_corruption());
}

TEST_CASE("overlay equals the merged map") {
  REQUIRE(rc::check("get and scan agree with a std::map", [] {
    MapReader base;
    for (const std::string& key : *rc::gen::container<std::vector<std::string>>(some_key())) {
      base.pairs[key] = "base" + key;
    }
    std::map<std::string, std::string> model(base.pairs.begin(), base.pairs.end());
    KvOverlay overlay(base);
    int version = 0;
    for (const auto& [key, keep] : *rc::gen::container<std::vector<std::pair<std::string, bool>>>(
             rc::gen::pair(some_key(), rc::gen::arbitrary<bool>()))) {
      if (keep) {
        const std::string value = std::to_string(++version);
        overlay.put(key, value);
        model[key] = value;
      } else {
        overlay.erase(key);
        model.erase(key);
      }
    }
    const std::string from = *some_key();
    const std::string end = *some_key();
    const auto limit = *rc::gen::inRange<std::size_t>(0, 12);
    std::vector<KeyValue> expected;
    for (auto at = model.lower_bound(from);
         at != model.end() && at->first < end && expected.size() < limit; ++at) {
      expected.push_back({at->first, at->second});
    }
    RC_ASSERT(text(overlay.scan(from, end, limit).value()) == text(expected));
    const auto found = model.find(from);
    RC_ASSERT(overlay.get(from).value() ==
              (found == model.end() ? std::nullopt : std::optional(found->second)));
  }));
}
