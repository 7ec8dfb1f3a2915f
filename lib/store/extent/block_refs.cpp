// Reference counts of block runs, kept as an interval map in table `R`.
//
//        run to change        |-----------|
//   before   ---2222---33333333-----4444444444---   (- means 1, no record)
//   more     ---2222---3333344444444222255554444---   pieces go up by one each,
//                           ^ then equal neighbours become one record again
//
// The state is canonical: two touching records never have the same count, and no record says 1.
// So the number of records follows the sharing, not the history of how it came about.

#include "store/extent/block_refs.hpp"

#include <algorithm>

#include "store/meta/keys.hpp"

namespace odx {

Result<BlockRefs::Record> BlockRefs::decode(const KeyValue& record) {
  Decoder in(record.value);
  const auto count = in.le<std::uint64_t>();
  const auto refs = in.le<std::uint64_t>();
  ODX_TRY(in.finish("block reference record"));
  const std::uint64_t last = keys::number_of(record.key);
  if (record.key.size() != 9 || count == 0 || count > last + 1 || refs < 2 || refs == UINT64_MAX) {
    return corrupt("impossible block reference record");
  }
  return Record{{BlockNo(last + 1 - count), count}, refs};
}

void BlockRefs::put(BlockRun run, std::uint64_t refs) {
  std::string value;
  put_le(value, run.count);
  put_le(value, refs);
  kv_.put(keys::block_refs(run.end() - 1), std::move(value));
}

// Writes what differs between two states of one stretch, both in the order of their ends.
void BlockRefs::replace(const std::vector<Record>& before, const std::vector<Record>& after) {
  auto old = before.begin();
  for (const Record& record : after) {
    if (record.refs < 2) {
      continue;  // has no record
    }
    for (; old != before.end() && old->run.end() < record.run.end(); ++old) {
      kv_.erase(keys::block_refs(old->run.end() - 1));
    }
    const bool same_key = old != before.end() && old->run.end() == record.run.end();
    if (!same_key || !(old->run == record.run) || old->refs != record.refs) {
      put(record.run, record.refs);
    }
    if (same_key) {
      ++old;
    }
  }
  for (; old != before.end(); ++old) {
    kv_.erase(keys::block_refs(old->run.end() - 1));
  }
}

Result<void> BlockRefs::adjust(BlockRun run, Change what) {
  const bool more = what == Change::kMore;
  std::vector<Record> before;  // records that overlap the run, or touch it
  const BlockNo look_from = run.first.value() == 0 ? run.first : run.first - 1;
  BlockNo from = look_from;
  for (bool done = false; !done;) {
    const auto found =
        ODX_TRY(kv_.scan(keys::block_refs(from), keys::table_end(keys::kBlockRefs), 16));
    done = found.size() < 16;
    for (const KeyValue& kv : found) {
      const Record record = ODX_TRY(decode(kv));
      if (record.run.first > run.end()) {
        done = true;
        break;
      }
      if (!before.empty() && record.run.first < before.back().run.end()) {
        return corrupt("two reference counts for block " +
                       std::to_string(record.run.first.value()));
      }
      before.push_back(record);
      from = record.run.end();
    }
  }

  // The same stretch of blocks afterwards, canonical.
  std::vector<Record> after;
  const auto emit = [&](BlockNo first, BlockNo end, std::uint64_t refs) {
    if (first >= end) {
      return;
    }
    if (!after.empty() && after.back().run.end() == first && after.back().refs == refs) {
      after.back().run.count += end - first;
    } else {
      after.push_back({{first, end - first}, refs});
    }
  };
  bool freed_one = false;
  const auto change = [&](BlockNo first, BlockNo end, std::uint64_t refs) {
    if (first >= end) {
      return;
    }
    freed_one = freed_one || (!more && refs == 1);
    if (!more && refs == 1) {
      if (!freed_.empty() && freed_.back().end() == first) {
        freed_.back().count += end - first;
      } else {
        freed_.push_back({first, end - first});
      }
    }
    emit(first, end, more ? refs + 1 : refs - 1);
  };
  BlockNo at = run.first;
  for (const Record& record : before) {
    const BlockNo first = record.run.first;
    const BlockNo end = record.run.end();
    emit(first, std::min(end, run.first), record.refs);  // in front of the run
    change(at, std::min(first, run.end()), 1);           // the gap before this record
    change(std::max(first, run.first), std::min(end, run.end()), record.refs);
    emit(std::max(first, run.end()), end, record.refs);  // behind the run
    at = std::max(at, std::min(end, run.end()));
  }
  change(at, run.end(), 1);
  if (freed_one && what == Change::kLessButNotNone) {
    return corrupt("block " + std::to_string(run.first.value()) +
                   " has fewer references than there are");
  }

  replace(before, after);
  return {};
}

}  // namespace odx
