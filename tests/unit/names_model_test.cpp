// Random namespace operations on a store and on a plain map of inodes: the same answers, the same
// tree, and a clean check after every sequence.
#include <rapidcheck.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "name_world.hpp"

namespace odx {
namespace {

using test::err;
using test::must;
using test::NameWorld;

// What POSIX says, the simple way.
class Model {
 public:
  struct Node {
    std::uint32_t type = 0;
    InodeNo parent;
    std::map<std::string, InodeNo> entries;
    std::map<std::string, std::string> xattrs;
    std::uint32_t names = 0;  // of a directory: 0 once removed
    bool linkable = false;    // never had a name
  };

  Model() { nodes[kRootInode] = {S_IFDIR, kRootInode, {}, {}, 1}; }

  bool is_dir(InodeNo ino) const {
    const auto at = nodes.find(ino);
    return at != nodes.end() && at->second.type == S_IFDIR;
  }
  int dir_error(InodeNo dir) const {
    return !nodes.contains(dir) ? ENOENT : is_dir(dir) ? 0 : ENOTDIR;
  }
  InodeNo at(InodeNo dir, const std::string& name) const {
    const auto& entries = nodes.at(dir).entries;
    const auto found = entries.find(name);
    return found == entries.end() ? InodeNo{} : found->second;
  }
  std::uint32_t nlink(InodeNo ino) const {
    const Node& node = nodes.at(ino);
    if (node.type != S_IFDIR || node.names == 0) {
      return node.names;
    }
    std::uint32_t links = 2;
    for (const auto& [name, child] : node.entries) {
      links += is_dir(child) ? 1 : 0;
    }
    return links;
  }

  int may_add(InodeNo dir, const std::string& name) const {
    if (const int error = dir_error(dir)) {
      return error;
    }
    return at(dir, name) != InodeNo{} ? EEXIST : nodes.at(dir).names == 0 ? ENOENT : 0;
  }
  void add(InodeNo dir, const std::string& name, InodeNo ino, std::uint32_t type) {
    nodes[ino] = {type, type == S_IFDIR ? dir : InodeNo{}, {}, {}, 1};
    nodes[dir].entries[name] = ino;
  }

  int link(InodeNo ino, InodeNo dir, const std::string& name) {
    if (const int error = dir_error(dir)) {
      return error;
    }
    if (!nodes.contains(ino)) {
      return ENOENT;
    }
    if (const int error = may_add(dir, name)) {
      return error;
    }
    Node& node = nodes[ino];
    if (node.type == S_IFDIR) {
      return EPERM;
    }
    if (node.names == 0 && !node.linkable) {
      return ENOENT;
    }
    node.linkable = false;
    ++node.names;
    nodes[dir].entries[name] = ino;
    return 0;
  }

  int remove(InodeNo dir, const std::string& name, bool want_dir) {
    if (const int error = dir_error(dir)) {
      return error;
    }
    const InodeNo ino = at(dir, name);
    if (ino == InodeNo{}) {
      return ENOENT;
    }
    if (is_dir(ino) != want_dir) {
      return want_dir ? ENOTDIR : EISDIR;
    }
    if (want_dir && !nodes[ino].entries.empty()) {
      return ENOTEMPTY;
    }
    nodes[dir].entries.erase(name);
    --nodes[ino].names;
    return 0;
  }

  bool within(InodeNo dir, InodeNo ancestor) const {
    while (dir != ancestor && dir != kRootInode) {
      dir = nodes.at(dir).parent;
    }
    return dir == ancestor;
  }

  int rename(InodeNo from_dir, const std::string& from, InodeNo to_dir, const std::string& to,
             RenameMode mode, bool whiteout) {
    if (whiteout && mode == RenameMode::kExchange) {
      return EINVAL;
    }
    for (const InodeNo dir : {from_dir, to_dir}) {
      if (const int error = dir_error(dir)) {
        return error;
      }
    }
    const InodeNo source = at(from_dir, from);
    const InodeNo target = at(to_dir, to);
    const bool exists = target != InodeNo{};
    if (source == InodeNo{} || nodes[to_dir].names == 0) {
      return ENOENT;
    }
    if (mode == RenameMode::kNoReplace && exists) {
      return EEXIST;
    }
    if (mode == RenameMode::kExchange && !exists) {
      return ENOENT;
    }
    if (source == target) {
      return 0;
    }
    if (from_dir != to_dir && is_dir(source) && within(to_dir, source)) {
      return EINVAL;
    }
    if (mode == RenameMode::kExchange) {
      if (from_dir != to_dir && is_dir(target) && within(from_dir, target)) {
        return EINVAL;
      }
      nodes[from_dir].entries[from] = target;
      move(target, from_dir);
    } else {
      if (exists) {
        if (is_dir(source) != is_dir(target)) {
          return is_dir(source) ? ENOTDIR : EISDIR;
        }
        if (!nodes[target].entries.empty()) {
          return ENOTEMPTY;
        }
        --nodes[target].names;
      }
      nodes[from_dir].entries.erase(from);
    }
    nodes[to_dir].entries[to] = source;
    move(source, to_dir);
    return 0;
  }

  std::map<InodeNo, Node> nodes;

 private:
  void move(InodeNo ino, InodeNo dir) {
    if (is_dir(ino)) {
      nodes[ino].parent = dir;
    }
  }
};

// Kind, two inodes (picked among all there ever were), two names, a variant.
using Op = std::tuple<int, int, int, int, int, int>;

class Twin {
 public:
  void apply(const Op& op) {
    const auto& [kind, a, b, name_a, name_b, variant] = op;
    const bool wants_directories = kind <= 8 || kind == 13;
    const InodeNo one = wants_directories ? pick_directory(a) : pick(a);
    const InodeNo two = wants_directories && kind != 3 ? pick_directory(b) : pick(b);
    const std::string first = kNames[name_a];
    const std::string second = kNames[name_b];
    switch (kind) {
      case 0:
      case 1:
        create(one, first, variant % 2 == 0 ? NameWorld::directory() : NameWorld::regular());
        break;
      case 2:
        create(one, first, NameWorld::symlink("target"));
        break;
      case 3:
        same(names().link(two, one, first), model_.link(two, one, first));
        break;
      case 4:
        same(names().unlink(one, first), model_.remove(one, first, false));
        break;
      case 5:
        same(names().rmdir(one, first), model_.remove(one, first, true));
        break;
      case 6:
      case 7:
      case 8: {
        rename(one, first, two, second, static_cast<RenameMode>(variant % 3), variant >= 3);
        break;
      }
      case 9:
        set_xattr(one, first, second);
        break;
      case 10:
        remove_xattr(one, first);
        break;
      case 11:
        reap(one);
        break;
      case 12:
        unnamed();
        break;
      default:
        compare_lookup(one, first);
    }
  }

  void compare() {
    for (const InodeNo ino : known_) {
      const auto at = model_.nodes.find(ino);
      const auto inode = names().get(ino);
      RC_ASSERT(inode.has_value() == (at != model_.nodes.end()));
      if (!inode) {
        continue;
      }
      const Model::Node& node = at->second;
      RC_ASSERT(((*inode)->mode & S_IFMT) == node.type);
      RC_ASSERT((*inode)->nlink == model_.nlink(ino));
      RC_ASSERT((*inode)->entry_count == node.entries.size());
      RC_ASSERT((*inode)->xattr_count == node.xattrs.size());
      std::vector<std::string> xattrs;
      for (const auto& [name, value] : node.xattrs) {
        xattrs.push_back(name);
        RC_ASSERT(must(names().xattr(ino, name)) == value);
      }
      RC_ASSERT(must(names().list_xattrs(ino)) == xattrs);
      if (node.type == S_IFDIR) {
        RC_ASSERT((*inode)->parent == node.parent);
        std::map<std::string, InodeNo> listed;
        for (const DirectoryEntry& entry : must(names().list(ino, 0, 1000))) {
          RC_ASSERT(listed.emplace(entry.name, entry.ino).second);
          RC_ASSERT(entry.mode == model_.nodes.at(entry.ino).type);
          RC_ASSERT(must(names().lookup(ino, entry.name))->ino == entry.ino);
        }
        RC_ASSERT(listed == node.entries);
      }
    }
  }

  // Everything without a name is gone afterwards.
  void reopen(bool crash) {
    crash ? world_.crash() : world_.close();
    check();
    world_.open();
    std::erase_if(model_.nodes, [](const auto& item) { return item.second.names == 0; });
  }
  void finish() {
    world_.close();
    check();
  }

 private:
  static constexpr const char* kNames[] = {"a", "b", "c"};

  Names& names() { return world_.names(); }
  // Mostly one that still is a directory with a name, so that operations get far.
  InodeNo pick_directory(int index) const {
    std::vector<InodeNo> directories;
    for (const auto& [ino, node] : model_.nodes) {
      if (node.type == S_IFDIR && node.names != 0) {
        directories.push_back(ino);
      }
    }
    return index < 36 ? directories[static_cast<std::size_t>(index) % directories.size()]
                      : pick(index - 36);
  }
  InodeNo pick(int index) const { return known_[static_cast<std::size_t>(index) % known_.size()]; }

  template <class T>
  static void same(const Result<T>& result, int expected) {
    RC_ASSERT(err(result) == expected);
  }

  void check() {
    const CheckReport report = world_.check();
    for (const std::string& problem : report.problems) {
      RC_LOG() << problem << "\n";
    }
    RC_ASSERT(report.clean());
  }

  void create(InodeNo dir, const std::string& name, const NewInode& what) {
    const auto made = names().create(dir, name, what);
    same(made, model_.may_add(dir, name));
    if (made) {
      model_.add(dir, name, (*made)->ino, what.mode & S_IFMT);
      RC_ASSERT(std::find(known_.begin(), known_.end(), (*made)->ino) == known_.end());
      known_.push_back((*made)->ino);
    }
  }
  void rename(InodeNo from_dir, const std::string& from, InodeNo to_dir, const std::string& to,
              RenameMode mode, bool with_whiteout) {
    NewInode whiteout;
    whiteout.mode = S_IFCHR;
    const InodeNo source = model_.dir_error(from_dir) == 0 ? model_.at(from_dir, from) : InodeNo{};
    const InodeNo target = model_.dir_error(to_dir) == 0 ? model_.at(to_dir, to) : InodeNo{};
    const int expected = model_.rename(from_dir, from, to_dir, to, mode, with_whiteout);
    same(names().rename(from_dir, from, to_dir, to, mode, with_whiteout ? &whiteout : nullptr),
         expected);
    if (with_whiteout && expected == 0 && source != target) {
      const InodePtr left = must(names().lookup(from_dir, from));
      RC_ASSERT(left->mode == S_IFCHR);
      RC_ASSERT(left->rdev == 0);
      model_.add(from_dir, from, left->ino, S_IFCHR);
      RC_ASSERT(std::find(known_.begin(), known_.end(), left->ino) == known_.end());
      known_.push_back(left->ino);
    }
  }
  void unnamed() {
    const InodeNo ino = must(names().create_unnamed(NameWorld::regular()))->ino;
    model_.nodes[ino] = {S_IFREG, {}, {}, {}, 0, true};
    known_.push_back(ino);
  }
  void set_xattr(InodeNo ino, const std::string& name, const std::string& value) {
    const bool exists = model_.nodes.contains(ino);
    same(names().set_xattr(ino, name, value, Names::XattrMode::kAny), exists ? 0 : ENOENT);
    if (exists) {
      model_.nodes[ino].xattrs[name] = value;
    }
  }
  void remove_xattr(InodeNo ino, const std::string& name) {
    const auto at = model_.nodes.find(ino);
    const int expected = at == model_.nodes.end()             ? ENOENT
                         : at->second.xattrs.erase(name) == 0 ? ENODATA
                                                              : 0;
    same(names().remove_xattr(ino, name), expected);
  }
  void reap(InodeNo ino) {
    same(names().reap(ino), 0);
    const auto at = model_.nodes.find(ino);
    if (at != model_.nodes.end() && at->second.names == 0) {
      model_.nodes.erase(at);
    }
  }
  void compare_lookup(InodeNo dir, const std::string& name) {
    const auto found = names().lookup(dir, name);
    const int error = model_.dir_error(dir);
    const InodeNo expected = error != 0 ? InodeNo{} : model_.at(dir, name);
    same(found, error != 0 ? error : expected == InodeNo{} ? ENOENT : 0);
    if (found) {
      RC_ASSERT((*found)->ino == expected);
    }
  }

  NameWorld world_;
  Model model_;
  std::vector<InodeNo> known_{kRootInode};
};

TEST_CASE("random operations agree with a simple model") {
  const bool held = rc::check([] {
    const auto small = [](int n) { return rc::gen::resize(100, rc::gen::inRange(0, n)); };
    const auto ops =
        *rc::gen::resize(250, rc::gen::container<std::vector<Op>>(rc::gen::tuple(
                                  small(14), small(40), small(40), small(3), small(3), small(6))));
    // Waiting for the disk is what takes long: most sequences do so only at their end.
    const int restart = *small(8);
    Twin twin;
    const std::size_t half = ops.size() / 2;
    for (std::size_t i = 0; i < ops.size(); ++i) {
      if (i == half && restart < 2) {
        twin.compare();
        twin.reopen(restart == 0);
      }
      twin.apply(ops[i]);
    }
    twin.compare();
    twin.finish();
  });
  REQUIRE(held);
}

}  // namespace
}  // namespace odx
