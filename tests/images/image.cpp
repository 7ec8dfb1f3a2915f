#include "image.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/fd.hpp"
#include "must_or_die.hpp"
#include "store/inode/directory.hpp"
#include "store/meta/keys.hpp"
#include "store/meta/meta_store.hpp"
#include "store/meta/sealed_value.hpp"
#include "store/superblock.hpp"

namespace odx::images {

namespace {

std::unique_ptr<MetaStore> open_state(const std::string& dir) {
  const Superblock super = must(read_superblock(dir));
  return must(MetaStore::open(
      dir, super.uuid, MetaOptions{}, [] { return Result<void>(); }, [](TxnSeq) {}));
}

}  // namespace

Image::Image(std::string dir) : dir_(std::move(dir)) {}

void Image::change(const WriteSet& writes) {
  const auto state = open_state(dir_);
  must(state->commit(writes));
  must(state->close());
}

std::string Image::value(const std::string& key) const {
  const auto state = open_state(dir_);
  const auto found = must(state->get(key));
  if (!found) {
    die("the image lacks a record");
  }
  return *found;
}

std::vector<KeyValue> Image::table(char table) const {
  const auto state = open_state(dir_);
  return must(state->scan(keys::table_begin(table), keys::table_end(table), 100000));
}

Inode Image::inode(InodeNo ino) const { return must(Inode::decode(ino, value(keys::inode(ino)))); }

void Image::edit(InodeNo ino, const std::function<void(Inode&)>& how) {
  Inode changed = inode(ino);
  how(changed);
  put(keys::inode(ino), changed.encode());
}

InodeNo Image::named(const std::string& path) const {
  const auto state = open_state(dir_);
  const Superblock super = must(read_superblock(dir_));
  InodeNo at = kRootInode;
  std::istringstream names(path);
  for (std::string name; std::getline(names, name, '/');) {
    const auto entry = must(find_entry(*state, super.uuid, at, name));
    if (!entry) {
      die("the image lacks " + path);
    }
    at = entry->ino;
  }
  return at;
}

std::string Image::entry_key(InodeNo dir, const std::string& name) const {
  const auto state = open_state(dir_);
  const Superblock super = must(read_superblock(dir_));
  const auto entry = must(find_entry(*state, super.uuid, dir, name));
  if (!entry) {
    die("the image lacks " + name);
  }
  return keys::dirent(dir, entry->cookie);
}

std::uint64_t Image::cookie_of(const std::string& name) const {
  return first_cookie(must(read_superblock(dir_)).uuid, name);
}

void Image::put_entry(InodeNo dir, std::uint64_t cookie, const std::string& name, InodeNo ino,
                      std::uint32_t type) {
  std::string value;
  put_le(value, ino.value());
  put_le(value, type);
  put(keys::dirent(dir, cookie), value + name);
}

std::string Image::bytes(const std::string& file) const {
  std::ifstream in(path(file), std::ios::binary);
  std::ostringstream all;
  all << in.rdbuf();
  return all.str();
}

void Image::write(const std::string& file, std::uint64_t at, const std::string& bytes) {
  const Fd fd(::open(path(file).c_str(), O_WRONLY | O_CLOEXEC));
  if (::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)) !=
      static_cast<ssize_t>(bytes.size())) {
    die("cannot write " + file);
  }
}

void Image::flip(const std::string& file, std::uint64_t at) {
  const Fd fd(::open(path(file).c_str(), O_RDWR | O_CLOEXEC));
  char byte = 0;
  if (::pread(fd.get(), &byte, 1, static_cast<off_t>(at)) != 1) {
    die("cannot read " + file);
  }
  byte = static_cast<char>(byte ^ 0x10);
  if (::pwrite(fd.get(), &byte, 1, static_cast<off_t>(at)) != 1) {
    die("cannot write " + file);
  }
}

void Image::flip_record(const std::string& key) {
  const std::string plain = value(key);
  std::string sealed(plain.size() + kSealBytes, '\0');
  seal_value(key, plain, sealed);
  const std::string all = bytes("meta/data.mdb");
  // Old pages may still hold it, too; all copies change, so that the one in use does.
  int found = 0;
  for (std::size_t at = all.find(sealed); at != std::string::npos; at = all.find(sealed, at + 1)) {
    flip("meta/data.mdb", at + sealed.size() - 1);
    ++found;
  }
  if (found == 0) {
    die("a record is not in the metadata base");
  }
}

}  // namespace odx::images
