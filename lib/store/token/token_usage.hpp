// How many tokens there are, whose they are, and how much they pin: what the limits are judged by.
// Derived from table `T`; nothing of it is stored.
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace odx {

struct TokenOptions;

// Thread-safe; its mutex is a leaf lock. The counts run ahead of the table, never behind it: a
// token is counted before the transaction that makes it commits, and discounted after the one that
// ends it has. So no limit is ever exceeded.
class TokenUsage {
 public:
  // Room taken for one live token; given back unless keep() was called.
  class Admission {
   public:
    Admission() = default;
    Admission(Admission&& other) noexcept;
    Admission& operator=(Admission&& other) = delete;
    ~Admission();
    // False: a limit is reached.
    explicit operator bool() const { return owner_ != nullptr; }
    void keep() { owner_ = nullptr; }

   private:
    friend class TokenUsage;
    Admission(TokenUsage* owner, std::uint32_t uid, std::uint64_t data_bytes)
        : owner_(owner), uid_(uid), data_bytes_(data_bytes) {}
    TokenUsage* owner_ = nullptr;
    std::uint32_t uid_ = 0;
    std::uint64_t data_bytes_ = 0;
  };
  Admission admit(std::uint32_t uid, std::uint64_t data_bytes, const TokenOptions& limits);

  // What the table says, whatever the limits; at open.
  void add_live(std::uint32_t uid, std::uint64_t data_bytes);
  void add_tombstone(std::uint32_t uid);

  void remove_live(std::uint32_t uid, std::uint64_t data_bytes);
  void live_to_tombstone(std::uint32_t uid, std::uint64_t data_bytes);
  void remove_tombstone(std::uint32_t uid);

  [[nodiscard]] std::uint64_t live() const;
  [[nodiscard]] std::uint64_t pinned_bytes() const;
  [[nodiscard]] std::uint64_t tombstones() const;

 private:
  struct OfUser {
    std::uint64_t live = 0;
    std::uint64_t tombstones = 0;
  };
  void forget_if_unused(std::uint32_t uid);

  mutable std::mutex mutex_;
  std::unordered_map<std::uint32_t, OfUser> users_;
  std::uint64_t live_ = 0;
  std::uint64_t tombstones_ = 0;
  std::uint64_t pinned_bytes_ = 0;
};

}  // namespace odx
