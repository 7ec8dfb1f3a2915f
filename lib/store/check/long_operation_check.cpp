#include "store/check/long_operation_check.hpp"

#include "store/check/scrub_record.hpp"
#include "store/meta/keys.hpp"

namespace odx::check {

Result<void> check_long_operations(const KvReader& kv, Findings& findings) {
  // All that is lost with one of ours is how far an operation was.
  const auto remove = [&](const std::string& key) {
    findings.fix(Stage::kRecords,
                 fmt::format("long operation {} is removed", quoted(key.substr(1))),
                 {{key, std::nullopt}});
  };
  ODX_TRY(for_each_record(
      kv, keys::kLongOperation, "long operations", findings, [&](const KeyValue& record) {
        const std::string name = record.key.substr(1);
        const auto judge = [&](const auto& decoded) {
          if (!decoded) {
            findings.problem("long operation {}: {}", quoted(name), decoded.error().detail());
            remove(record.key);
          }
        };
        if (name == kScrubOperation) {
          judge(ScrubRecord::decode(record.value));
        } else if (name == kScrubReportOperation) {
          judge(ScrubReport::decode(record.value));
        } else {
          findings.problem("long operation {}, which is unknown", quoted(name));
        }
      }));
  findings.for_each_unreadable(keys::kLongOperation, [&](const std::string& key) {
    const std::string name = key.substr(1);
    if (name == kScrubOperation || name == kScrubReportOperation) {
      remove(key);
    }
  });
  return {};
}

}  // namespace odx::check
