// Every image and every verdict on it, in one table.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/crc32c.hpp"
#include "image.hpp"
#include "must_or_die.hpp"
#include "store/meta/keys.hpp"
#include "store/superblock.hpp"

namespace odx::images {

namespace {

namespace fs = std::filesystem;
using keys::table_begin;

// Writes `bytes` at `at` of a superblock, under a right checksum.
void edit_super(Image& image, const char* file, std::size_t at, const std::string& bytes) {
  std::string all = image.bytes(file);
  all.replace(at, bytes.size(), bytes);
  all.resize(4092);
  put_le(all, crc32c(all));
  image.write(file, 0, all);
}
template <class T>
std::string le(T number) {
  std::string out;
  put_le(out, number);
  return out;
}

void edit_both(Image& image, std::size_t at, const std::string& bytes) {
  edit_super(image, "SUPER.0", at, bytes);
  edit_super(image, "SUPER.1", at, bytes);
}

// The offsets of batches in the journal, oldest first (one lap, so in order).
std::vector<std::uint64_t> batches(const Image& image) {
  const std::string all = image.bytes("journal");
  std::vector<std::uint64_t> out;
  for (std::size_t at = 0; at + 8 < all.size(); at += 4096) {
    if (all.compare(at, 8, "odxjHEAD") == 0) {
      out.push_back(at);
    }
  }
  if (out.size() < 6) {
    die("too few batches in the journal");
  }
  return out;
}

// Where LMDB's newest transaction has the root of its tree of records (or of free pages).
std::uint64_t root_page(const Image& image, bool records) {
  const std::string all = image.bytes("meta/data.mdb").substr(0, 8192);
  const auto number = [&](std::size_t page) {
    return load_le<std::uint64_t>(all.data() + page * 4096 + 144);
  };
  const std::size_t newest = number(1) > number(0) ? 1 : 0;
  return load_le<std::uint64_t>(all.data() + newest * 4096 + (records ? 128 : 80));
}

std::string first_key(const Image& image, char table) {
  const auto records = image.table(table);
  if (records.empty()) {
    die(std::string("no record in table ") + table);
  }
  return records.front().key;
}
std::function<void(Image&)> flip_first(char table) {
  return [table](Image& image) { image.flip_record(first_key(image, table)); };
}
std::function<void(Image&)> flip_named(const std::string& key) {
  return [key](Image& image) { image.flip_record(key); };
}
std::function<void(Image&)> change(const char* path, std::function<void(Inode&)> how) {
  return [path, how](Image& image) { image.edit(image.named(path), how); };
}
void replace_node(Image& image, NodeId id, const std::function<void(TreeNode&)>& how) {
  TreeNode node = must(TreeNode::decode(image.value(keys::node(id))));
  how(node);
  image.put(keys::node(id), node.encode());
}

std::vector<Case> superblock_cases() {
  using I = Image;
  return {
      {"sound-closed", Base::kClosed, [](I&) {}, "rw", 0, "clean", 0, ""},
      {"sound-crashed", Base::kCrashed, [](I&) {}, "rw", 0, "batches replayed", 0, ""},
      {"super-0-flipped", Base::kClosed, [](I& i) { i.flip("SUPER.0", 30); }, "rw", 4,
       "SUPER.0 is damaged: superblock checksum mismatch", 1, "SUPER.0 is written anew"},
      {"super-1-missing", Base::kCrashed, [](I& i) { fs::remove(i.path("SUPER.1")); }, "rw", 4,
       "SUPER.1 is missing", 1, "SUPER.1 is written anew"},
      {"super-1-empty", Base::kClosed, [](I& i) { fs::resize_file(i.path("SUPER.1"), 0); }, "rw", 4,
       "SUPER.1 is damaged: not a superblock", 1, "SUPER.1 is written anew"},
      {"super-both-flipped", Base::kClosed,
       [](I& i) { i.flip("SUPER.0", 30), i.flip("SUPER.1", 4000); }, "superblock checksum mismatch",
       4, "SUPER.1 is damaged", 4, ""},
      {"super-both-missing", Base::kClosed,
       [](I& i) { fs::remove(i.path("SUPER.0")), fs::remove(i.path("SUPER.1")); },
       "is not an odxfs store", 8, "is not an odxfs store", 8, ""},
      {"super-swapped", Base::kClosed,
       [](I& i) {
         fs::rename(i.path("SUPER.0"), i.path("x"));
         fs::rename(i.path("SUPER.1"), i.path("SUPER.0"));
         fs::rename(i.path("x"), i.path("SUPER.1"));
       },
       "rw", 4, "does not belong there", 1, "SUPER.0 is written anew"},
      {"super-future-version", Base::kClosed, [](I& i) { edit_both(i, 8, le(2U)); },
       "store format version 2", 8, "store format version 2", 8, ""},
      {"super-newest-from-future", Base::kClosed, [](I& i) { edit_super(i, "SUPER.0", 8, le(9U)); },
       "store format version 9", 8, "store format version 9", 8, ""},
      {"super-incompat", Base::kClosed, [](I& i) { edit_both(i, 56, le(1ULL << 40)); },
       "unknown incompatible features", 8, "unknown incompatible features", 8, ""},
      {"super-ro-compat", Base::kClosed, [](I& i) { edit_both(i, 48, le(1ULL << 40)); }, "ro", 4,
       "features that this build does not know", 4, ""},
      {"super-compat", Base::kClosed, [](I& i) { edit_both(i, 40, le(1ULL << 40)); }, "rw", 0,
       "clean", 0, ""},
      {"super-two-stores", Base::kClosed,
       [](I& i) { edit_super(i, "SUPER.1", 24, std::string(16, '\x11')); }, "rw", 4,
       "belong to two stores", 4, ""},
      {"super-sector-impossible", Base::kClosed, [](I& i) { edit_both(i, 12, le(777U)); },
       "sector size 777", 4, "sector size 777", 4, ""},
  };
}

std::vector<Case> file_cases() {
  using I = Image;
  return {
      {"segment-missing", Base::kClosed, [](I& i) { fs::remove(i.path("data/0000.seg")); }, "ro", 4,
       "but the device has 0 blocks", 4, "segment 0000.seg has"},
      {"segment-missing-crashed", Base::kCrashed, [](I& i) { fs::remove(i.path("data/0000.seg")); },
       "ro", 4, "but the device has 0 blocks", 4, "segment 0000.seg has"},
      {"segment-short", Base::kCrashed,
       [](I& i) { fs::resize_file(i.path("data/0000.seg"), 64 << 10); }, "ro", 4,
       "but the device has 16 blocks", 4, "segment 0000.seg has"},
      {"segment-odd", Base::kClosed,
       [](I& i) {
         fs::resize_file(i.path("data/0000.seg"), fs::file_size(i.path("data/0000.seg")) + 100);
       },
       "rw", 0, "clean", 0, ""},
      {"segment-misnumbered", Base::kClosed,
       [](I& i) { fs::rename(i.path("data/0000.seg"), i.path("data/0001.seg")); },
       "segment 0000.seg is missing", 4, "segment 0000.seg is missing", 4, "segment 0000.seg has"},
      {"segment-is-directory", Base::kClosed,
       [](I& i) {
         fs::remove(i.path("data/0000.seg"));
         fs::create_directory(i.path("data/0000.seg"));
       },
       "egment 0000.seg", 4, "segment 0000.seg is no segment", 4, ""},
      {"segments-swapped", Base::kCrashed,
       [](I& i) {
         // The line of blocks goes on in a second segment; then the two change places.
         fs::resize_file(i.path("data/0000.seg"), 1ULL << 30);
         fs::rename(i.path("data/0000.seg"), i.path("data/0001.seg"));
         const int fd = ::open(i.path("data/0000.seg").c_str(), O_WRONLY | O_CREAT, 0600);
         ::close(fd);
         fs::resize_file(i.path("data/0000.seg"), 16ULL << 20);
       },
       "segment 0000.seg is short", 4, "segment 0000.seg is short", 4, "segment 0000.seg has"},
      {"segments-gone", Base::kClosed, [](I& i) { fs::remove_all(i.path("data")); },
       "No such file or directory", 4, "the directory of the segments is missing", 4,
       "segment 0000.seg has"},
      {"segment-extra", Base::kClosed,
       [](I& i) {
         const int fd = ::open(i.path("data/0003.seg").c_str(), O_WRONLY | O_CREAT, 0600);
         ::close(fd);
         fs::resize_file(i.path("data/0003.seg"), 4096);
       },
       "segment 0000.seg is short", 4, "segment 0002.seg is missing", 1, "segment 0002.seg has"},
      {"data-flipped", Base::kClosed, [](I& i) { i.flip("data/0000.seg", 4096 + 77); }, "rw", 4,
       "does not match its checksum", 4, ""},
      {"data-zeroed", Base::kCrashed,
       [](I& i) { i.write("data/0000.seg", 0, std::string(1 << 20, '\0')); }, "rw", 4,
       "has damaged data", 4, ""},
      {"data-sound", Base::kClosed, [](I&) {}, "rw", 0, "verified", 0, ""},

      {"journal-tail-garbage", Base::kCrashed,
       [](I& i) { i.write("journal", batches(i).back() + 4096, std::string(8192, '\x5A')); }, "rw",
       0, "clean", 0, ""},
      {"journal-tail-torn", Base::kCrashed, [](I& i) { i.flip("journal", batches(i).back() + 60); },
       "rw", 0, "clean", 0, ""},
      {"journal-middle", Base::kCrashed, [](I& i) { i.flip("journal", batches(i).end()[-3] + 60); },
       "ro", 4, "the journal is damaged behind", 4, ""},
      {"journal-middle-dropped", Base::kCrashed,
       [](I& i) { i.flip("journal", batches(i).end()[-3] + 60); }, "ro", 4,
       "the journal is damaged behind", 1, "the journal is cut behind", true},
      {"journal-first-garbage", Base::kCrashed,
       [](I& i) { i.write("journal", batches(i).end()[-6], std::string(4096, '\x5A')); }, "ro", 4,
       "the journal is damaged behind", 1, "the journal is cut behind", true},
      {"journal-zeroed", Base::kCrashed,
       [](I& i) { i.write("journal", 0, std::string(1 << 20, '\0')); }, "rw", 0, "clean", 0, ""},
      {"journal-of-another", Base::kClosed,
       [](I& i) { i.write("journal", 0, "odxjHEAD" + std::string(4088, '\x01')); }, "rw", 0,
       "clean", 0, ""},
      {"journal-missing", Base::kClosed, [](I& i) { fs::remove(i.path("journal")); }, "journal", 4,
       "journal", 4, ""},
      {"journal-short", Base::kClosed, [](I& i) { fs::resize_file(i.path("journal"), 5000); },
       "impossible size", 4, "impossible size", 4, ""},

      {"base-missing", Base::kClosed, [](I& i) { fs::remove_all(i.path("meta")); },
       "no metadata base", 4, "no metadata base", 4, ""},
      {"base-empty", Base::kClosed, [](I& i) { fs::resize_file(i.path("meta/data.mdb"), 0); },
       "metadata base is damaged", 4, "metadata base is damaged", 4, ""},
      {"base-half", Base::kClosed,
       [](I& i) {
         const auto size = fs::file_size(i.path("meta/data.mdb"));
         fs::resize_file(i.path("meta/data.mdb"), size / 8192 * 4096);
       },
       "metadata base is damaged", 4, "metadata base is damaged", 4, ""},
      {"base-meta-page", Base::kClosed, [](I& i) { i.flip("meta/data.mdb", 4096 + 17); },
       "page 1 is no meta page", 4, "page 1 is no meta page", 4, ""},
      {"base-last-page", Base::kClosed,
       [](I& i) {
         i.write("meta/data.mdb", 136, std::string(8, '\x7F'));
         i.write("meta/data.mdb", 4096 + 136, std::string(8, '\x7F'));
       },
       "number of pages is impossible", 4, "number of pages is impossible", 4, ""},
      {"base-root-bounds", Base::kClosed,
       [](I& i) { i.write("meta/data.mdb", root_page(i, true) * 4096 + 12, "\xFF\xFF"); },
       "has impossible bounds", 4, "has impossible bounds", 4, ""},
      {"base-ring-of-pages", Base::kClosed,
       [](I& i) {
         // The first child of the root is the root.
         const std::uint64_t root = root_page(i, true);
         const std::string page = i.bytes("meta/data.mdb").substr(root * 4096, 4096);
         const auto entry = load_le<std::uint16_t>(page.data() + 16);
         i.write("meta/data.mdb", root * 4096 + entry, le(root).substr(0, 6));
       },
       "has two uses", 4, "has two uses", 4, ""},
      {"base-entry-outside", Base::kClosed,
       [](I& i) {
         i.write("meta/data.mdb", root_page(i, true) * 4096 + 18, le(std::uint16_t{4094}));
       },
       "has an entry outside of it", 4, "has an entry outside of it", 4, ""},
      {"base-free-list", Base::kClosed,
       [](I& i) {
         i.write("meta/data.mdb", root_page(i, false) * 4096 + 10, le(std::uint16_t{4}));
       },
       "not the page that is expected", 4, "not the page that is expected", 4, ""},
      {"base-free-page-in-use", Base::kClosed,
       [](I& i) {
         // The first free page of the last list becomes the root of the records' tree.
         const std::uint64_t at = root_page(i, false) * 4096;
         const std::string page = i.bytes("meta/data.mdb").substr(at, 4096);
         const auto entry = load_le<std::uint16_t>(page.data() + 16);
         i.write("meta/data.mdb", at + entry + 24, le(root_page(i, true)));
       },
       "metadata base is damaged", 4, "metadata base is damaged", 4, ""},
      {"base-applied-flipped", Base::kClosed,
       [](I& i) {
         const std::string all = i.bytes("meta/data.mdb");
         const std::string key("\0applied", 8);
         for (auto at = all.find(key); at != std::string::npos; at = all.find(key, at + 1)) {
           i.flip("meta/data.mdb", at + key.size() + 2);
         }
       },
       "fails its checksum", 4, "fails its checksum", 4, ""},
  };
}

// One record of each table, a byte of its value changed under the checksum.
std::vector<Case> flipped_cases() {
  using I = Image;
  const auto name_of = [](I& i) { i.flip_record(i.entry_key(kRootInode, "alone")); };
  const auto inode_of = [](I& i) { i.flip_record(keys::inode(i.named("dir/small"))); };
  const auto crashed_inode = [](I& i) {
    const InodeNo ino = i.named("dir/small");
    i.erase(keys::counter("clean"));
    i.flip_record(keys::inode(ino));
  };
  const auto node_of = [](I& i) {
    i.flip_record(keys::node(i.inode(i.named("alone")).tree.root->id));
  };
  const auto crashed_node = [](I& i) {
    const NodeId id = i.inode(i.named("alone")).tree.root->id;
    i.erase(keys::counter("clean"));
    i.flip_record(keys::node(id));
  };
  return {
      {"flipped-inode", Base::kClosed, inode_of, "rw", 4, "record I:", 4, ""},
      {"flipped-inode-not-closed", Base::kClosed, crashed_inode, "ro", 4, "which cannot be read", 4,
       ""},
      {"flipped-root", Base::kClosed, flip_named(keys::inode(kRootInode)), "rw", 4, "record I:", 1,
       "the root directory is made anew"},
      {"flipped-name", Base::kClosed, name_of, "rw", 4, "record D:", 1, "lost+found/#"},
      {"flipped-xattr", Base::kClosed, flip_first(keys::kXattr), "rw", 4, "record X:", 4, ""},
      {"flipped-node", Base::kClosed, node_of, "rw", 4, "record N:", 4, ""},
      {"flipped-node-not-closed", Base::kClosed, crashed_node, "ro", 4, "which cannot be read", 4,
       ""},
      {"flipped-node-count", Base::kClosed, flip_first(keys::kNodeRefs), "rw", 4, "record P:", 1,
       "reference count is"},
      {"flipped-block-count", Base::kClosed, flip_first(keys::kBlockRefs), "rw", 4, "record R:", 1,
       "the reference counts of blocks are what the trees say now"},
      {"flipped-checksums", Base::kClosed, flip_first(keys::kChecksums), "rw", 4, "record C:", 4,
       ""},
      {"flipped-token", Base::kClosed, flip_first(keys::kToken), "ro", 4, "record T:", 1,
       "a token that cannot be read is removed"},
      {"flipped-expiry", Base::kClosed, flip_first(keys::kTokenExpiry), "rw", 4, "record Y:", 1,
       "has an expiry record now"},
      {"flipped-orphan", Base::kClosed, flip_first(keys::kOrphan), "rw", 4, "record Z:", 1,
       "orphan record of inode"},
      {"flipped-queue", Base::kClosed, flip_first(keys::kReclaim), "ro", 4, "record G:", 1,
       "reclaim queue"},
      {"flipped-inode-counter", Base::kClosed, flip_named(keys::counter("inode")), "rw", 4,
       "counter \"inode\"", 1, "counter \"inode\" is at"},
      {"flipped-node-counter", Base::kClosed, flip_named(keys::counter("node")), "rw", 4,
       "counter \"node\"", 1, "counter \"node\" is at"},
      {"flipped-clean-mark", Base::kClosed, flip_named(keys::counter("clean")), "rw", 4,
       "mark of a clean unmount", 1, "the saved bitmaps are dropped"},
      {"flipped-bitmap", Base::kClosed, flip_first(keys::kBitmap), "rw", 4, "record B:", 1,
       "the saved bitmaps are dropped"},
  };
}

std::vector<Case> name_cases() {
  using I = Image;
  return {
      {"links-of-file", Base::kClosed, change("dir/small", [](Inode& n) { n.nlink = 9; }), "rw", 4,
       "link count is 9, but it has 2 names", 1, "link count is 2 now"},
      {"links-too-few", Base::kCrashed, change("dir/small", [](Inode& n) { n.nlink = 1; }), "rw", 4,
       "link count is 1, but it has 2 names", 1, "link count is 2 now"},
      {"links-none", Base::kClosed, change("alone", [](Inode& n) { n.nlink = 0; }), "rw", 4,
       "has no links, but is not recorded as an orphan", 1, "link count is 1 now"},
      {"links-of-directory", Base::kClosed, change("dir", [](Inode& n) { n.nlink = 2; }), "rw", 4,
       "link count is 2, but should be 3", 1, "link count is 3 now"},
      {"entries-counted-wrong", Base::kClosed, change("dir", [](Inode& n) { n.entry_count = 77; }),
       "rw", 4, "entry count is 77", 1, "entry count is 2 now"},
      {"xattrs-counted-wrong", Base::kClosed,
       change("dir/small", [](Inode& n) { n.xattr_count = 0; }), "rw", 4,
       "extended attribute count is 0", 1, "extended attribute count is 1 now"},
      {"parent-wrong", Base::kClosed, change("dir/inner", [](Inode& n) { n.parent = kRootInode; }),
       "rw", 4, "takes 1 for its parent", 1, "parent is"},
      {"root-parent-wrong", Base::kClosed,
       [](I& i) {
         const InodeNo other = i.named("other");
         i.edit(kRootInode, [&](Inode& n) { n.parent = other; });
       },
       "rw", 4, "the root directory takes directory", 1, "parent is 1 now"},
      {"root-missing", Base::kClosed, [](I& i) { i.erase(keys::inode(kRootInode)); }, "rw", 4,
       "there is no root directory", 1, "the root directory is made anew"},
      {"root-is-file", Base::kClosed,
       [](I& i) {
         i.edit(kRootInode, [](Inode& n) {
           n.mode = S_IFREG | 0644;
           n.parent = InodeNo{};
           n.entry_count = 0;
         });
       },
       "rw", 4, "the root is not a directory", 4, ""},
      {"name-dangling", Base::kClosed,
       [](I& i) { i.put_entry(kRootInode, i.cookie_of("ghost"), "ghost", InodeNo(5000), S_IFREG); },
       "rw", 4, "leads to inode 5000, which does not exist", 1, "entry \"ghost\" leads to"},
      {"name-nowhere", Base::kClosed,
       [](I& i) {
         i.put_entry(InodeNo(6000), i.cookie_of("x"), "x", i.named("dir/small"), S_IFREG);
       },
       "rw", 4, "lies in inode 6000, which does not exist", 1, "entry \"x\" lies in"},
      {"name-in-file", Base::kClosed,
       [](I& i) {
         i.put_entry(i.named("alone"), i.cookie_of("x"), "x", i.named("dir/small"), S_IFREG);
       },
       "rw", 4, "which is not a directory", 1, "entry \"x\" lies in"},
      {"name-of-wrong-type", Base::kClosed,
       [](I& i) {
         i.put_entry(kRootInode, i.cookie_of("alone"), "alone", i.named("alone"), S_IFDIR);
       },
       "rw", 4, "entry \"alone\" has type", 1, "has the type of its inode now"},
      {"name-twice", Base::kClosed,
       [](I& i) {
         i.put_entry(kRootInode, i.cookie_of("alone") + 5, "alone", i.named("alone"), S_IFREG);
       },
       "rw", 4, "entry \"alone\" is there twice", 1, "is there twice: removed"},
      {"name-under-wrong-hash", Base::kClosed,
       [](I& i) {
         const InodeNo ino = i.named("alone");
         i.erase(i.entry_key(kRootInode, "alone"));
         i.put_entry(kRootInode, 4096, "alone", ino, S_IFREG);
       },
       "rw", 4, "under a hash that is not its own", 1, "its own hash now"},
      {"name-malformed", Base::kClosed,
       [](I& i) { i.put(i.entry_key(kRootInode, "alone"), "short"); }, "rw", 4,
       "malformed directory entry", 1, "lost+found/#"},
      {"name-with-slash", Base::kClosed,
       [](I& i) { i.put_entry(kRootInode, i.cookie_of("a/b"), "a/b", i.named("alone"), S_IFREG); },
       "rw", 4, "impossible directory entry", 1, "an entry that cannot be read is removed"},
      {"file-without-name", Base::kClosed, [](I& i) { i.erase(i.entry_key(kRootInode, "alone")); },
       "rw", 4, "but it has 0 names", 1, "lost+found/#"},
      {"directory-without-name", Base::kCrashed,
       [](I& i) { i.erase(i.entry_key(kRootInode, "dir")); }, "rw", 4, "has 0 names instead of 1",
       1, "lost+found/#"},
      {"directory-with-two-names", Base::kClosed,
       [](I& i) {
         i.put_entry(i.named("other"), i.cookie_of("again"), "again", i.named("dir"), S_IFDIR);
       },
       "rw", 4, "has 2 names instead of 1", 1, "a further name of directory"},
      {"directory-below-itself", Base::kClosed,
       [](I& i) {
         const InodeNo dir = i.named("dir");
         const InodeNo inner = i.named("dir/inner");
         i.erase(i.entry_key(kRootInode, "dir"));
         i.put_entry(inner, i.cookie_of("dir"), "dir", dir, S_IFDIR);
       },
       "rw", 4, "lies below itself", 1, "lost+found/#"},
      {"root-in-a-directory", Base::kClosed,
       [](I& i) { i.put_entry(i.named("other"), i.cookie_of("up"), "up", kRootInode, S_IFDIR); },
       "rw", 4, "directory 1 has 1 names instead of 0", 1, "a further name of directory 1"},
      {"lost-found-is-file", Base::kClosed,
       [](I& i) {
         const InodeNo small = i.named("dir/small");
         i.put_entry(kRootInode, i.cookie_of("lost+found"), "lost+found", small, S_IFREG);
         i.erase(i.entry_key(kRootInode, "alone"));
       },
       "rw", 4, "but it has 0 names", 1, "\"lost+found.1/#"},
      {"xattr-of-nothing", Base::kClosed,
       [](I& i) { i.put(keys::xattr(InodeNo(7000), "user.x"), "1"); }, "rw", 4,
       "of inode 7000, which does not exist", 1, "of inode 7000, which does not exist: removed"},
      {"orphan-of-nothing", Base::kClosed,
       [](I& i) { i.put(keys::orphan(InodeNo(7000)), std::string(1, '\0')); }, "rw", 4,
       "orphan record of inode 7000", 1, "orphan record of inode 7000"},
      {"orphan-with-name", Base::kClosed,
       [](I& i) { i.put(keys::orphan(i.named("alone")), std::string(1, '\0')); }, "rw", 4,
       "recorded as an orphan, but has links", 1, "is no orphan: its record is removed"},
      {"orphan-not-recorded", Base::kClosed, [](I& i) { i.erase(first_key(i, keys::kOrphan)); },
       "rw", 4, "has no links, but is not recorded as an orphan", 1, "is recorded as an orphan"},
      {"orphan-malformed", Base::kClosed, [](I& i) { i.put(first_key(i, keys::kOrphan), "junk"); },
       "rw", 4, "malformed orphan record", 1, "is recorded as an orphan"},
      {"inode-malformed", Base::kClosed, [](I& i) { i.put(keys::inode(i.named("alone")), "junk"); },
       "rw", 4, "malformed inode record", 4, ""},
      {"inode-of-unknown-type", Base::kClosed,
       [](I& i) {
         const InodeNo ino = i.named("alone");
         std::string value = i.value(keys::inode(ino));
         value[1] = '\xF0';
         i.put(keys::inode(ino), value);
       },
       "rw", 4, "inode of an unknown type", 4, ""},
      {"inode-missing", Base::kClosed, [](I& i) { i.erase(keys::inode(i.named("alone"))); }, "rw",
       4, "nothing refers to tree node", 1, "lost+found/#node-"},
      {"inode-counter-low", Base::kClosed,
       [](I& i) { i.put(keys::counter("inode"), le(std::uint64_t{3})); }, "rw", 4,
       "counter \"inode\" is at 3", 1, "counter \"inode\" is at"},
      {"unknown-table", Base::kClosed, [](I& i) { i.put("Qunknown", "1"); }, "rw", 4,
       "record of an unknown table", 4, ""},
  };
}

std::vector<Case> space_cases() {
  using I = Image;
  return {
      {"token-malformed", Base::kClosed,
       [](I& i) { i.put(first_key(i, keys::kToken), "\x09junk"); }, "ro", 4,
       "token record of an unknown version", 1, "a token that cannot be read is removed"},
      {"token-without-expiry", Base::kClosed,
       [](I& i) { i.erase(first_key(i, keys::kTokenExpiry)); }, "rw", 4, "has no expiry record", 1,
       "has an expiry record now"},
      {"expiry-of-nothing", Base::kCrashed,
       [](I& i) { i.put(keys::token_expiry(12345, TokenId{}), ""); }, "rw", 4,
       "which does not end then", 1, "which does not end then: removed"},
      {"expiry-malformed", Base::kClosed, [](I& i) { i.put("Yx", ""); }, "rw", 4,
       "malformed token expiry key", 1, "malformed token expiry key: removed"},
      {"token-missing", Base::kClosed, [](I& i) { i.erase(first_key(i, keys::kToken)); }, "rw", 4,
       "which does not end then", 1, "which does not end then: removed"},
      {"node-count-low", Base::kClosed, [](I& i) { i.erase(first_key(i, keys::kNodeRefs)); }, "rw",
       4, "reference count is 1, but it has", 1, "reference count is"},
      {"node-count-high", Base::kClosed,
       [](I& i) { i.put(first_key(i, keys::kNodeRefs), le(std::uint64_t{99})); }, "rw", 4,
       "reference count is 99", 1, "reference count is"},
      {"node-count-high-unproven", Base::kClosed,
       [](I& i) {
         const NodeId id = i.inode(i.named("alone")).tree.root->id;
         i.put(first_key(i, keys::kNodeRefs), le(std::uint64_t{99}));
         i.flip_record(keys::node(id));
       },
       "rw", 4, "reference count is 99", 4, ""},
      {"node-count-of-nothing", Base::kClosed,
       [](I& i) { i.put(keys::node_refs(NodeId(0)), le(std::uint64_t{3})); }, "rw", 4,
       "reference count of tree node 0, which does not exist", 1, "which does not exist: removed"},
      {"node-missing", Base::kClosed,
       [](I& i) { i.erase(keys::node(i.inode(i.named("alone")).tree.root->id)); }, "rw", 4,
       "which does not exist", 4, ""},
      {"node-of-wrong-level", Base::kClosed,
       [](I& i) { i.edit(i.named("big"), [](Inode& n) { n.tree.root->level = 3; }); }, "rw", 4,
       "recorded is 3", 4, ""},
      {"node-below-itself", Base::kClosed,
       [](I& i) {
         const NodeId root = i.inode(i.named("big")).tree.root->id;
         replace_node(i, root, [&](TreeNode& node) { node.entries[0].ref = root.value(); });
       },
       "rw", 4, "for a child", 4, "reference count is 2 now"},
      {"node-ring", Base::kClosed,
       [](I& i) {
         // Two nodes, each of which says that it is one level above the other.
         const NodeId root = i.inode(i.named("big")).tree.root->id;
         const TreeNode top = must(TreeNode::decode(i.value(keys::node(root))));
         const NodeId below = top.entries[0].child();
         TreeNode ring;
         ring.level = 1;
         for (int n = 0; n < 8; ++n) {
           ring.entries.push_back({top.entries[0].bytes / 8, 0, root.value()});
         }
         i.put(keys::node(below), ring.encode());
       },
       "rw", 4, "for a child", 4, "reference count is 9 now"},
      {"node-sums-wrong", Base::kClosed,
       [](I& i) { i.edit(i.named("big"), [](Inode& n) { n.tree.root->bytes += 4096; }); }, "rw", 4,
       "recorded are", 4, ""},
      {"node-counter-low", Base::kClosed,
       [](I& i) { i.put(keys::counter("node"), le(std::uint64_t{1})); }, "rw", 4,
       "counter \"node\" is at 1", 1, "counter \"node\" is at"},
      {"queue-of-nothing", Base::kClosed, [](I& i) { i.put(keys::reclaim(NodeId(0)), ""); }, "rw",
       4, "the reclaim queue refers to tree node 0, which does not exist", 1,
       "which does not exist, is removed"},
      {"queue-malformed", Base::kClosed, [](I& i) { i.put(first_key(i, keys::kReclaim), "junk"); },
       "rw", 4, "malformed record in the reclaim queue", 1, "made anew"},
      {"block-counts-lost", Base::kClosed,
       [](I& i) {
         WriteSet writes;
         for (const KeyValue& record : i.table(keys::kBlockRefs)) {
           writes.emplace(record.key, std::nullopt);
         }
         i.change(writes);
       },
       "rw", 4, "reference count is 1, but it has 2", 1, "reference counts of blocks"},
      {"block-counts-high", Base::kClosed,
       [](I& i) {
         WriteSet writes;
         for (const KeyValue& record : i.table(keys::kBlockRefs)) {
           writes.emplace(record.key, record.value.substr(0, 8) + le(std::uint64_t{50}));
         }
         i.change(writes);
       },
       "rw", 4, "reference count is 50", 1, "reference counts of blocks"},
      {"block-count-of-unused", Base::kClosed,
       [](I& i) {
         i.put(keys::block_refs(BlockNo(4000)), le(std::uint64_t{3}) + le(std::uint64_t{2}));
       },
       "rw", 4, "but nothing refers to it", 1, "reference counts of blocks"},
      {"block-count-malformed", Base::kClosed,
       [](I& i) { i.put(keys::block_refs(BlockNo(4000)), "junk"); }, "rw", 4,
       "block reference record", 1, "reference counts of blocks"},
      {"checksums-missing", Base::kClosed, [](I& i) { i.erase(first_key(i, keys::kChecksums)); },
       "rw", 4, "no checksum", 4, ""},
      {"checksums-malformed", Base::kClosed,
       [](I& i) { i.put(first_key(i, keys::kChecksums), "junk"); }, "rw", 4,
       "malformed checksum record", 4, ""},
      {"checksums-of-nothing", Base::kClosed,
       [](I& i) { i.put(keys::checksums(BlockNo(1ULL << 30)), std::string(256, 'x')); }, "rw", 4,
       "where there are no blocks", 1, "of blocks that are not in use, is removed"},
      {"extent-behind-device", Base::kCrashed,
       [](I& i) {
         i.edit(i.named("dir/small"), [](Inode& n) {
           for (TreeEntry& extent : n.tree.extents) {
             extent.ref = 1ULL << 45;
           }
         });
       },
       "ro", 4, "but the device has", 4, ""},
      {"bitmap-frees-used", Base::kClosed,
       [](I& i) {
         std::string bits = i.value(keys::bitmap(0));
         bits[0] = '\0';
         i.put(keys::bitmap(0), bits);
       },
       "rw", 4, "free in the saved bitmap, but in use", 1, "the saved bitmap of segment 0"},
      {"bitmap-keeps-free", Base::kClosed,
       [](I& i) {
         std::string bits = i.value(keys::bitmap(0));
         bits[bits.size() / 2] = '\xFF';
         i.put(keys::bitmap(0), bits);
       },
       "rw", 4, "in use in the saved bitmap", 1, "the saved bitmap of segment 0"},
      {"bitmap-missing", Base::kClosed, [](I& i) { i.erase(keys::bitmap(0)); }, "rw", 4,
       "no bitmap of segment 0", 1, "the saved bitmaps are dropped"},
      {"bitmap-malformed", Base::kClosed, [](I& i) { i.put(keys::bitmap(0), "x"); }, "rw", 4,
       "free in the saved bitmap, but in use", 1, "the saved bitmap of segment 0 is what"},
  };
}

}  // namespace

const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> out;
    for (auto part :
         {superblock_cases(), file_cases(), flipped_cases(), name_cases(), space_cases()}) {
      std::move(part.begin(), part.end(), std::back_inserter(out));
    }
    return out;
  }();
  return all;
}

}  // namespace odx::images
