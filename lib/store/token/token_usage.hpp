// How many tokens there are, whose they are, and how much they pin: what the limits are judged by.
// Derived from table `T`; nothing of it is stored.
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace odx {

struct TokenOptions;

// Thread-safe; its mutex is a leaf lock. Whoever changes table `T` changes the counts in the same
// critical section of the mutation lock, before the commit: so under that lock the two agree, and
// no limit is ever exceeded or too narrow by a token. (A commit fails only when the whole store
// does, and then no more tokens are made.)
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
    void keep();

   private:
    friend class TokenUsage;
    Admission(TokenUsage* owner, std::uint32_t uid, std::uint64_t data_bytes)
        : owner_(owner), uid_(uid), data_bytes_(data_bytes) {}
    TokenUsage* owner_ = nullptr;
    std::uint32_t uid_ = 0;
    std::uint64_t data_bytes_ = 0;
  };
  Admission admit(std::uint32_t uid, std::uint64_t data_bytes, const TokenOptions& limits);
  // Whether admit() would; without the mutation lock no more than a good guess.
  [[nodiscard]] bool has_room(std::uint32_t uid, std::uint64_t data_bytes,
                              const TokenOptions& limits) const;

  // What the table says, whatever the limits; at open.
  void add_live(std::uint32_t uid, std::uint64_t data_bytes);
  void add_tombstone(std::uint32_t uid);

  void remove_live(std::uint32_t uid, std::uint64_t data_bytes);
  void live_to_tombstone(std::uint32_t uid, std::uint64_t data_bytes);
  void remove_tombstone(std::uint32_t uid);

  // Sums of bytes are told as UINT64_MAX when they are larger.
  [[nodiscard]] std::uint64_t live() const;
  [[nodiscard]] std::uint64_t pinned_bytes() const;
  [[nodiscard]] std::uint64_t tombstones() const;
  // The highest that these two have been since open.
  [[nodiscard]] std::uint64_t most_live() const;
  [[nodiscard]] std::uint64_t most_pinned_bytes() const;

 private:
  // Two tokens of a file of 8 EiB (nothing but clones of a few blocks) overflow 64 bits; if that
  // were a limit, one user could use it up for all.
  using ByteSum = unsigned __int128;
  struct OfUser {
    std::uint64_t live = 0;
    std::uint64_t tombstones = 0;
    ByteSum pinned_bytes = 0;
  };
  [[nodiscard]] bool fits(std::uint32_t uid, std::uint64_t data_bytes,
                          const TokenOptions& limits) const;
  void add(std::uint32_t uid, std::uint64_t data_bytes);
  OfUser& subtract(std::uint32_t uid, std::uint64_t data_bytes);
  void note_peak();
  void forget_if_unused(std::uint32_t uid);

  mutable std::mutex mutex_;
  std::unordered_map<std::uint32_t, OfUser> users_;
  std::uint64_t live_ = 0;
  std::uint64_t tombstones_ = 0;
  ByteSum pinned_bytes_ = 0;
  std::uint64_t most_live_ = 0;
  ByteSum most_pinned_bytes_ = 0;
};

}  // namespace odx
