// The disk model, on the pessimistic side of what POSIX and real disks promise.
//
// - A write is durable when a later fsync or fdatasync of its file has returned, or when it
// returned
//   itself if it was asked to be synced; a synced write does nothing for others before it.
// - Of the writes that are not durable, each 512-byte sector on its own may have reached the disk
// or
//   not; writes come whole, lost, cut off, or with random sectors or pages missing. Any order is
//   thereby covered: for one sector, an order only decides which version is left, and disks and
//   page caches never put an older version over a newer one that is durable.
// - A sector is atomic. LMDB's meta page needs that, by its own documentation.
// - Growth of a file may be durable without the data (zeros), and the data is nothing without it.
// - Creating, renaming and removing names is durable after fsync of the directory; before it, each
//   may have happened or not. One rename is atomic.
// - A range that was given back to the host may hold its old bytes or zeros.
// - What a failed sync was to make durable is lost, whatever later syncs say.
#include "image.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <stdexcept>

namespace odx::crash {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kSector = 512;

bool is_lock(const std::string& name) { return name == "LOCK" || name.ends_with("lock.mdb"); }

const Page& zero_page() {
  static const Page zeros{};
  return zeros;
}

[[noreturn]] void give_up(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

ino_t inode_of_path(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    give_up(path);
  }
  return status.st_ino;
}

struct OpenFile {
  explicit OpenFile(const std::string& path, int flags) : fd(::open(path.c_str(), flags, 0600)) {
    if (fd < 0) {
      give_up(path);
    }
  }
  ~OpenFile() { ::close(fd); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  const int fd;
};

}  // namespace

void Content::write(std::uint64_t at, std::span<const std::byte> data) {
  size = std::max(size, at + data.size());
  while (!data.empty()) {
    const std::uint64_t number = at / kPage;
    const std::size_t within = at % kPage;
    const std::size_t count = std::min<std::size_t>(kPage - within, data.size());
    auto changed = std::make_shared<Page>(page(number));
    std::memcpy(changed->data() + within, data.data(), count);
    pages[number] = std::move(changed);
    at += count;
    data = data.subspan(count);
  }
}

void Content::resize(std::uint64_t bytes) {
  if (bytes < size) {
    punch(bytes, size - bytes);
  }
  size = bytes;
}

void Content::punch(std::uint64_t at, std::uint64_t bytes) {
  const std::uint64_t end = std::min(at + bytes, size);
  const std::uint64_t size_before = size;
  while (at < end) {
    const std::uint64_t count = std::min(kPage - at % kPage, end - at);
    if (pages.contains(at / kPage)) {
      write(at, std::span(zero_page()).first(count));
    }
    at += count;
  }
  size = size_before;
}

const Page& Content::page(std::uint64_t number) const {
  const auto at = pages.find(number);
  return at == pages.end() ? zero_page() : *at->second;
}

Medium Medium::load(const std::string& folder) {
  Medium medium;
  for (const auto& item : fs::recursive_directory_iterator(folder)) {
    const std::string name = fs::relative(item.path(), folder).string();
    if (!item.is_regular_file() || is_lock(name)) {
      continue;
    }
    Content content;
    content.size = item.file_size();
    const OpenFile file(item.path().string(), O_RDONLY | O_CLOEXEC);
    Page page{};
    for (off_t at = ::lseek(file.fd, 0, SEEK_DATA); at >= 0;) {
      at -= at % static_cast<off_t>(kPage);
      const ssize_t got = ::pread(file.fd, page.data(), kPage, at);
      if (got <= 0) {
        break;
      }
      std::memset(page.data() + got, 0, kPage - static_cast<std::size_t>(got));
      if (page != zero_page()) {
        content.pages[static_cast<std::uint64_t>(at) / kPage] = std::make_shared<Page>(page);
      }
      at = ::lseek(file.fd, at + static_cast<off_t>(kPage), SEEK_DATA);
    }
    const int number = static_cast<int>(medium.files.size());
    medium.files.emplace(number, std::move(content));
    medium.names.emplace(name, number);
  }
  return medium;
}

std::string Medium::difference(const Medium& other) const {
  if (names.size() != other.names.size()) {
    return "another number of files";
  }
  for (const auto& [name, file] : names) {
    const auto there = other.names.find(name);
    if (there == other.names.end()) {
      return name + " is missing";
    }
    const Content& a = files.at(file);
    const Content& b = other.files.at(there->second);
    if (a.size != b.size) {
      return name + " has another size: " + std::to_string(a.size) + ", " + std::to_string(b.size);
    }
    for (const Content* one : {&a, &b}) {
      for (const auto& [number, page] : one->pages) {
        if (a.page(number) != b.page(number)) {
          return name + " differs in page " + std::to_string(number);
        }
      }
    }
  }
  return {};
}

bool PowerCut::believed(const Entry& entry) const {
  if (lie_ == Lie::kNone) {
    return true;
  }
  const std::string name = path_of(entry.file);
  const bool is_write = entry.kind == Entry::Kind::kWrite;
  switch (lie_) {
    case Lie::kSegments:
      return !name.ends_with(".seg");
    case Lie::kJournal:
      return name != "journal";
    case Lie::kBaseData:
      return name != "meta/data.mdb" || is_write;
    case Lie::kBaseMeta:
      return !never_durable(entry);
    case Lie::kNone:
      break;
  }
  return true;
}

std::string PowerCut::path_of(int file) const {
  for (const auto& [path, number] : durable_.names) {
    if (number == file) {
      return path;
    }
  }
  return {};
}

bool PowerCut::never_durable(const Entry& entry) const {
  return lie_ == Lie::kBaseMeta && entry.kind == Entry::Kind::kWrite && entry.at < 2 * kPage &&
         path_of(entry.file) == "meta/data.mdb";
}

void PowerCut::apply(Medium& medium, const Entry& entry) {
  switch (entry.kind) {
    case Entry::Kind::kWrite:
      medium.files[entry.file].write(entry.at, entry.data);
      break;
    case Entry::Kind::kResize:
      medium.files[entry.file].resize(entry.at);
      break;
    case Entry::Kind::kReserve: {
      Content& content = medium.files[entry.file];
      content.size = std::max(content.size, entry.at);
      break;
    }
    case Entry::Kind::kPunch:
      medium.files[entry.file].punch(entry.at, entry.bytes);
      break;
    case Entry::Kind::kCreate:
      medium.files.try_emplace(entry.file);
      medium.names[entry.name] = entry.file;
      break;
    case Entry::Kind::kRename:
      medium.files.try_emplace(entry.file);
      if (const auto from = medium.names.find(entry.name);
          from != medium.names.end() && from->second == entry.file) {
        medium.names.erase(from);
      }
      medium.names[entry.to] = entry.file;
      break;
    case Entry::Kind::kUnlink:
      medium.names.erase(entry.name);
      break;
    case Entry::Kind::kSync:
    case Entry::Kind::kSyncDir:
    case Entry::Kind::kSyncFailed:
    case Entry::Kind::kSyncDirFailed:
    case Entry::Kind::kBegin:
    case Entry::Kind::kAcknowledge:
      break;
  }
}

void PowerCut::apply_part(Medium& medium, const Entry& entry, std::mt19937_64& random) {
  if (entry.kind != Entry::Kind::kWrite) {
    if (random() % 2 == 0) {
      apply(medium, entry);
    }
    return;
  }
  Content& content = medium.files[entry.file];
  const std::uint64_t end = entry.at + entry.data.size();
  const auto put = [&](std::uint64_t from, std::uint64_t to) {
    content.write(from, std::span(entry.data).subspan(from - entry.at, to - from));
  };
  // Pieces between sector (or page) borders of the file.
  const auto each = [&](std::uint64_t unit, auto visit) {
    for (std::uint64_t at = entry.at; at < end;) {
      const std::uint64_t next = std::min((at / unit + 1) * unit, end);
      visit(at, next);
      at = next;
    }
  };
  const std::uint64_t unit = random() % 2 == 0 ? kSector : kPage;
  switch (random() % 6) {
    case 0:
    case 1:
      put(entry.at, end);
      break;
    case 2:
      break;
    case 3: {  // a first part
      const std::uint64_t cut = entry.at + random() % (entry.data.size() + 1);
      each(unit, [&](std::uint64_t from, std::uint64_t to) {
        if (to <= cut) {
          put(from, to);
        }
      });
      break;
    }
    default:
      each(unit, [&](std::uint64_t from, std::uint64_t to) {
        if (random() % 2 == 0) {
          put(from, to);
        }
      });
  }
  if (random() % 2 == 0) {
    content.size = std::max(content.size, end);
  }
}

void PowerCut::pass(const Entry& entry) {
  if (entry.changes_names()) {
    names_.push_back(&entry);
  } else if (entry.kind == Entry::Kind::kSyncDir) {
    std::erase_if(names_, [&](const Entry* waiting) {
      const std::string dir = fs::path(waiting->name).parent_path().string();
      if (dir != entry.name) {
        return false;
      }
      apply(durable_, *waiting);
      return true;
    });
  } else if (entry.kind == Entry::Kind::kSync) {
    if (believed(entry)) {
      std::erase_if(waiting_, [&](const Entry* waiting) {
        if (waiting->file != entry.file || never_durable(*waiting)) {
          return false;
        }
        apply(durable_, *waiting);
        return true;
      });
    }
  } else if (entry.kind == Entry::Kind::kSyncFailed) {
    // The kernel marks clean what it could not write; no later sync will try it again.
    std::erase_if(waiting_, [&](const Entry* waiting) { return waiting->file == entry.file; });
  } else if (entry.kind == Entry::Kind::kSyncDirFailed) {
    std::erase_if(names_, [&](const Entry* waiting) {
      return fs::path(waiting->name).parent_path().string() == entry.name;
    });
  } else if (entry.changes_content()) {
    const bool safe = entry.synced && believed(entry);
    if (safe) {
      apply(durable_, entry);
    }
    // Behind older writes to the same file that wait: when those are synced, this one comes later.
    const bool behind = std::any_of(waiting_.begin(), waiting_.end(), [&](const Entry* waiting) {
      return waiting->file == entry.file;
    });
    if (!safe || behind) {
      waiting_.push_back(&entry);
    }
  }
}

Medium PowerCut::crash(Keep keep, std::uint64_t seed, const Entry* under_way) const {
  Medium medium = durable_;
  std::mt19937_64 random(seed);
  const auto one = [&](const Entry& entry, bool safe) {
    if (safe || keep == Keep::kEverything) {
      apply(medium, entry);
    } else if (keep == Keep::kSome) {
      apply_part(medium, entry, random);
    }
  };
  for (const Entry* entry : names_) {
    one(*entry, false);
  }
  for (const Entry* entry : waiting_) {
    one(*entry, entry->synced && believed(*entry));
  }
  if (under_way != nullptr && (under_way->changes_content() || under_way->changes_names())) {
    one(*under_way, false);
  }
  return medium;
}

Folder::Folder(std::string path) : path_(std::move(path)) {
  for (const char* dir : {"", "/data", "/meta"}) {
    fs::create_directories(path_ + dir);
    inodes_[inode_of_path(path_ + dir)] = dir[0] == '\0' ? dir : dir + 1;
  }
}

void Folder::hold(const Medium& medium) {
  for (auto at = held_.begin(); at != held_.end();) {
    const auto wanted = medium.names.find(at->first);
    if (wanted == medium.names.end() || wanted->second != at->second.file) {
      ::unlink((path_ + "/" + at->first).c_str());
      inodes_.erase(at->second.inode);
      at = held_.erase(at);
    } else {
      ++at;
    }
  }
  for (const auto& [name, number] : medium.names) {
    const Content& want = medium.files.at(number);
    const std::string path = path_ + "/" + name;
    Held& held = held_[name];
    const bool fresh = held.file < 0;
    const OpenFile file(path, O_RDWR | O_CREAT | O_CLOEXEC | (fresh ? O_TRUNC : 0));
    if (fresh) {
      held.file = number;
      held.inode = inode_of_path(path);
      inodes_[held.inode] = name;
    }
    for (const auto& [page, bytes] : want.pages) {
      const auto had = held.content.pages.find(page);
      if (had == held.content.pages.end() || had->second != bytes) {
        held.stale.insert(page);
      }
    }
    for (const auto& [page, bytes] : held.content.pages) {
      if (!want.pages.contains(page)) {
        held.stale.insert(page);
      }
    }
    for (const std::uint64_t page : held.stale) {
      const Page& bytes = want.page(page);
      if (::pwrite(file.fd, bytes.data(), kPage, static_cast<off_t>(page * kPage)) !=
          static_cast<ssize_t>(kPage)) {
        give_up(path);
      }
    }
    if (::ftruncate(file.fd, static_cast<off_t>(want.size)) != 0) {
      give_up(path);
    }
    held.stale.clear();
    held.content = want;
  }
}

const std::string* Folder::name_of(ino_t inode) const {
  const auto at = inodes_.find(inode);
  return at == inodes_.end() ? nullptr : &at->second;
}

ino_t Folder::inode_of(const std::string& name) const { return held_.at(name).inode; }

Folder::Held* Folder::find(ino_t inode) {
  const std::string* name = name_of(inode);
  const auto at = name == nullptr ? held_.end() : held_.find(*name);
  return at == held_.end() ? nullptr : &at->second;
}

void Folder::wrote(ino_t file, std::uint64_t at, std::span<const std::byte> data, bool) {
  if (Held* held = find(file); held != nullptr && !data.empty()) {
    for (std::uint64_t page = at / kPage; page <= (at + data.size() - 1) / kPage; ++page) {
      held->stale.insert(page);
    }
  }
}

void Folder::resized(ino_t file, std::uint64_t bytes) {
  if (Held* held = find(file); held != nullptr) {
    for (const auto& [page, content] : held->content.pages) {
      if ((page + 1) * kPage > bytes) {
        held->stale.insert(page);
      }
    }
  }
}

void Folder::reserved(ino_t, std::uint64_t) {}

void Folder::punched(ino_t file, std::uint64_t at, std::uint64_t bytes) {
  if (Held* held = find(file); held != nullptr && bytes > 0) {
    for (std::uint64_t page = at / kPage; page <= (at + bytes - 1) / kPage; ++page) {
      held->stale.insert(page);
    }
  }
}

// Names that a store makes or takes are made anew by the next hold().
void Folder::spoil(const std::string& name) {
  Held& held = held_[name];
  inodes_.erase(held.inode);
  held = Held{};
  held.file = -2;
}

void Folder::created(ino_t dir, const std::string& name, ino_t) {
  const std::string* parent = name_of(dir);
  if (parent != nullptr && !is_lock(name)) {
    spoil(parent->empty() ? name : *parent + "/" + name);
  }
}

void Folder::renamed(ino_t from_dir, const std::string& from, ino_t to_dir, const std::string& to) {
  created(from_dir, from, 0);
  created(to_dir, to, 0);
}

void Folder::unlinked(ino_t dir, const std::string& name) { created(dir, name, 0); }

Recorder::Recorder(Folder& folder, const Medium& start) {
  for (const auto& [name, number] : start.names) {
    files_[folder.inode_of(name)] = number;
    paths_[number] = name;
  }
  next_file_ = start.files.empty() ? 0 : start.files.rbegin()->first + 1;
  for (const char* dir : {"", "/data", "/meta"}) {
    dirs_[inode_of_path(folder.path() + dir)] = dir[0] == '\0' ? dir : dir + 1;
  }
}

bool Recorder::minds_reads() const {
  return fault.kind == Fault::Kind::kFailRead || fault.kind == Fault::Kind::kShortRead ||
         fault.kind == Fault::Kind::kFlip;
}

Fate Recorder::fate(Call call, ino_t subject, std::uint64_t at, std::uint64_t bytes) {
  using Kind = Fault::Kind;
  const auto file = files_.find(subject);
  if (fault.kind == Kind::kNone || (file == files_.end() && !dirs_.contains(subject))) {
    return {};
  }
  const bool in_segment = file != files_.end() && paths_[file->second].ends_with(".seg");
  bool befalls = false;
  switch (fault.kind) {
    case Kind::kFail:
    case Kind::kDelay:
    case Kind::kFullHost:
      // Nobody need be told where the host has no room to grow into, as long as there is other
      // room (kFullHost tries it), or does not take back what it is given.
      befalls = call != Call::kRead && call != Call::kPunch &&
                !(call == Call::kReserve && fault.error == ENOSPC);
      break;
    case Kind::kFailRead:
    case Kind::kShortRead:
      befalls = call == Call::kRead;
      break;
    case Kind::kFlip:
      befalls = call == Call::kRead && in_segment;
      break;
    case Kind::kShort:
      befalls = call == Call::kWrite && bytes > 1;
      break;
    case Kind::kMisdirect:
      befalls = call == Call::kWrite && in_segment;
      break;
    case Kind::kNone:
      break;
  }
  if (!befalls) {
    return {};
  }
  ++calls;
  Fate fate;
  if (fault.kind == Kind::kFullHost) {
    // The journal and the segments have their room. LMDB's meta pages have, too.
    const bool in_base = file != files_.end() && paths_[file->second].starts_with("meta/");
    const bool needs_room = (call == Call::kWrite && in_base && at >= 2 * kPage) ||
                            call == Call::kReserve || call == Call::kCreate;
    if (fault.nth != 0 && calls >= fault.nth && needs_room) {
      fate.error = ENOSPC;
    }
    return fate;
  }
  if (calls != fault.nth) {
    return fate;
  }
  std::mt19937_64 random(fault.seed);
  switch (fault.kind) {
    case Kind::kFail:
    case Kind::kFailRead:
      fate.error = fault.error;
      break;
    case Kind::kShort:
    case Kind::kShortRead:
      fate.at_most = bytes < 2 ? bytes : 1 + random() % (bytes - 1);
      break;
    case Kind::kDelay:
      fate.delay = std::chrono::microseconds(200 + random() % 3000);
      break;
    case Kind::kFlip:
      fate.flip_bit = random() % (bytes * 8);
      break;
    case Kind::kMisdirect: {
      // Somewhere in the first megabyte, where the store's blocks are; never where it belongs.
      const std::uint64_t to = random() % 256 * kPage;
      fate.move_by = static_cast<std::int64_t>(to) - static_cast<std::int64_t>(at);
      fate.move_by += fate.move_by == 0 ? static_cast<std::int64_t>(kPage) : 0;
      misdirected = "write [" + std::to_string(at) + ", +" + std::to_string(bytes) + ") moved by " +
                    std::to_string(fate.move_by);
      break;
    }
    default:
      break;
  }
  return fate;
}

void Recorder::sync_failed(ino_t file_or_directory) {
  if (const auto dir = dirs_.find(file_or_directory); dir != dirs_.end()) {
    Entry& entry = entries.emplace_back();
    entry.kind = Entry::Kind::kSyncDirFailed;
    entry.name = dir->second;
  } else {
    if (Entry* entry = add(Entry::Kind::kSyncFailed, file_or_directory)) {
      entry->name = paths_[entry->file];
    }
  }
}

Entry* Recorder::add(Entry::Kind kind, ino_t file) {
  const auto at = files_.find(file);
  if (at == files_.end()) {
    return nullptr;
  }
  Entry& entry = entries.emplace_back();
  entry.kind = kind;
  entry.file = at->second;
  return &entry;
}

void Recorder::mark(Entry::Kind kind, std::uint64_t operation) {
  between_calls([&] {
    Entry& entry = entries.emplace_back();
    entry.kind = kind;
    entry.at = operation;
  });
}
void Recorder::begin(std::uint64_t operation) { mark(Entry::Kind::kBegin, operation); }
void Recorder::acknowledge(std::uint64_t operation) { mark(Entry::Kind::kAcknowledge, operation); }

void Recorder::wrote(ino_t file, std::uint64_t at, std::span<const std::byte> data, bool synced) {
  if (Entry* entry = add(Entry::Kind::kWrite, file)) {
    entry->at = at;
    entry->synced = synced;
    entry->data.assign(data.begin(), data.end());
  }
}
void Recorder::resized(ino_t file, std::uint64_t bytes) {
  if (Entry* entry = add(Entry::Kind::kResize, file)) {
    entry->at = bytes;
  }
}
void Recorder::reserved(ino_t file, std::uint64_t end) {
  if (Entry* entry = add(Entry::Kind::kReserve, file)) {
    entry->at = end;
  }
}
void Recorder::punched(ino_t file, std::uint64_t at, std::uint64_t bytes) {
  if (Entry* entry = add(Entry::Kind::kPunch, file)) {
    entry->at = at;
    entry->bytes = bytes;
  }
}
void Recorder::synced(ino_t file_or_directory) {
  if (const auto dir = dirs_.find(file_or_directory); dir != dirs_.end()) {
    Entry& entry = entries.emplace_back();
    entry.kind = Entry::Kind::kSyncDir;
    entry.name = dir->second;
  } else {
    add(Entry::Kind::kSync, file_or_directory);
  }
}

std::string Recorder::path_in(ino_t dir, const std::string& name) const {
  const auto at = dirs_.find(dir);
  if (at == dirs_.end() || is_lock(name)) {
    return {};
  }
  return at->second.empty() ? name : at->second + "/" + name;
}

void Recorder::created(ino_t dir, const std::string& name, ino_t file) {
  if (const std::string path = path_in(dir, name); !path.empty()) {
    paths_[next_file_] = path;
    files_[file] = next_file_++;
    add(Entry::Kind::kCreate, file)->name = path;
  }
}
void Recorder::renamed(ino_t from_dir, const std::string& from, ino_t to_dir,
                       const std::string& to) {
  const std::string path = path_in(from_dir, from);
  if (path.empty()) {
    return;
  }
  // The file that has had the name: the last one that got it.
  for (std::size_t i = entries.size(); i-- > 0;) {
    if (entries[i].kind == Entry::Kind::kCreate && entries[i].name == path) {
      Entry entry;
      entry.kind = Entry::Kind::kRename;
      entry.file = entries[i].file;
      entry.name = path;
      entry.to = path_in(to_dir, to);
      paths_[entry.file] = entry.to;
      entries.push_back(std::move(entry));
      return;
    }
  }
  throw std::runtime_error("the store renamed " + path + ", which it has not made");
}
void Recorder::unlinked(ino_t dir, const std::string& name) {
  if (const std::string path = path_in(dir, name); !path.empty()) {
    Entry& entry = entries.emplace_back();
    entry.kind = Entry::Kind::kUnlink;
    entry.name = path;
  }
}

}  // namespace odx::crash
