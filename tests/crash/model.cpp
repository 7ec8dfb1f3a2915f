#include "model.hpp"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <set>
#include <sstream>

namespace odx::crash {

namespace {

std::string describe_inode(std::uint64_t ino, std::uint32_t mode, std::uint32_t links,
                           std::string_view content,
                           const std::map<std::string, std::string>& xattrs) {
  std::string out = fmt::format("inode {} mode {:o} links {} size {} hash {:x}", ino, mode, links,
                                content.size(), XXH3_64bits(content.data(), content.size()));
  for (const auto& [name, value] : xattrs) {
    out += fmt::format(" {}={}:{:x}", name, value.size(), XXH3_64bits(value.data(), value.size()));
  }
  return out + "\n";
}

std::string describe_entry(std::uint64_t dir, std::string_view name, std::uint64_t ino) {
  return fmt::format("name {}/{} = {}\n", dir, name, ino);
}

std::string describe_token(std::string_view id, std::uint64_t length) {
  return fmt::format("token {} length {}\n", id, length);
}

}  // namespace

std::string hex(const std::uint8_t* bytes, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) {
    out += fmt::format("{:02x}", bytes[i]);
  }
  return out;
}

std::string pattern(std::size_t bytes, std::uint64_t seed) {
  std::string out(bytes, '\0');
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1;
  for (char& c : out) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    c = static_cast<char>(1 + (state >> 33) % 255);
  }
  return out;
}

std::string Model::describe() const {
  std::string out;
  std::set<std::uint64_t> seen{kRootInode.value()};
  std::vector<std::uint64_t> todo{kRootInode.value()};
  std::set<std::string> names;
  while (!todo.empty()) {
    const std::uint64_t dir = todo.back();
    todo.pop_back();
    for (const auto& [name, ino] : nodes.at(dir).entries) {
      names.insert(describe_entry(dir, name, ino));
      if (seen.insert(ino).second && nodes.at(ino).is_directory()) {
        todo.push_back(ino);
      }
    }
  }
  for (const std::string& name : names) {
    out += name;
  }
  for (const std::uint64_t ino : seen) {
    const Node& node = nodes.at(ino);
    out += describe_inode(ino, node.mode, node.links, node.content, node.xattrs);
  }
  for (const auto& [id, length] : tokens) {
    out += describe_token(id, length);
  }
  return out;
}

Result<std::string> describe(Store& store) {
  std::string out;
  std::set<std::uint64_t> seen{kRootInode.value()};
  std::vector<std::uint64_t> todo{kRootInode.value()};
  std::set<std::string> names;
  while (!todo.empty()) {
    const std::uint64_t dir = todo.back();
    todo.pop_back();
    const auto entries = ODX_TRY(store.names().list(InodeNo(dir), 0, 10'000));
    for (const DirectoryEntry& entry : entries) {
      const std::uint64_t ino = entry.ino.value();
      names.insert(describe_entry(dir, entry.name, ino));
      if (seen.insert(ino).second && S_ISDIR(entry.mode)) {
        todo.push_back(ino);
      }
    }
  }
  for (const std::string& name : names) {
    out += name;
  }
  for (const std::uint64_t ino : seen) {
    const InodePtr inode = ODX_TRY(store.names().get(InodeNo(ino)));
    std::string content = inode->symlink_target;
    if (inode->is_regular()) {
      content.resize(inode->size() + 1);
      content.resize(ODX_TRY(store.files().read(InodeNo(ino), FileOffset(0),
                                                std::as_writable_bytes(std::span(content)))));
    }
    std::map<std::string, std::string> xattrs;
    for (const std::string& name : ODX_TRY(store.names().list_xattrs(InodeNo(ino)))) {
      xattrs[name] = ODX_TRY(store.names().xattr(InodeNo(ino), name));
    }
    out += describe_inode(ino, inode->mode, inode->nlink, content, xattrs);
  }
  TokenId after{};
  for (;;) {
    const auto page = ODX_TRY(store.tokens().list(after, 64, 0));
    if (page.empty()) {
      return out;
    }
    for (const odx_token_info& info : page) {
      out += describe_token(hex(info.id, sizeof info.id), info.length);
    }
    std::copy(std::begin(page.back().id), std::end(page.back().id), after.begin());
  }
}

std::string wrong_bytes(Store& store, const Model& model, std::uint64_t& refused) {
  constexpr std::uint64_t kPiece = 4096;
  for (const auto& [ino, node] : model.nodes) {
    if (!node.is_regular() || node.links == 0) {
      continue;
    }
    for (std::uint64_t at = 0; at < node.content.size(); at += kPiece) {
      std::string piece(std::min<std::uint64_t>(kPiece, node.content.size() - at), '\0');
      const auto got = store.files().read(InodeNo(ino), FileOffset(at),
                                          std::as_writable_bytes(std::span(piece)));
      if (!got && got.error().errno_value() == EIO) {
        ++refused;
      } else if (!got) {
        return fmt::format("inode {} at {}: {}", ino, at, got.error().message());
      } else if (*got != piece.size() || node.content.compare(at, piece.size(), piece) != 0) {
        return fmt::format("WRONG BYTES in inode {}, [{}, +{})", ino, at, piece.size());
      }
    }
  }
  return {};
}

std::string first_differences(const std::string& expected, const std::string& found) {
  std::set<std::string> a;
  std::set<std::string> b;
  std::istringstream expected_lines(expected);
  std::istringstream found_lines(found);
  for (std::string line; std::getline(expected_lines, line);) {
    a.insert(line);
  }
  for (std::string line; std::getline(found_lines, line);) {
    b.insert(line);
  }
  std::string out;
  int count = 0;
  for (const std::string& line : a) {
    if (!b.contains(line) && ++count <= 6) {
      out += "    expected: " + line + "\n";
    }
  }
  for (const std::string& line : b) {
    if (!a.contains(line) && ++count <= 12) {
      out += "    found:    " + line + "\n";
    }
  }
  return out;
}

}  // namespace odx::crash
