// The check of a store over any records: it reports, whatever they say.
#include "store/check/check.hpp"

#include "input.hpp"
#include "store_sample.hpp"

namespace odx::fuzz {

namespace {

void run(Input in) {
  static const StoreSample sample(StoreSample::Content::kEverything);
  CheckOptions options;
  const std::uint8_t flags = in.byte();
  options.data = (flags & 1U) != 0;
  options.max_problems = flags >> 4U;
  const std::uint64_t blocks = (flags & 2U) != 0 ? in.number() % 1'000'000 : sample.blocks();
  MapKv kv;
  kv.records = sample.records();
  const WriteSet changes = changes_from(in, sample.records());
  kv.apply(changes);
  const auto report = check_state({kv, sample.uuid(), blocks, &sample.shared_device()}, options);
  FUZZ_EXPECT(report || options.data);  // reading a block that there is not may fail
  if (report) {
    FUZZ_EXPECT(report->problems.size() <= options.max_problems);
    FUZZ_EXPECT(report->problem_count >= report->problems.size());
    FUZZ_EXPECT(!changes.empty() || blocks != sample.blocks() || report->clean());
  }
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
