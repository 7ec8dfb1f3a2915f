// One transaction: reads the newest state, gathers changes, and commits all of them or none.
//
// begin() takes the store mutation lock, commit() or the destructor gives it back. In between no
// device I/O happens. Nothing is visible to anybody before commit().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/types.hpp"
#include "store/core.hpp"
#include "store/extent/tree_editor.hpp"
#include "store/inode/inode.hpp"
#include "store/meta/kv.hpp"

namespace odx {

class Mutation {
 public:
  // Waits for room in the journal batch, then for the lock. EROFS on a read-only store; the
  // store's first fatal error once it has failed.
  static Result<Mutation> begin(Core& core);

  Mutation(Mutation&&) = default;
  Mutation& operator=(Mutation&&) = delete;
  ~Mutation() = default;

  // The state with this transaction's changes. Only for records that have no other accessor here.
  KvOverlay& kv() { return *kv_; }
  TreeEditor& trees() { return *trees_; }

  // A copy to change and hand to put(). ENOENT if there is none.
  Result<Inode> inode(InodeNo ino);
  void put(Inode inode);
  // Removes the record; its tree must have been dropped before.
  void erase_inode(InodeNo ino);

  // The next value of a persistent counter (from 1; never given out twice, also after a crash).
  Result<std::uint64_t> next_number(std::string_view counter);

  // Remembers the checksums of blocks just written, in order.
  Result<void> put_checksums(BlockRun run, const std::uint32_t* crcs);

  [[nodiscard]] std::int64_t now_ns() const { return core_->clock->now_ns(); }
  [[nodiscard]] TxnSeq seq() const;  // the number that commit() will answer with

  // What of commit() may fail because records are damaged; changes nothing that others see. For
  // those who want to tell that from other failures; nothing may be done with trees() afterwards.
  Result<void> prepare();

  // Makes everything visible at once. After this the Mutation is spent. `published` is called once
  // nothing can fail any more, still under the mutation lock: for what is counted beside the
  // records. It must not throw.
  Result<TxnSeq> commit(const std::function<void()>& published = [] {});

 private:
  using Counters = std::map<std::string, std::uint64_t, std::less<>>;
  explicit Mutation(Core& core);
  static Result<std::uint64_t> next_of(Counters& counters, const KvOverlay& kv,
                                       std::string_view name);
  Core* core_;
  std::unique_lock<std::mutex> lock_;
  std::unique_ptr<KvOverlay> kv_;
  std::unique_ptr<Counters> counters_;
  std::unique_ptr<TreeEditor> trees_;
  std::map<InodeNo, std::optional<Inode>> inodes_;
  std::optional<std::vector<NodeChange>> node_changes_;  // once prepared
};

}  // namespace odx
