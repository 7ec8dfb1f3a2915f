// Where the parts of a check put what they find, and how they read tables. For check/ only.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "store/check/check.hpp"

namespace odx::check {

// Repairs go by stages: what one changes is what the next one counts. A pass of a check collects
// those of the lowest stage that has any; the rest wait for the pass after it.
enum class Stage : std::uint8_t {
  kRoot,     // the root directory
  kRecords,  // records that mean nothing are removed, derived ones made anew
  kNames,    // every inode gets its place in the namespace
  kCounts,   // what counts the rest
};

// Changes that are right whatever else is wrong, and what to say about them.
struct Fix {
  std::string text;
  WriteSet writes;
};

struct Fixes {
  Stage stage = Stage::kCounts;
  std::vector<Fix> list;
};

class Findings {
 public:
  // `fixes`: where repairs go, if they are wanted.
  explicit Findings(const CheckOptions& options, Fixes* fixes = nullptr)
      : options_(options), fixes_(fixes) {}

  template <class... Args>
  void problem(fmt::format_string<Args...> text, Args&&... args) {
    ++report.problem_count;
    if (report.problems.size() < options_.max_problems) {
      report.problems.push_back(fmt::format(text, std::forward<Args>(args)...));
    }
  }
  void progress(std::string_view what, std::uint64_t done, std::uint64_t total) const {
    if (options_.progress) {
      options_.progress(what, done, total);
    }
  }

  [[nodiscard]] bool repairing() const { return fixes_ != nullptr; }
  // Takes a repair down; nothing if none are wanted.
  void fix(Stage stage, std::string text, WriteSet writes);

  // A record that cannot be read or makes no sense: it is there, but nobody knows what it said.
  void unreadable(const std::string& key) { unreadable_.insert(key); }
  [[nodiscard]] bool is_unreadable(const std::string& key) const {
    return unreadable_.contains(key);
  }
  [[nodiscard]] bool all_readable(char table) const;
  void for_each_unreadable(char table,
                           const std::function<void(const std::string& key)>& each) const;
  // A record is missing, or contradicts another one, that held references to nodes or blocks.
  void references_lost() { references_lost_ = true; }
  // Whether every reference to nodes and blocks was seen. If not, counts are lower bounds.
  [[nodiscard]] bool references_complete() const;

  CheckReport report;

 private:
  const CheckOptions& options_;
  Fixes* const fixes_;
  std::set<std::string> unreadable_;
  bool references_lost_ = false;
};

// A name in quotes, fit for one line.
[[nodiscard]] std::string quoted(std::string_view name);

// "token 0123...", by its id.
[[nodiscard]] std::string token_text(const TokenId& id);

// "block 7", "blocks 7 to 9".
[[nodiscard]] std::string blocks_text(std::uint64_t first, std::uint64_t end);

// Calls `each` with every record whose key lies in [from, end), in key order. A record whose value
// fails its checksum is a problem, is noted as unreadable, and is left out.
Result<void> for_each_record(const KvReader& kv, std::string from, const std::string& end,
                             Findings& findings, const std::function<void(const KeyValue&)>& each);
Result<void> for_each_record(const KvReader& kv, char table, std::string_view what,
                             Findings& findings, const std::function<void(const KeyValue&)>& each);

}  // namespace odx::check
