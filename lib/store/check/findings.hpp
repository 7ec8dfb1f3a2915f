// Where the parts of a check put what they find, and how they read tables. For check/ only.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <utility>

#include "store/check/check.hpp"

namespace odx::check {

class Findings {
 public:
  explicit Findings(const CheckOptions& options) : options_(options) {}

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

  CheckReport report;

 private:
  const CheckOptions& options_;
};

// A name in quotes, fit for one line.
[[nodiscard]] std::string quoted(std::string_view name);

// "token 0123...", by its id.
[[nodiscard]] std::string token_text(const TokenId& id);

// "block 7", "blocks 7 to 9".
[[nodiscard]] std::string blocks_text(std::uint64_t first, std::uint64_t end);

// Calls `each` with every record whose key lies in [from, end), in key order. A record whose value
// fails its checksum is a problem, and is left out.
Result<void> for_each_record(const KvReader& kv, std::string from, const std::string& end,
                             Findings& findings, const std::function<void(const KeyValue&)>& each);
Result<void> for_each_record(const KvReader& kv, char table, std::string_view what,
                             Findings& findings, const std::function<void(const KeyValue&)>& each);

}  // namespace odx::check
