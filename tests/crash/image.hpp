// What a disk holds: of everything that was done to a store's files, what is durable; and the
// folders that a power cut at some moment may leave.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "shim.hpp"

namespace odx::crash {

inline constexpr std::uint64_t kPage = 4096;
using Page = std::array<std::byte, kPage>;

// A sparse file; pages that it lacks are zeros.
struct Content {
  std::uint64_t size = 0;
  std::unordered_map<std::uint64_t, std::shared_ptr<const Page>> pages;

  void write(std::uint64_t at, std::span<const std::byte> data);
  void resize(std::uint64_t bytes);
  void punch(std::uint64_t at, std::uint64_t bytes);
  [[nodiscard]] const Page& page(std::uint64_t number) const;
};

// Files by number; names are paths relative to the store's folder. Two directories, data and meta,
// exist always. The files LOCK and lock.mdb are not part of it: what they say dies with the
// process.
struct Medium {
  std::map<int, Content> files;
  std::map<std::string, int> names;

  static Medium load(const std::string& folder);
  // The first difference between the two, by names and bytes; empty if there is none.
  [[nodiscard]] std::string difference(const Medium& other) const;
};

// One thing that was done.
struct Entry {
  enum class Kind {
    kWrite,
    kResize,
    kReserve,
    kPunch,
    kSync,
    kSyncDir,
    kSyncFailed,
    kSyncDirFailed,
    kCreate,
    kRename,
    kUnlink,
    kBegin,
    kAcknowledge
  };
  Kind kind = Kind::kWrite;
  int file = -1;
  std::uint64_t at = 0;     // kResize, kReserve: bytes; kBegin, kAcknowledge: the operation
  std::uint64_t bytes = 0;  // kPunch
  bool synced = false;
  std::vector<std::byte> data;
  std::string name;  // path; of kSyncDir: the directory
  std::string to;

  // What a crash can undo as long as it is not synced.
  [[nodiscard]] bool changes_content() const { return kind <= Kind::kPunch; }
  [[nodiscard]] bool changes_names() const {
    return kind >= Kind::kCreate && kind <= Kind::kUnlink;
  }
};

// Which syncs the disk pretends to do: the proof that the sweep would see it.
enum class Lie { kNone, kSegments, kJournal, kBaseData, kBaseMeta };

// The durable state, moved along a log; what is not durable yet waits, in order.
class PowerCut {
 public:
  enum class Keep { kNothing, kEverything, kSome };

  PowerCut(Medium start, Lie lie) : durable_(std::move(start)), lie_(lie) {}

  void pass(const Entry& entry);
  // A crash now, perhaps in the middle of `under_way`. Of what is not durable each sector keeps the
  // version of one of the writes to it, or none.
  [[nodiscard]] Medium crash(Keep keep, std::uint64_t seed, const Entry* under_way) const;
  [[nodiscard]] bool anything_waits() const { return !waiting_.empty() || !names_.empty(); }

 private:
  [[nodiscard]] bool believed(const Entry& entry) const;
  // Of LMDB's two meta pages, which are told to be durable and are not.
  [[nodiscard]] bool never_durable(const Entry& entry) const;
  [[nodiscard]] std::string path_of(int file) const;
  static void apply(Medium& medium, const Entry& entry);
  static void apply_part(Medium& medium, const Entry& entry, std::mt19937_64& random);

  Medium durable_;
  Lie lie_;
  std::vector<const Entry*> waiting_;  // the log outlives this
  std::vector<const Entry*> names_;
};

// A folder that is made to hold one medium after the other, by writing only what differs. Between
// two calls it listens to what a store does there.
class Folder final : public FileListener {
 public:
  explicit Folder(std::string path);
  void hold(const Medium& medium);
  [[nodiscard]] const std::string& path() const { return path_; }
  // Path of a file or directory in it; null: not ours.
  [[nodiscard]] const std::string* name_of(ino_t inode) const;
  [[nodiscard]] ino_t inode_of(const std::string& name) const;

  void wrote(ino_t file, std::uint64_t at, std::span<const std::byte> data, bool synced) override;
  void resized(ino_t file, std::uint64_t bytes) override;
  void reserved(ino_t file, std::uint64_t end) override;
  void punched(ino_t file, std::uint64_t at, std::uint64_t bytes) override;
  void synced(ino_t) override {}
  void created(ino_t dir, const std::string& name, ino_t file) override;
  void renamed(ino_t from_dir, const std::string& from, ino_t to_dir,
               const std::string& to) override;
  void unlinked(ino_t dir, const std::string& name) override;

 private:
  struct Held {
    int file = -1;
    ino_t inode = 0;
    Content content;                // what the folder's file held when hold() returned
    std::set<std::uint64_t> stale;  // pages written since
  };
  Held* find(ino_t inode);
  void spoil(const std::string& name);

  std::string path_;
  std::map<std::string, Held> held_;
  std::map<ino_t, std::string> inodes_;
};

// What is done to one of the calls below a store's folder: the n-th of those that the kind of fault
// can befall.
struct Fault {
  enum class Kind {
    kNone,
    kFail,       // a change, or a sync, fails
    kFailRead,   // a read fails
    kShort,      // a write moves less than it was asked to
    kShortRead,  // a read does
    kDelay,      // a change or a sync takes long
    kFlip,       // a bit of a segment's block is read wrong
    kMisdirect,  // a write of a segment goes to another place of it
    kFullHost,   // from the n-th change on, whatever needs room fails
  };
  Kind kind = Kind::kNone;
  std::uint64_t nth = 0;
  int error = 0;
  std::uint64_t seed = 0;
};

// The listener of a workload: the folder's, and every change as an entry.
class Recorder final : public FileListener {
 public:
  explicit Recorder(Folder& folder, const Medium& start);

  std::vector<Entry> entries;
  Fault fault;
  std::uint64_t calls = 0;  // that the fault could befall
  // Where a misdirected write should have gone, and where it did.
  std::string misdirected;
  [[nodiscard]] bool struck() const { return fault.nth != 0 && calls >= fault.nth; }

  void begin(std::uint64_t operation);
  void acknowledge(std::uint64_t operation);

  Fate fate(Call call, ino_t subject, std::uint64_t at, std::uint64_t bytes) override;
  [[nodiscard]] bool minds_reads() const override;
  void sync_failed(ino_t file_or_directory) override;
  void wrote(ino_t file, std::uint64_t at, std::span<const std::byte> data, bool synced) override;
  void resized(ino_t file, std::uint64_t bytes) override;
  void reserved(ino_t file, std::uint64_t end) override;
  void punched(ino_t file, std::uint64_t at, std::uint64_t bytes) override;
  void synced(ino_t file_or_directory) override;
  void created(ino_t dir, const std::string& name, ino_t file) override;
  void renamed(ino_t from_dir, const std::string& from, ino_t to_dir,
               const std::string& to) override;
  void unlinked(ino_t dir, const std::string& name) override;

 private:
  // Null if that is no file of the store.
  Entry* add(Entry::Kind kind, ino_t file);
  [[nodiscard]] std::string path_in(ino_t dir, const std::string& name) const;
  void mark(Entry::Kind kind, std::uint64_t operation);

  std::map<ino_t, int> files_;
  std::map<int, std::string> paths_;
  std::map<ino_t, std::string> dirs_;
  int next_file_ = 0;
};

}  // namespace odx::crash
