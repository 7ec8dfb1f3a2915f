#include "store/mutation.hpp"

#include <algorithm>
#include <utility>

#include "store/meta/keys.hpp"

namespace odx {

Result<Mutation> Mutation::begin(Core& core) {
  if (core.read_only) {
    return fail(EROFS);
  }
  ODX_TRY(core.meta->throttle());
  Mutation mutation(core);
  ODX_TRY(core.meta->health());
  return mutation;
}

Mutation::Mutation(Core& core)
    : core_(&core),
      lock_(core.mutation_mutex),
      kv_(std::make_unique<KvOverlay>(*core.meta)),
      counters_(std::make_unique<Counters>()) {
  // The Mutation may move; what the editor holds on to does not.
  trees_ = std::make_unique<TreeEditor>(
      *kv_, core.nodes, [counters = counters_.get(), kv = kv_.get()]() -> Result<NodeId> {
        return NodeId(ODX_TRY(next_of(*counters, *kv, "node")));
      });
}

Result<std::uint64_t> Mutation::next_of(Counters& counters, const KvOverlay& kv,
                                        std::string_view name) {
  auto at = counters.find(name);
  if (at == counters.end()) {
    std::uint64_t last = 0;
    if (const auto raw = ODX_TRY(kv.get(keys::counter(name)))) {
      Decoder in(*raw);
      last = in.le<std::uint64_t>();
      ODX_TRY(in.finish("counter"));
    }
    at = counters.emplace(std::string(name), last).first;
  }
  return ++at->second;
}

Result<std::uint64_t> Mutation::next_number(std::string_view counter) {
  return next_of(*counters_, *kv_, counter);
}

Result<Inode> Mutation::inode(InodeNo ino) {
  const auto at = inodes_.find(ino);
  if (at != inodes_.end()) {
    if (!at->second) {
      return fail(ENOENT);
    }
    return *at->second;
  }
  return *ODX_TRY(core_->inode(ino));
}

void Mutation::put(Inode inode) {
  const InodeNo ino = inode.ino;
  inodes_.insert_or_assign(ino, std::move(inode));
}

void Mutation::erase_inode(InodeNo ino) { inodes_.insert_or_assign(ino, std::nullopt); }

Result<void> Mutation::put_checksums(BlockRun run, const std::uint32_t* crcs) {
  constexpr std::uint64_t kPerRecord = keys::kChecksumsPerRecord;
  for (BlockNo block = run.first; block < run.end();) {
    const std::string key = keys::checksums(block);
    const std::uint64_t slot = block.value() % kPerRecord;
    const std::uint64_t count = std::min(kPerRecord - slot, run.end() - block);
    std::string record(kPerRecord * sizeof(std::uint32_t), '\0');
    if (count < kPerRecord) {
      if (auto old = ODX_TRY(kv_->get(key))) {
        if (old->size() != record.size()) {
          return corrupt("malformed checksum record");
        }
        record = std::move(*old);
      }
    }
    std::memcpy(record.data() + slot * sizeof(std::uint32_t), crcs + (block - run.first),
                count * sizeof(std::uint32_t));
    kv_->put(key, std::move(record));
    block += count;
  }
  return {};
}

TxnSeq Mutation::seq() const { return core_->meta->committed() + 1; }

namespace {

// Takes the nodes of a transaction that does not happen out of the cache.
struct Withdrawal {
  NodeCache& nodes;
  TxnSeq seq;
  const std::vector<NodeChange>& changes;
  bool armed = true;
  ~Withdrawal() {
    if (armed) {
      nodes.withdraw(seq, changes);
    }
  }
};

}  // namespace

Result<void> Mutation::prepare() {
  if (!node_changes_) {
    node_changes_ = ODX_TRY(trees_->finish());
  }
  return core_->space.check_used(trees_->freed_blocks());
}

Result<TxnSeq> Mutation::commit(const std::function<void()>& published) {
  ODX_TRY(prepare());
  const std::vector<NodeChange>& changes = *node_changes_;
  for (const auto& [ino, inode] : inodes_) {
    if (inode) {
      kv_->put(keys::inode(ino), inode->encode());
    } else {
      kv_->erase(keys::inode(ino));
    }
  }
  for (const auto& [name, last] : *counters_) {
    std::string value;
    put_le(value, last);
    kv_->put(keys::counter(name), std::move(value));
  }
  if (kv_->writes().empty()) {
    const TxnSeq unchanged = core_->meta->committed();
    published();
    lock_.unlock();
    return unchanged;
  }
  if (core_->clean_mark) {
    kv_->erase(keys::counter("clean"));
  }

  // Nodes first: a reader that began earlier and finds the new version in the KV state needs the
  // old one in the cache's history. Inodes last: what is looked up in the KV state while an inode
  // is not published yet is void by then, so a deleted one cannot come back into the cache. Readers
  // that meet the new version too early wait for its snapshot (Core::view).
  //
  // All memory is taken before the KV state changes: until then running out of it only means that
  // the transaction does not happen, and from then on nothing may fail.
  const TxnSeq seq = this->seq();
  SpaceMap::Deferral freed = SpaceMap::prepare(trees_->freed_blocks());
  std::vector<std::pair<InodeNo, InodePtr>> inodes;
  inodes.reserve(inodes_.size());
  for (auto& [ino, inode] : inodes_) {
    inodes.emplace_back(ino, inode ? std::make_shared<const Inode>(std::move(*inode)) : nullptr);
  }
  Withdrawal withdrawal{core_->nodes, seq, changes};
  core_->nodes.publish(seq, changes);
  ODX_CHECK(ODX_TRY(core_->meta->commit(kv_->take_writes())) == seq);
  withdrawal.armed = false;
  for (auto& [ino, inode] : inodes) {
    core_->inodes.publish(ino, std::move(inode), seq);
  }
  core_->clean_mark = false;
  core_->snapshots.publish(seq);
  core_->space.defer(seq, std::move(freed));
  core_->nodes.trim(core_->snapshots.oldest());
  published();

  const std::int64_t queued = trees_->reclaim_delta();
  core_->reclaim_pending.fetch_add(static_cast<std::uint64_t>(queued));
  lock_.unlock();
  if (queued > 0) {
    core_->background_bell.ring();
  }
  return seq;
}

}  // namespace odx
