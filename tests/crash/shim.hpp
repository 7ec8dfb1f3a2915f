// Everything that this program does to files, told to a listener in the order of the kernel.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace odx::crash {

enum class Call { kWrite, kResize, kReserve, kSync, kCreate, kRename, kUnlink };

// Files and directories are named by their inode number on the host, which renames do not change.
// Calls come one at a time, each right after the kernel did the work; a call that failed is not
// told.
class FileListener {
 public:
  virtual ~FileListener() = default;

  // Asked first. Not 0: the call fails with that errno and the kernel never hears of it.
  virtual int refuse(Call, ino_t) { return 0; }

  // `synced`: durable on return (O_DSYNC, O_SYNC, RWF_DSYNC).
  virtual void wrote(ino_t file, std::uint64_t at, std::span<const std::byte> data,
                     bool synced) = 0;
  virtual void resized(ino_t file, std::uint64_t bytes) = 0;
  virtual void reserved(ino_t file, std::uint64_t end) = 0;
  virtual void punched(ino_t file, std::uint64_t at, std::uint64_t bytes) = 0;
  virtual void synced(ino_t file_or_directory) = 0;
  virtual void created(ino_t dir, const std::string& name, ino_t file) = 0;
  virtual void renamed(ino_t from_dir, const std::string& from, ino_t to_dir,
                       const std::string& to) = 0;
  virtual void unlinked(ino_t dir, const std::string& name) = 0;
};

// From now on for all threads; null: nobody listens. The caller sees to it that no call is under
// way.
void listen(FileListener* listener);

// Runs `work` between two calls: nothing is told meanwhile.
void between_calls(const std::function<void()>& work);

}  // namespace odx::crash
