#include "store/check/findings.hpp"

#include <algorithm>

#include "store/meta/keys.hpp"

namespace odx::check {

namespace {

constexpr std::size_t kPage = 512;
constexpr std::size_t kMaxKeyBytes = 500;

// Whether the first record with from <= key < end is unreadable.
Result<bool> first_is_damaged(const KvReader& kv, const std::string& from, const std::string& end) {
  if (from >= end) {
    return false;
  }
  const auto found = kv.scan(from, end, 1);
  if (!found && !found.error().is_corruption()) {
    return std::unexpected(found.error());
  }
  return !found;
}

// The key of the first record of a range, which is known to be unreadable. A KvReader does not
// tell, but whether a shorter range fails too is enough to find the key byte by byte.
Result<std::string> damaged_key(const KvReader& kv, const std::string& from,
                                const std::string& end) {
  std::string key;
  while (key.size() < kMaxKeyBytes) {
    const std::string start = std::max(from, key);
    if (!key.empty() && ODX_TRY(first_is_damaged(kv, start, std::min(end, key + '\0')))) {
      return key;
    }
    unsigned low = 0;
    unsigned high = 255;  // the next byte is in [low, high]
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      const std::string behind = key + static_cast<char>(middle + 1);
      if (ODX_TRY(first_is_damaged(kv, start, std::min(end, behind)))) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    key.push_back(static_cast<char>(low));
  }
  return key;
}

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    out += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return out;
}

}  // namespace

void Findings::fix(Stage stage, std::string text, WriteSet writes) {
  // More than enough for one pass; the next one goes on.
  constexpr std::size_t kMaxAtOnce = 100000;
  if (fixes_ == nullptr || (!fixes_->list.empty() && stage > fixes_->stage)) {
    return;
  }
  if (stage < fixes_->stage) {
    fixes_->list.clear();
  }
  fixes_->stage = stage;
  if (fixes_->list.size() < kMaxAtOnce) {
    fixes_->list.push_back({std::move(text), std::move(writes)});
  }
}

bool Findings::all_readable(char table) const {
  const auto first = unreadable_.lower_bound(keys::table_begin(table));
  return first == unreadable_.end() || first->front() != table;
}

void Findings::for_each_unreadable(char table,
                                   const std::function<void(const std::string&)>& each) const {
  for (auto at = unreadable_.lower_bound(keys::table_begin(table));
       at != unreadable_.end() && at->front() == table; ++at) {
    each(*at);
  }
}

bool Findings::references_complete() const {
  return !references_lost_ && all_readable(keys::kNode) && all_readable(keys::kInode) &&
         all_readable(keys::kToken) && all_readable(keys::kReclaim);
}

std::string quoted(std::string_view name) {
  std::string out = "\"";
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      if (c == '"' || c == '\\') {
        out += '\\';
      }
      out += c;
    }
  }
  return out + '"';
}

std::string token_text(const TokenId& id) {
  return "token " + hex({reinterpret_cast<const char*>(id.data()), id.size()});
}

std::string blocks_text(std::uint64_t first, std::uint64_t end) {
  return end - first == 1 ? fmt::format("block {}", first)
                          : fmt::format("blocks {} to {}", first, end - 1);
}

Result<void> for_each_record(const KvReader& kv, std::string from, const std::string& end,
                             Findings& findings, const std::function<void(const KeyValue&)>& each) {
  std::size_t page = kPage;
  while (from < end) {
    const auto records = kv.scan(from, end, page);
    if (!records) {
      if (!records.error().is_corruption()) {
        return std::unexpected(records.error());
      }
      if (page > 1) {
        page = 1;  // until the damaged one is the first
        continue;
      }
      const std::string key = ODX_TRY(damaged_key(kv, from, end));
      findings.problem("record {}:{} is damaged: {}", key.substr(0, 1), hex(key.substr(1)),
                       records.error().detail());
      findings.unreadable(key);
      from = key + '\0';
      page = kPage;
      continue;
    }
    for (const KeyValue& record : *records) {
      each(record);
    }
    if (records->size() < page) {
      return {};
    }
    from = records->back().key + '\0';
  }
  return {};
}

Result<void> for_each_record(const KvReader& kv, char table, std::string_view what,
                             Findings& findings, const std::function<void(const KeyValue&)>& each) {
  std::uint64_t done = 0;
  findings.progress(what, done, 0);
  return for_each_record(kv, keys::table_begin(table), keys::table_end(table), findings,
                         [&](const KeyValue& record) {
                           each(record);
                           if (++done % 10000 == 0) {
                             findings.progress(what, done, 0);
                           }
                         });
}

}  // namespace odx::check
