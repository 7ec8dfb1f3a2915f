// Everything that this program does to files, told to a listener in the order of the kernel.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace odx::crash {

enum class Call { kRead, kWrite, kResize, kReserve, kPunch, kSync, kCreate, kRename, kUnlink };

// What becomes of a call.
struct Fate {
  int error = 0;                        // not 0: it fails so, and the kernel never hears of it
  std::uint64_t at_most = UINT64_MAX;   // bytes that a read or write moves
  std::int64_t move_by = 0;             // where a write goes instead
  std::uint64_t flip_bit = UINT64_MAX;  // the bit of what is read that arrives wrong
  std::chrono::microseconds delay{0};   // before the kernel hears of it
};

// Files and directories are named by their inode number on the host, which renames do not change.
// Calls come one at a time, each right after the kernel did the work; a call that failed is not
// told.
class FileListener {
 public:
  virtual ~FileListener() = default;

  // Asked first; `at` and `bytes` of reads and writes.
  virtual Fate fate(Call, ino_t, std::uint64_t /*at*/, std::uint64_t /*bytes*/) { return {}; }
  // Whether it wants to be asked about reads.
  [[nodiscard]] virtual bool minds_reads() const { return false; }

  // `synced`: durable on return (O_DSYNC, O_SYNC, RWF_DSYNC).
  virtual void wrote(ino_t file, std::uint64_t at, std::span<const std::byte> data,
                     bool synced) = 0;
  virtual void resized(ino_t file, std::uint64_t bytes) = 0;
  virtual void reserved(ino_t file, std::uint64_t end) = 0;
  virtual void punched(ino_t file, std::uint64_t at, std::uint64_t bytes) = 0;
  virtual void synced(ino_t file_or_directory) = 0;
  // A sync that failed by fate.
  virtual void sync_failed(ino_t /*file_or_directory*/) {}
  virtual void created(ino_t dir, const std::string& name, ino_t file) = 0;
  virtual void renamed(ino_t from_dir, const std::string& from, ino_t to_dir,
                       const std::string& to) = 0;
  virtual void unlinked(ino_t dir, const std::string& name) = 0;
};

// From now on for all threads; null: nobody listens. The caller sees to it that no call is under
// way.
void listen(FileListener* listener);

// Whatever happens, nobody listens afterwards.
class Listening {
 public:
  explicit Listening(FileListener& listener) { listen(&listener); }
  ~Listening() { listen(nullptr); }
  Listening(const Listening&) = delete;
  Listening& operator=(const Listening&) = delete;
};

// Runs `work` between two calls: nothing is told meanwhile.
void between_calls(const std::function<void()>& work);

}  // namespace odx::crash
