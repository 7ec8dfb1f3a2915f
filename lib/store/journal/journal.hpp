// The ring journal: a fixed file of 4 KiB blocks, zero-filled at creation, to which batches are
// appended, each with one durable write (O_DIRECT, RWF_DSYNC). Batches are numbered by Lsn without
// gaps. The format is in store/FORMAT.md; the protocol of group commit is the caller's
// (store/meta), this is only the ring.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/types.hpp"

namespace odx {

// Where a batch starts: `offset` bytes into the ring (a multiple of 4096), in lap `lap` (from 1;
// every wrap to the start of the ring begins the next one).
struct JournalPosition {
  std::uint64_t lap = 1;
  std::uint64_t offset = 0;
  friend bool operator==(const JournalPosition&, const JournalPosition&) = default;
};

// How replay ended.
enum class JournalEnd {
  kClean,    // the next place holds no batch of this lap: the normal end
  kTornTail,  // the last append did not complete; what it held was never acknowledged
  kDamaged,  // a batch is unreadable although a later one is intact: acknowledged state is lost
};

class Journal {
 public:
  // Creates and zero-fills the file, durable on return. `ring_bytes` is a multiple of 4096, at
  // least 1 MiB.
  static Result<void> format(const std::string& path, std::uint64_t ring_bytes);

  // `store_uuid` salts every checksum, so another store's journal never replays here.
  static Result<std::unique_ptr<Journal>> open(const std::string& path, const Uuid& store_uuid,
                                               bool read_only);
  virtual ~Journal() = default;

  // Calls `batch` for each batch from `start` on, the first of which must be `first`, in order,
  // and leaves the journal ready to append after the last good one. Call once, before append.
  // An error from `batch` ends the replay with that error. After kDamaged nothing can be appended.
  // `closed`: the caller knows that no append at `start` was ever begun, so that there is no need
  // to search the whole ring for signs of one that became unreadable.
  virtual Result<JournalEnd> replay(
      JournalPosition start, Lsn first, bool closed,
      const std::function<Result<void>(Lsn, std::string_view payload)>& batch) = 0;

  // After a replay that found damage: gives up what is behind it and makes the journal ready to
  // append at a new place, with a number that no batch in the ring, readable or not, can have. The
  // next replay must start there: the caller writes that place down, as `closed`, before it appends.
  virtual Result<void> give_up_tail() = 0;

  // Whether a payload of that size can be appended now. Stays true until the next append.
  [[nodiscard]] virtual bool has_room(std::uint64_t payload_bytes) const = 0;

  // Appends the next batch; durable on return. Returns its number. ENOSPC if the ring has no room
  // (release() first), EMSGSIZE above max_payload_bytes(). After any other error the journal accepts no more appends. One thread.
  virtual Result<Lsn> append(std::string_view payload) = 0;

  // Where the batch after the last appended one will start, and its number.
  [[nodiscard]] virtual JournalPosition next_position() const = 0;
  [[nodiscard]] virtual Lsn next_lsn() const = 0;

  // Batches before `position` are no longer needed. Any thread.
  virtual void release(JournalPosition position) = 0;

  // Bytes of ring between the released position and the next one; and the whole ring. Any thread.
  [[nodiscard]] virtual std::uint64_t used_bytes() const = 0;
  [[nodiscard]] virtual std::uint64_t ring_bytes() const = 0;
  // Largest payload that one append takes (a quarter of the ring).
  [[nodiscard]] virtual std::uint64_t max_payload_bytes() const = 0;
};

}  // namespace odx
