#include "store/check/long_operation_check.hpp"

#include "store/check/scrub_record.hpp"
#include "store/meta/keys.hpp"

namespace odx::check {

Result<void> check_long_operations(const KvReader& kv, Findings& findings) {
  return for_each_record(
      kv, keys::kLongOperation, "long operations", findings, [&](const KeyValue& record) {
        const std::string name = record.key.substr(1);
        const auto judge = [&](const auto& decoded) {
          if (!decoded) {
            findings.problem("long operation {}: {}", quoted(name), decoded.error().detail());
          }
        };
        if (name == kScrubOperation) {
          judge(ScrubRecord::decode(record.value));
        } else if (name == kScrubReportOperation) {
          judge(ScrubReport::decode(record.value));
        } else {
          findings.problem("long operation {}, which is unknown", quoted(name));
        }
      });
}

}  // namespace odx::check
