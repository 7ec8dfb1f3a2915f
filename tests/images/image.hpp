// One damaged store: what is done to a good one, and what everybody has to say about it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "store/inode/inode.hpp"
#include "store/meta/kv.hpp"

namespace odx::images {

// Two stores with the same content: one closed, one whose process died with changes in the journal
// and a token, an orphan, and a queue for the reclaimer.
enum class Base { kClosed, kCrashed };

// What the damage is done to. Every change is one of a store that nobody has open.
class Image {
 public:
  explicit Image(std::string dir);

  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] std::string path(const std::string& name) const { return dir_ + "/" + name; }

  // Records, through the store's own metadata: under right checksums, saying wrong things.
  void change(const WriteSet& writes);
  void put(const std::string& key, const std::string& value) { change({{key, value}}); }
  void erase(const std::string& key) { change({{key, std::nullopt}}); }
  [[nodiscard]] std::string value(const std::string& key) const;
  [[nodiscard]] std::vector<KeyValue> table(char table) const;
  void edit(InodeNo ino, const std::function<void(Inode&)>& how);
  [[nodiscard]] Inode inode(InodeNo ino) const;
  [[nodiscard]] InodeNo named(const std::string& path) const;
  // The key of a name's record.
  [[nodiscard]] std::string entry_key(InodeNo dir, const std::string& name) const;
  void put_entry(InodeNo dir, std::uint64_t cookie, const std::string& name, InodeNo ino,
                 std::uint32_t type);
  [[nodiscard]] std::uint64_t cookie_of(const std::string& name) const;

  // Bytes of files.
  [[nodiscard]] std::string bytes(const std::string& file) const;
  void write(const std::string& file, std::uint64_t at, const std::string& bytes);
  void flip(const std::string& file, std::uint64_t at);
  // A byte of a record's value, where it lies in the metadata base: its checksum stays as it was.
  void flip_record(const std::string& key);

 private:
  std::string dir_;
};

struct Case {
  const char* name;
  Base base;
  std::function<void(Image&)> damage;
  // Of mounting: "rw", "ro", or a part of the text with which it is refused.
  const char* mount;
  int check;               // exit code of `odx check`, with --data if the name begins with "data"
  const char* problem;     // in a line of its report; "" if it is clean
  int repair;              // exit code of `odx check --repair`
  const char* repaired;    // in a line of what was done; "" if nothing was
  bool drop_tail = false;  // with --drop-journal-tail
};

const std::vector<Case>& cases();

}  // namespace odx::images
