// Views of the state that stay as they are.
#include <algorithm>
#include <optional>
#include <utility>

#include "store/meta/meta_store_impl.hpp"

namespace odx {

namespace {

// One snapshot of LMDB, kept for as long as it takes.
class FrozenView final : public KvReader {
 public:
  FrozenView(const LmdbBase& base, LmdbBase::Snapshot snapshot)
      : base_(base), snapshot_(std::move(snapshot)) {}

  Result<std::optional<std::string>> get(std::string_view key) const override {
    ODX_TRY(go_on());
    return snapshot_->get(key);
  }

  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override {
    std::vector<KeyValue> out;
    ODX_TRY(go_on());
    from = std::max(from, std::string_view("\x01", 1));
    if (from >= end || limit == 0) {
      return out;
    }
    auto at = ODX_TRY(snapshot_->cursor());
    for (ODX_TRY(at.seek(from)); !at.at_end() && at.key() < end && out.size() < limit;) {
      const std::string_view value = ODX_TRY(at.value());
      out.push_back({std::string(at.key()), std::string(value)});
      ODX_TRY(at.next());
    }
    return out;
  }

 private:
  Result<void> go_on() const {
    if (snapshot_ && base_.wants_to_grow()) {
      snapshot_.reset();
    }
    return snapshot_ ? Result<void>() : fail(EAGAIN, "the metadata base had to grow meanwhile");
  }

  const LmdbBase& base_;
  mutable std::optional<LmdbBase::Snapshot> snapshot_;
};

// A state that does not change anyway.
class SameView final : public KvReader {
 public:
  explicit SameView(const KvReader& state) : state_(state) {}
  Result<std::optional<std::string>> get(std::string_view key) const override {
    return state_.get(key);
  }
  Result<std::vector<KeyValue>> scan(std::string_view from, std::string_view end,
                                     std::size_t limit) const override {
    return state_.scan(from, end, limit);
  }

 private:
  const KvReader& state_;
};

}  // namespace

Result<std::unique_ptr<KvReader>> MetaStoreImpl::frozen_view() {
  if (read_only_) {
    return std::make_unique<SameView>(*this);
  }
  ODX_TRY(checkpoint());
  return std::make_unique<FrozenView>(*base_, ODX_TRY(base_->snapshot()));
}

}  // namespace odx
