#include "store/check/scrub_record.hpp"

#include "base/codec.hpp"

namespace odx {

namespace {
constexpr std::uint8_t kVersion = 1;
}  // namespace

std::string ScrubRecord::encode() const {
  std::string out;
  put_le(out, kVersion);
  put_le(out, static_cast<std::uint8_t>(state));
  put_le(out, pass);
  put_le(out, rate);
  put_le(out, static_cast<std::uint64_t>(started_ns));
  put_le(out, static_cast<std::uint64_t>(changed_ns));
  put_le(out, active_ns);
  put_le(out, position);
  put_le(out, done_blocks);
  put_le(out, damaged_blocks);
  put_le(out, damaged_owners);
  return out;
}

Result<ScrubRecord> ScrubRecord::decode(std::string_view bytes) {
  Decoder in(bytes);
  if (in.le<std::uint8_t>() != kVersion) {
    return corrupt("scrub record of an unknown version");
  }
  ScrubRecord record;
  const auto state = in.le<std::uint8_t>();
  record.state = static_cast<State>(state);
  record.pass = in.le<std::uint64_t>();
  record.rate = in.le<std::uint64_t>();
  record.started_ns = static_cast<std::int64_t>(in.le<std::uint64_t>());
  record.changed_ns = static_cast<std::int64_t>(in.le<std::uint64_t>());
  record.active_ns = in.le<std::uint64_t>();
  record.position = in.le<std::uint64_t>();
  record.done_blocks = in.le<std::uint64_t>();
  record.damaged_blocks = in.le<std::uint64_t>();
  record.damaged_owners = in.le<std::uint64_t>();
  ODX_TRY(in.finish("scrub record"));
  constexpr std::uint64_t kMostBlocks = UINT64_MAX / kBlockBytes;
  if (state > static_cast<std::uint8_t>(State::kCancelled) || record.pass == 0 ||
      record.rate == 0 || record.position > kMostBlocks || record.done_blocks > kMostBlocks) {
    return corrupt("scrub record contradicts itself");
  }
  return record;
}

std::string ScrubReport::encode() const {
  std::string out;
  put_le(out, kVersion);
  put_le(out, pass);
  return out + text;
}

Result<ScrubReport> ScrubReport::decode(std::string_view bytes) {
  Decoder in(bytes);
  if (in.le<std::uint8_t>() != kVersion) {
    return corrupt("scrub report of an unknown version");
  }
  ScrubReport report;
  report.pass = in.le<std::uint64_t>();
  report.text = in.bytes(in.remaining());
  ODX_TRY(in.finish("scrub report"));
  if (report.pass == 0 || report.text.size() > kMaxBytes ||
      (!report.text.empty() && report.text.back() != '\n')) {
    return corrupt("scrub report contradicts itself");
  }
  return report;
}

}  // namespace odx
