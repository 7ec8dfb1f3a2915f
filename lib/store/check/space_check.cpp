// Blocks are counted by a sweep: every extent is +1 at its first block and -1 behind its last.
// Sorted, these events give the count of every block, and the places where a recorded count begins
// or ends are events of the same sweep.
#include "store/check/space_check.hpp"

#include <algorithm>

#include "base/aligned_buffer.hpp"
#include "base/crc32c.hpp"
#include "store/extent/block_refs.hpp"
#include "store/meta/keys.hpp"

namespace odx::check {

namespace {

constexpr std::uint64_t kPerRecord = keys::kChecksumsPerRecord;
constexpr std::size_t kChecksumRecordBytes = kPerRecord * sizeof(std::uint32_t);

// A number for a block that looks random (the finisher of SplitMix64).
std::uint64_t number_of(std::uint64_t block) {
  std::uint64_t x = block + 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

void SpaceCheck::see_extent(const TreeEntry& extent, const std::string& owner) {
  if (extent.is_hole()) {
    return;
  }
  ++findings_.report.extents;
  const BlockRun run = blocks_of(extent);
  end_of_extents_ = std::max(end_of_extents_, run.end().value());
  if (run.end().value() > subject_.blocks) {
    findings_.problem("{} names {}, but the device has {} blocks", owner,
                      blocks_text(run.first.value(), run.end().value()), subject_.blocks);
    findings_.references_lost();
    return;
  }
  starts_.push_back(run.first.value());
  ends_.push_back(run.end().value());
}

void SpaceCheck::walk_extent(const TreeEntry& extent) {
  if (extent.is_hole()) {
    return;
  }
  const BlockRun run = blocks_of(extent);
  if (run.end().value() <= subject_.blocks) {
    walked_ += number_of(run.first.value()) - number_of(run.end().value());
  }
}

Result<std::vector<SpaceCheck::Reference>> SpaceCheck::read_references() {
  std::vector<Reference> references;
  ODX_TRY(for_each_record(
      subject_.kv, keys::kBlockRefs, "block references", findings_, [&](const KeyValue& kv) {
        const Result<BlockRefs::Record> record = BlockRefs::decode(kv);
        if (!record) {
          findings_.problem("block {}: {}", keys::number_of(kv.key), record.error().detail());
          findings_.unreadable(kv.key);
          return;
        }
        if (!references.empty() && record->run.first < references.back().run.end()) {
          findings_.problem("two reference counts for block {}", record->run.first.value());
          findings_.unreadable(kv.key);
          return;
        }
        if (!references.empty() && record->run.first == references.back().run.end() &&
            record->refs == references.back().refs) {
          findings_.problem(
              "block {}: its reference count and that of the block before are equal, "
              "but not in one record",
              record->run.first.value());
          references_wrong_ = true;
        }
        references.push_back({record->run, record->refs});
      }));
  return references;
}

Result<void> SpaceCheck::compare_references() {
  const std::vector<Reference> references = ODX_TRY(read_references());
  std::sort(starts_.begin(), starts_.end());
  std::sort(ends_.begin(), ends_.end());

  // A stretch of blocks with equal counts and equal records, not reported yet.
  struct Stretch {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    std::uint64_t counted = 0;
    std::uint64_t recorded = 0;
  } wrong;
  const auto report = [&] {
    if (wrong.first == wrong.end) {
      return;
    }
    references_wrong_ = true;
    if (wrong.counted == 0) {
      findings_.problem("{}: reference count is {}, but nothing refers to it",
                        blocks_text(wrong.first, wrong.end), wrong.recorded);
    } else {
      findings_.problem("{}: reference count is {}, but it has {}",
                        blocks_text(wrong.first, wrong.end),
                        std::max<std::uint64_t>(wrong.recorded, 1), wrong.counted);
    }
  };

  std::vector<Reference> counts;  // as they should be
  std::uint64_t by_table = 0;     // what the walk has in walked_
  std::size_t next_start = 0;
  std::size_t next_end = 0;
  std::size_t next_reference = 0;
  for (std::uint64_t at = 0;;) {
    while (next_reference < references.size() &&
           references[next_reference].run.end().value() <= at) {
      ++next_reference;
    }
    while (next_start < starts_.size() && starts_[next_start] <= at) {
      ++next_start;
    }
    while (next_end < ends_.size() && ends_[next_end] <= at) {
      ++next_end;
    }
    const std::uint64_t counted = next_start - next_end;
    std::uint64_t recorded = 0;
    std::uint64_t until = UINT64_MAX;
    if (next_reference < references.size()) {
      const Reference& reference = references[next_reference];
      const bool inside = reference.run.first.value() <= at;
      recorded = inside ? reference.refs : 0;
      until = inside ? reference.run.end().value() : reference.run.first.value();
    }
    if (next_start < starts_.size()) {
      until = std::min(until, starts_[next_start]);
    }
    if (next_end < ends_.size()) {
      until = std::min(until, ends_[next_end]);
    }
    if (until == UINT64_MAX) {
      break;
    }
    if (counted != 0) {
      if (!used_.empty() && used_.back().end().value() == at) {
        used_.back().count += until - at;
      } else {
        used_.push_back({BlockNo(at), until - at});
      }
      findings_.report.used_blocks += until - at;
    }
    if (counted != 0) {
      by_table += counted * (number_of(at) - number_of(until));
    }
    if (findings_.repairing()) {
      // What nobody can prove too high stays.
      const std::uint64_t right =
          findings_.references_complete() ? counted : std::max(counted, recorded);
      if (right >= 2) {
        add_count(counts, at, until, right);
      }
    }
    if (recorded != (counted >= 2 ? counted : 0)) {
      if (wrong.end != at || wrong.counted != counted || wrong.recorded != recorded) {
        report();
        wrong = {at, at, counted, recorded};
      }
      wrong.end = until;
    }
    at = until;
  }
  report();
  starts_ = {};
  ends_ = {};
  if (by_table != walked_) {
    findings_.problem("the table of nodes and the trees name different blocks");
    findings_.references_lost();  // one of the counts is wrong: trust neither
    return {};
  }
  return findings_.repairing() ? fix_references(counts) : Result<void>();
}

void SpaceCheck::add_count(std::vector<Reference>& counts, std::uint64_t first, std::uint64_t end,
                           std::uint64_t refs) {
  if (!counts.empty() && counts.back().run.end().value() == first && counts.back().refs == refs) {
    counts.back().run.count += end - first;
  } else {
    counts.push_back({{BlockNo(first), end - first}, refs});
  }
}

// Replaces the whole table, as far as it differs. An unreadable record may have had any count, so
// then it takes a complete count to say what is right.
Result<void> SpaceCheck::fix_references(const std::vector<Reference>& counts) {
  const bool unreadable = !findings_.all_readable(keys::kBlockRefs);
  if ((!references_wrong_ && !unreadable) || (unreadable && !findings_.references_complete())) {
    return {};
  }
  WriteSet writes;
  for (const Reference& count : counts) {
    std::string value;
    put_le(value, count.run.count);
    put_le(value, count.refs);
    writes.emplace(keys::block_refs(count.run.end() - 1), std::move(value));
  }
  const CheckOptions nothing{.data = false, .progress = {}, .max_problems = 0};
  Findings quiet(nothing);
  ODX_TRY(for_each_record(subject_.kv, keys::table_begin(keys::kBlockRefs),
                          keys::table_end(keys::kBlockRefs), quiet, [&](const KeyValue& record) {
                            const auto at = writes.find(record.key);
                            if (at == writes.end()) {
                              writes.emplace(record.key, std::nullopt);
                            } else if (*at->second == record.value) {
                              writes.erase(at);
                            }
                          }));
  findings_.for_each_unreadable(keys::kBlockRefs,
                                [&](const std::string& key) { writes.emplace(key, std::nullopt); });
  if (!writes.empty()) {
    findings_.fix(Stage::kCounts, "the reference counts of blocks are what the trees say now",
                  std::move(writes));
  }
  return {};
}

Result<void> SpaceCheck::compare_checksums() {
  auto run = used_.begin();
  std::uint64_t group = 0;  // no record below this one is expected any more
  // Names the blocks in use of groups [group, end), which have no record.
  const auto skip_to = [&](std::uint64_t end) {
    for (; run != used_.end(); ++run) {
      const std::uint64_t first = std::max(run->first.value(), group * kPerRecord);
      const std::uint64_t stop = end > UINT64_MAX / kPerRecord
                                     ? run->end().value()
                                     : std::min(run->end().value(), end * kPerRecord);
      if (first < stop) {
        findings_.problem("{}: no checksum", blocks_text(first, stop));
      }
      if (run->end().value() > stop) {
        break;
      }
    }
    group = end;
  };
  // Whether any block of a group is in use, or may be.
  const auto in_use = [&](std::uint64_t number) {
    if (number >= (end_of_extents_ + kPerRecord - 1) / kPerRecord) {
      return !findings_.references_complete();
    }
    const auto at = std::lower_bound(
        used_.begin(), used_.end(), number * kPerRecord,
        [](const BlockRun& r, std::uint64_t block) { return r.end().value() <= block; });
    return !findings_.references_complete() ||
           (at != used_.end() && at->first.value() < (number + 1) * kPerRecord);
  };
  const auto drop = [&](const std::string& key, std::uint64_t number) {
    findings_.fix(
        Stage::kCounts,
        fmt::format("checksum record {}, of blocks that are not in use, is removed", number),
        {{key, std::nullopt}});
  };
  ODX_TRY(for_each_record(
      subject_.kv, keys::kChecksums, "checksums", findings_, [&](const KeyValue& record) {
        const std::uint64_t number = keys::number_of(record.key);
        if (record.key.size() != 9 || number >= (subject_.blocks + kPerRecord - 1) / kPerRecord) {
          findings_.problem("checksum record {}, where there are no blocks", number);
          // Where a segment is missing, they come back with it.
          if (record.key.size() != 9 || number >= (end_of_extents_ + kPerRecord - 1) / kPerRecord) {
            drop(record.key, number);
          }
          return;
        }
        if (record.value.size() != kChecksumRecordBytes) {
          findings_.problem("malformed checksum record {}", number);
          if (!in_use(number)) {
            drop(record.key, number);
          }
        }
        skip_to(number);
        group = number + 1;
      }));
  skip_to(UINT64_MAX);
  findings_.for_each_unreadable(keys::kChecksums, [&](const std::string& key) {
    if (key.size() != 9 || !in_use(keys::number_of(key))) {
      drop(key, keys::number_of(key));
    }
  });
  return {};
}

Result<void> SpaceCheck::compare_bitmaps() {
  // Without the mark of a clean unmount, the bitmaps mean nothing.
  const auto clean = subject_.kv.get(keys::counter("clean"));
  if (!clean && clean.error().is_corruption()) {
    findings_.problem("mark of a clean unmount: {}", clean.error().detail());
    drop_mark();
    return {};
  }
  if (!clean) {
    return std::unexpected(clean.error());
  }
  if (!*clean) {
    return {};
  }
  const std::uint64_t segments = (subject_.blocks + kSegmentBlocks - 1) / kSegmentBlocks;
  std::uint64_t expected = 0;
  ODX_TRY(for_each_record(
      subject_.kv, keys::kBitmap, "bitmaps", findings_, [&](const KeyValue& record) {
        const std::uint64_t segment = keys::number_of(record.key);
        const std::uint64_t first = segment * kSegmentBlocks;
        if (record.key.size() != 9 || segment >= segments ||
            record.value.size() != (std::min(kSegmentBlocks, subject_.blocks - first) + 7) / 8) {
          findings_.problem("malformed bitmap of segment {}", segment);
          drop_mark();
          expected = std::max(expected, segment + 1);
          return;
        }
        for (; expected < segment; ++expected) {
          findings_.problem("no bitmap of segment {}", expected);
          drop_mark();
        }
        ++expected;
        compare_bitmap(segment, record.value);
      }));
  // Segments added after that unmount have none until the first commit takes the mark back; then
  // nothing in them is in use yet.
  const std::uint64_t used_end = used_.empty() ? 0 : used_.back().end().value();
  for (; expected < segments && expected * kSegmentBlocks < used_end; ++expected) {
    findings_.problem("no bitmap of segment {}", expected);
    drop_mark();
  }
  if (!findings_.all_readable(keys::kBitmap)) {
    drop_mark();
  }
  return {};
}

// Without the mark, the next mount finds the free blocks by itself. It must be able to: it reads
// every leaf.
void SpaceCheck::drop_mark() {
  if (!findings_.references_complete()) {
    return;
  }
  WriteSet writes{{keys::counter("clean"), std::nullopt}};
  findings_.for_each_unreadable(keys::kBitmap,
                                [&](const std::string& key) { writes.emplace(key, std::nullopt); });
  findings_.fix(Stage::kCounts,
                "the saved bitmaps are dropped: the next mount finds the free blocks by itself",
                std::move(writes));
}

void SpaceCheck::compare_bitmap(std::uint64_t segment, std::string_view saved) {
  const std::uint64_t base = segment * kSegmentBlocks;
  const std::uint64_t end = std::min(base + kSegmentBlocks, subject_.blocks);
  auto run = std::lower_bound(
      used_.begin(), used_.end(), base,
      [](const BlockRun& r, std::uint64_t block) { return r.end().value() <= block; });
  std::uint64_t wrong_from = base;
  std::string right(saved);
  const bool complete = findings_.references_complete();
  bool wrong = false;
  bool wrong_used = false;
  for (std::uint64_t block = base; block <= end; ++block) {
    bool differs = false;
    bool in_use = false;
    if (block < end) {
      while (run != used_.end() && run->end().value() <= block) {
        ++run;
      }
      in_use = run != used_.end() && run->first.value() <= block;
      const auto byte = static_cast<unsigned char>(saved[(block - base) / 8]);
      const unsigned bit = 1U << (block - base) % 8;
      differs = ((byte & bit) != 0) != in_use;
      // A block that is in use must never look free. The other way round it takes a proof.
      if (differs && (in_use || complete)) {
        char& out = right[(block - base) / 8];
        out = static_cast<char>(static_cast<unsigned char>(out) ^ bit);
      }
    }
    if (wrong && (!differs || in_use != wrong_used)) {
      findings_.problem("{}: {}", blocks_text(wrong_from, block),
                        wrong_used ? "free in the saved bitmap, but in use"
                                   : "in use in the saved bitmap, but nothing refers to it");
      wrong = false;
    }
    if (differs && !wrong) {
      wrong = true;
      wrong_used = in_use;
      wrong_from = block;
    }
  }
  if (right != saved) {
    findings_.fix(Stage::kCounts,
                  fmt::format("the saved bitmap of segment {} is what the trees say now", segment),
                  {{keys::bitmap(segment), std::move(right)}});
  }
}

Result<std::vector<std::uint64_t>> SpaceCheck::verify_data() {
  std::uint64_t done = 0;
  for (const BlockRun& run : used_) {
    constexpr std::uint64_t kAtOnce = 512;
    for (std::uint64_t at = 0; at < run.count; at += kAtOnce) {
      findings_.progress("data", done, findings_.report.used_blocks);
      const std::uint64_t count = std::min(kAtOnce, run.count - at);
      ODX_TRY(verify_run({run.first + at, count}));
      done += count;
    }
  }
  findings_.progress("data", done, findings_.report.used_blocks);
  return std::move(damaged_);
}

Result<void> SpaceCheck::verify_run(BlockRun run) {
  AlignedBuffer buffer(run.count * kBlockBytes);
  const BlockRead whole{run, buffer.data()};
  const bool readable = subject_.device->read({&whole, 1}).has_value();
  for (std::uint64_t i = 0; i < run.count; ++i) {
    const BlockNo block = run.first + i;
    std::byte* const data = buffer.data() + i * kBlockBytes;
    if (!readable) {  // some block of them: find out which
      const BlockRead one{{block, 1}, data};
      if (const auto read = subject_.device->read({&one, 1}); !read) {
        findings_.problem("block {} cannot be read: {}", block.value(), read.error().message());
        damaged_.push_back(block.value());
        continue;
      }
    }
    ODX_TRY(verify_block(block, data));
  }
  return {};
}

Result<void> SpaceCheck::verify_block(BlockNo block, const std::byte* data) {
  const std::uint64_t group = block.value() / kPerRecord;
  if (group != crcs_group_) {
    const auto record = subject_.kv.get(keys::checksums(block));
    if (!record && !record.error().is_corruption()) {
      return std::unexpected(record.error());
    }
    const bool usable = record && *record && (*record)->size() == kChecksumRecordBytes;
    crcs_ = usable ? **record : std::string();
    crcs_group_ = group;
  }
  if (crcs_.empty()) {
    return {};  // named by compare_checksums()
  }
  const auto recorded =
      load_le<std::uint32_t>(crcs_.data() + block.value() % kPerRecord * sizeof(std::uint32_t));
  if (crc32c(data, kBlockBytes) == recorded) {
    ++findings_.report.verified_blocks;
  } else {
    findings_.problem("block {}: the data does not match its checksum", block.value());
    damaged_.push_back(block.value());
  }
  return {};
}

}  // namespace odx::check
