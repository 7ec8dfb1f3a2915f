// Everything that gets a name here does so in one step: the entries, the inodes that they lead to,
// lost+found itself and the counter change together, so that all counts are right afterwards.
// What is kept like this is what could otherwise only be freed, and nobody can prove that it is
// garbage: the inode or the entry that led to it may be what was lost.
#include "store/check/lost_found.hpp"

#include <algorithm>
#include <optional>

#include "base/clock.hpp"
#include "store/inode/directory.hpp"
#include "store/meta/keys.hpp"

namespace odx::check {

namespace {

class Finder {
 public:
  Finder(const CheckSubject& subject, const LostThings& lost, Findings& findings)
      : store_(subject.store),
        lost_(lost),
        findings_(findings),
        kv_(subject.kv),
        now_ns_(Clock::system().now_ns()) {}

  Result<void> run() {
    root_ = ODX_TRY(directory(kRootInode));
    if (!root_) {
      return {};  // it comes first
    }
    last_number_ = std::max(ODX_TRY(counter()), lost_.highest.value());
    if (!ODX_TRY(find_home())) {
      return {};
    }
    for (const InodeNo ino : lost_.inodes) {
      ODX_TRY(name_inode(ino));
    }
    for (const Tree::Root& root : lost_.trees) {
      ODX_TRY(name_tree(root));
    }
    if (texts_.empty()) {
      return {};
    }
    put(*root_);
    put(*home_);
    std::string last;
    put_le(last, last_number_);
    kv_.put(keys::counter(keys::kInodeCounter), std::move(last));
    WriteSet writes = kv_.take_writes();
    for (std::string& text : texts_) {
      findings_.fix(Stage::kNames, std::move(text), std::move(writes));
      writes = {};
    }
    return {};
  }

 private:
  void put(const Inode& inode) { kv_.put(keys::inode(inode.ino), inode.encode()); }

  // Nothing if there is no such inode, if it is no directory, or if it cannot be read.
  Result<std::optional<Inode>> read(InodeNo ino) {
    const auto record = kv_.get(keys::inode(ino));
    if (!record) {
      return record.error().is_corruption() ? Result<std::optional<Inode>>(std::nullopt)
                                            : std::unexpected(record.error());
    }
    if (!*record) {
      return std::nullopt;
    }
    const Result<Inode> inode = Inode::decode(ino, **record);
    return inode ? std::optional<Inode>(*inode) : std::nullopt;
  }
  Result<std::optional<Inode>> directory(InodeNo ino) {
    std::optional<Inode> inode = ODX_TRY(read(ino));
    return inode && inode->is_directory() ? inode : std::nullopt;
  }

  Result<std::uint64_t> counter() {
    const auto record = kv_.get(keys::counter(keys::kInodeCounter));
    if (!record && !record.error().is_corruption()) {
      return std::unexpected(record.error());
    }
    if (!record || !*record || (*record)->size() != 8) {
      return 0;
    }
    return load_le<std::uint64_t>((*record)->data());
  }

  Inode make(std::uint32_t mode) {
    Inode inode;
    inode.ino = InodeNo(++last_number_);
    inode.mode = mode;
    inode.atime_ns = inode.mtime_ns = inode.ctime_ns = inode.btime_ns = now_ns_;
    return inode;
  }

  // lost+found, or another name where that one is taken.
  Result<bool> find_home() {
    constexpr int kTries = 100;
    for (int i = 0; i < kTries; ++i) {
      const std::string name = i == 0 ? "lost+found" : fmt::format("lost+found.{}", i);
      const auto entry = find_entry(kv_, store_, kRootInode, name);
      if (!entry && !entry.error().is_corruption()) {
        return std::unexpected(entry.error());
      }
      if (entry && !*entry) {
        Inode home = make(S_IFDIR | 0700);
        home.nlink = 2;
        home.parent = kRootInode;
        if (!add_entry(kv_, store_, kRootInode, name, home.ino, S_IFDIR)) {
          return false;
        }
        ++root_->entry_count;
        ++root_->nlink;
        home_ = std::move(home);
        home_name_ = name;
        return true;
      }
      if (entry) {
        home_ = ODX_TRY(directory((*entry)->ino));
        // It may be lost itself, if its entry is one that goes.
        if (home_ && home_->parent == kRootInode && home_->nlink != 0) {
          home_name_ = name;
          return true;
        }
      }
    }
    return false;
  }

  // Whether there is room for the name.
  Result<bool> enter(const std::string& name, const Inode& inode) {
    const auto added = add_entry(kv_, store_, home_->ino, name, inode.ino, inode.mode);
    if (!added) {
      return added.error().errno_value() == ENOSPC || added.error().is_corruption()
                 ? Result<bool>(false)
                 : std::unexpected(added.error());
    }
    ++home_->entry_count;
    home_->nlink += inode.is_directory() ? 1 : 0;
    home_->mtime_ns = home_->ctime_ns = now_ns_;
    put(inode);
    return true;
  }

  Result<void> name_inode(InodeNo ino) {
    std::optional<Inode> inode = ODX_TRY(read(ino));
    if (!inode || ino == home_->ino) {
      return {};
    }
    if (inode->is_directory()) {
      inode->parent = home_->ino;
      inode->nlink = std::max<std::uint32_t>(inode->nlink, 2);
    } else {
      inode->nlink = 1;
    }
    if (ODX_TRY(enter(fmt::format("#{}", ino.value()), *inode))) {
      texts_.push_back(fmt::format("inode {} has no name: it is \"{}/#{}\" now", ino.value(),
                                   home_name_, ino.value()));
    }
    return {};
  }

  Result<void> name_tree(const Tree::Root& root) {
    if (root.bytes > kMaxFileBytes) {
      return {};
    }
    Inode file = make(S_IFREG | 0600);
    file.nlink = 1;
    file.data_version = 1;
    file.tree.root = root;
    if (ODX_TRY(enter(fmt::format("#node-{}", root.id.value()), file))) {
      texts_.push_back(
          fmt::format("the data below tree node {}, which nothing refers to, is file "
                      "\"{}/#node-{}\" now",
                      root.id.value(), home_name_, root.id.value()));
    } else {
      --last_number_;
    }
    return {};
  }

  const Uuid store_;
  const LostThings& lost_;
  Findings& findings_;
  KvOverlay kv_;
  const std::int64_t now_ns_;
  std::optional<Inode> root_;
  std::optional<Inode> home_;
  std::string home_name_;
  std::uint64_t last_number_ = 0;
  std::vector<std::string> texts_;
};

}  // namespace

Result<void> find_places(const CheckSubject& subject, const LostThings& lost, Findings& findings) {
  if (!findings.repairing() || (lost.inodes.empty() && lost.trees.empty())) {
    return {};
  }
  return Finder(subject, lost, findings).run();
}

}  // namespace odx::check
