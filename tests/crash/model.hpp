// What the store should hold, kept in the most naive way: inodes with their bytes in a string, and
// tokens that are copies. And the store's own word about it, in the same notation.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "odx/offload.h"
#include "store/store.hpp"

namespace odx::crash {

struct Node {
  std::uint32_t mode = 0;
  std::uint32_t links = 0;
  std::string content;  // of a symlink: its target
  std::map<std::string, std::string> xattrs;
  std::map<std::string, std::uint64_t> entries;
  std::uint64_t changed = 0;  // the last operation that fsync of this inode must keep
  bool unnamed = false;       // made without a name, which it can still get

  [[nodiscard]] bool is_directory() const { return S_ISDIR(mode); }
  [[nodiscard]] bool is_regular() const { return S_ISREG(mode); }
};

// Everybody who holds a token can read it, so its bytes stay known here after it is dropped.
struct KnownToken {
  odx_token token{};
  std::string content;
};

struct Model {
  std::map<std::uint64_t, Node> nodes;          // orphans too
  std::map<std::string, std::uint64_t> tokens;  // live ones: id in hex, length

  // Everything that a crash must not mix up: names, inode numbers, modes, link counts, bytes,
  // attributes, tokens. Orphans do not outlive a crash and are left out.
  [[nodiscard]] std::string describe() const;
};

// The same of a store.
Result<std::string> describe(Store& store);

// Reads the model's files from the store piece by piece: what is wrong if some are not the right
// bytes. Pieces that the store refuses with EIO are counted.
std::string wrong_bytes(Store& store, const Model& model, std::uint64_t& refused);

std::string hex(const std::uint8_t* bytes, std::size_t count);
// The first lines in which two descriptions differ.
std::string first_differences(const std::string& expected, const std::string& found);
// Bytes that are no zeros and differ from seed to seed.
std::string pattern(std::size_t bytes, std::uint64_t seed);

}  // namespace odx::crash
