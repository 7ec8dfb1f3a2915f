// The structure of an LMDB 0.9 file, checked before LMDB maps it.
//
// LMDB trusts its file: offsets and page numbers in it are followed as they are, and an assertion
// ends the process. Values in it carry checksums of ours, but what leads to them does not. So every
// page that the newest transaction can reach is looked at once: its number and kind, where its
// entries lie, the order of keys against those above them, and that no two things share a page.
// Older transactions are unreachable, as the store never opens one.
//
// The layout is that of LMDB's own mdb.c (MDB_page, MDB_node, MDB_meta) on 64-bit machines; it is
// stable within format version 1. FORMAT.md names the version.
#include "store/meta/base_verify.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "base/codec.hpp"
#include "base/fd.hpp"

namespace odx {

namespace {

constexpr std::uint64_t kNone = UINT64_MAX;  // the root of an empty tree
constexpr std::size_t kPageHeader = 16;
constexpr std::size_t kNodeHeader = 8;
constexpr std::size_t kMaxKey = 511;
constexpr unsigned kMaxDepth = 32;
constexpr std::uint16_t kBranch = 1;
constexpr std::uint16_t kLeaf = 2;
constexpr std::uint16_t kOverflow = 4;
constexpr std::uint16_t kMetaPage = 8;
constexpr std::uint16_t kBigData = 1;      // of a leaf's entry: it lies in pages of its own
constexpr std::uint16_t kIntegerKeys = 8;  // of a tree: keys are numbers, in this machine's order
constexpr std::uint32_t kMagic = 0xBEEFC0DE;
constexpr std::uint32_t kVersion = 1;
// Pages may be allocated and freed again in one transaction, and are never written then.
constexpr std::uint64_t kMaxUnwritten = 1ULL << 20;

template <class T>
T at(std::string_view page, std::size_t offset) {
  return load_le<T>(page.data() + offset);
}

struct TreeHead {
  std::uint16_t flags = 0;
  std::uint16_t depth = 0;
  std::uint64_t root = kNone;
};

struct Meta {
  std::uint32_t page_bytes = 0;
  TreeHead free;
  TreeHead main;
  std::uint64_t last_page = 0;
  std::uint64_t transaction = 0;
};

struct Entry {
  std::size_t offset = 0;
  std::size_t bytes = 0;  // in the page
  std::string_view key;
  std::uint64_t child = 0;  // branch
  std::string_view data;    // leaf; of big data the page number
  std::uint64_t data_bytes = 0;
  bool big = false;
};

class Verifier {
 public:
  explicit Verifier(Fd file) : file_(std::move(file)) {}

  Result<void> run() {
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0) {
      return fail(errno, "the metadata base");
    }
    file_bytes_ = static_cast<std::uint64_t>(status.st_size);
    meta_ = ODX_TRY(newest_meta());
    pages_ = file_bytes_ / meta_.page_bytes;
    if (meta_.last_page < 1 || meta_.last_page > pages_ + kMaxUnwritten) {
      return damaged("its number of pages is impossible");
    }
    taken_.assign(meta_.last_page + 1, false);
    taken_[0] = taken_[1] = true;
    main_ = true;
    ODX_TRY(walk_tree(meta_.main, 0));
    main_ = false;
    return walk_tree(meta_.free, kIntegerKeys);
  }

 private:
  static std::unexpected<Error> damaged(std::string_view what) {
    return corrupt(fmt::format("the metadata base is damaged: {}", what));
  }
  static std::unexpected<Error> damaged(std::uint64_t page, std::string_view what) {
    return corrupt(fmt::format("the metadata base is damaged: page {} {}", page, what));
  }

  Result<void> read(std::uint64_t offset, char* into, std::size_t bytes) const {
    while (bytes != 0) {
      const ssize_t got = ::pread(file_.get(), into, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got < 0) {
        return fail(errno, "the metadata base cannot be read");
      }
      if (got == 0) {
        return damaged("the file is too short");
      }
      into += got;
      offset += static_cast<std::uint64_t>(got);
      bytes -= static_cast<std::size_t>(got);
    }
    return {};
  }

  static TreeHead head_at(std::string_view bytes) {
    return {at<std::uint16_t>(bytes, 4), at<std::uint16_t>(bytes, 6), at<std::uint64_t>(bytes, 40)};
  }

  // LMDB wants both of them, and takes the one with the higher number.
  Result<Meta> newest_meta() const {
    constexpr std::size_t kMetaBytes = 152;
    std::optional<Meta> newest;
    std::uint32_t page_bytes = 0;
    for (std::uint64_t i = 0; i < 2; ++i) {
      std::string page(kMetaBytes, '\0');
      ODX_TRY(read(i * page_bytes, page.data(), page.size()));
      Meta meta;
      meta.page_bytes = at<std::uint32_t>(page, 40);
      if ((at<std::uint16_t>(page, 10) & kMetaPage) == 0 || at<std::uint64_t>(page, 0) != i ||
          at<std::uint32_t>(page, 16) != kMagic || at<std::uint32_t>(page, 20) != kVersion ||
          !std::has_single_bit(meta.page_bytes) || meta.page_bytes < 512 ||
          meta.page_bytes > 65536 || (i == 1 && meta.page_bytes != page_bytes)) {
        return damaged(i, "is no meta page");
      }
      page_bytes = meta.page_bytes;
      meta.free = head_at(std::string_view(page).substr(40));
      meta.main = head_at(std::string_view(page).substr(88));
      meta.last_page = at<std::uint64_t>(page, 136);
      meta.transaction = at<std::uint64_t>(page, 144);
      if (!newest || meta.transaction > newest->transaction) {
        newest = meta;
      }
    }
    return *newest;
  }

  Result<void> take(std::uint64_t page, std::uint64_t count) {
    if (page > meta_.last_page || count > meta_.last_page - page + 1) {
      return damaged(page, "does not exist, but is referred to");
    }
    for (std::uint64_t i = page; i < page + count; ++i) {
      if (taken_[i]) {
        return damaged(i, "has two uses");
      }
      taken_[i] = true;
    }
    return {};
  }

  Result<void> walk_tree(const TreeHead& head, std::uint16_t flags) {
    if (head.flags != flags) {
      return damaged("a tree has unknown flags");
    }
    if (head.root == kNone) {
      return {};
    }
    if (head.depth == 0 || head.depth > kMaxDepth) {
      return damaged("a tree has an impossible depth");
    }
    return walk_page(head.root, head.depth, {}, {});
  }

  [[nodiscard]] bool less(std::string_view a, std::string_view b) const {
    return main_ ? a < b : at<std::uint64_t>(a, 0) < at<std::uint64_t>(b, 0);
  }

  // A page whose keys k are low <= k < high (empty: no bound), `levels` above and with the leaves.
  Result<void> walk_page(std::uint64_t number, unsigned levels, std::string_view low,
                         std::string_view high) {
    ODX_TRY(take(number, 1));
    std::string page(meta_.page_bytes, '\0');
    ODX_TRY(read(number * meta_.page_bytes, page.data(), page.size()));
    const bool leaf = levels == 1;
    const std::vector<Entry> entries = ODX_TRY(entries_of(number, page, leaf));
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const Entry& entry = entries[i];
      const bool bare = !leaf && i == 0;  // the first key of a branch means nothing
      if (!bare &&
          ((i > (leaf ? 0U : 1U) && !less(entries[i - 1].key, entry.key)) ||
           (!low.empty() && less(entry.key, low)) || (!high.empty() && !less(entry.key, high)))) {
        return damaged(number, "has keys out of order");
      }
    }
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (leaf) {
        ODX_TRY(see_value(number, entries[i]));
      } else {
        ODX_TRY(walk_page(entries[i].child, levels - 1, i == 0 ? low : entries[i].key,
                          i + 1 < entries.size() ? entries[i + 1].key : high));
      }
    }
    return {};
  }

  Result<std::vector<Entry>> entries_of(std::uint64_t number, std::string_view page,
                                        bool leaf) const {
    const auto lower = at<std::uint16_t>(page, 12);
    const auto upper = at<std::uint16_t>(page, 14);
    if (at<std::uint64_t>(page, 0) != number ||
        at<std::uint16_t>(page, 10) != (leaf ? kLeaf : kBranch)) {
      return damaged(number, "is not the page that is expected there");
    }
    const std::size_t count = (lower - std::min<std::size_t>(lower, kPageHeader)) / 2;
    if (lower % 2 != 0 || lower > upper || upper > page.size() ||
        count < (leaf || !main_ ? 1U : 2U)) {
      return damaged(number, "has impossible bounds");
    }
    std::vector<Entry> entries(count);
    for (std::size_t i = 0; i < count; ++i) {
      Entry& entry = entries[i];
      entry.offset = at<std::uint16_t>(page, kPageHeader + 2 * i);
      if (entry.offset % 2 != 0 || entry.offset < upper ||
          entry.offset + kNodeHeader > page.size()) {
        return damaged(number, "has an entry outside of it");
      }
      const std::string_view node = page.substr(entry.offset);
      const std::uint64_t low = at<std::uint16_t>(node, 0);
      const std::uint64_t high = at<std::uint16_t>(node, 2);
      const auto flags = at<std::uint16_t>(node, 4);
      const std::size_t key_bytes = at<std::uint16_t>(node, 6);
      std::size_t inside = 0;  // bytes of data in the page
      if (leaf) {
        entry.data_bytes = low | high << 16;
        entry.big = flags == kBigData;
        inside = entry.big ? sizeof(std::uint64_t) : entry.data_bytes;
        if (flags != 0 && !entry.big) {
          return damaged(number, "has an entry of an unknown kind");
        }
      } else {
        entry.child = low | high << 16 | static_cast<std::uint64_t>(flags) << 32;
      }
      const bool bare = !leaf && i == 0;
      if (kNodeHeader + key_bytes + inside > node.size() || key_bytes > kMaxKey ||
          (!bare && (main_ ? key_bytes == 0 : key_bytes != sizeof(std::uint64_t)))) {
        return damaged(number, "has an entry of an impossible size");
      }
      entry.key = node.substr(kNodeHeader, key_bytes);
      entry.data = node.substr(kNodeHeader + key_bytes, inside);
      entry.bytes = (kNodeHeader + key_bytes + inside + 1) / 2 * 2;
    }
    ODX_TRY(entries_fill_page(number, page, upper, entries));
    return entries;
  }

  // Entries lie one behind the other from `upper` to the end of the page, in any order.
  static Result<void> entries_fill_page(std::uint64_t number, std::string_view page,
                                        std::size_t upper, const std::vector<Entry>& entries) {
    std::vector<const Entry*> places;
    places.reserve(entries.size());
    for (const Entry& entry : entries) {
      places.push_back(&entry);
    }
    std::sort(places.begin(), places.end(),
              [](const Entry* a, const Entry* b) { return a->offset < b->offset; });
    std::size_t expected = upper;
    for (const Entry* entry : places) {
      if (entry->offset != expected) {
        return damaged(number, "has entries that overlap");
      }
      expected += entry->bytes;
    }
    return expected == page.size() ? Result<void>()
                                   : damaged(number, "has entries that do not fill it");
  }

  Result<void> see_value(std::uint64_t number, const Entry& entry) {
    std::string big;
    std::string_view data = entry.data;
    if (entry.big) {
      const auto first = at<std::uint64_t>(entry.data, 0);
      const std::uint64_t needed = (kPageHeader - 1 + entry.data_bytes) / meta_.page_bytes + 1;
      if (first > meta_.last_page ||
          file_bytes_ < first * meta_.page_bytes + kPageHeader + entry.data_bytes) {
        return damaged(first, "does not exist, but is referred to");
      }
      big.resize(kPageHeader + (main_ ? 0 : entry.data_bytes));
      ODX_TRY(read(first * meta_.page_bytes, big.data(), big.size()));
      const auto count = at<std::uint32_t>(big, 12);  // more than needed, if the value has shrunk
      if (at<std::uint64_t>(big, 0) != first || at<std::uint16_t>(big, 10) != kOverflow ||
          count < needed) {
        return damaged(first, "is not the page that is expected there");
      }
      ODX_TRY(take(first, count));
      data = std::string_view(big).substr(kPageHeader);
    }
    return main_ ? Result<void>() : see_free_pages(number, data);
  }

  // A list of free pages: how many, and their numbers, descending.
  Result<void> see_free_pages(std::uint64_t number, std::string_view data) {
    const std::size_t room = data.size() / sizeof(std::uint64_t);
    const std::uint64_t count = room == 0 ? 0 : at<std::uint64_t>(data, 0);
    if (room == 0 || count > room - 1) {
      return damaged(number, "has a malformed list of free pages");
    }
    std::uint64_t last = UINT64_MAX;
    for (std::uint64_t i = 1; i <= count; ++i) {
      const auto page = at<std::uint64_t>(data, i * sizeof(std::uint64_t));
      if (page >= last) {
        return damaged(number, "has a malformed list of free pages");
      }
      last = page;
      ODX_TRY(take(page, 1));
    }
    return {};
  }

  const Fd file_;
  std::uint64_t file_bytes_ = 0;
  std::uint64_t pages_ = 0;  // whole ones in the file
  Meta meta_;
  std::vector<bool> taken_;
  bool main_ = true;  // which tree is walked: the store's, or that of free pages
};

}  // namespace

Result<void> verify_base(const std::string& directory) {
  const std::string path = directory + "/data.mdb";
  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file.valid()) {
    return fail(errno, "no metadata base in " + directory);
  }
  return Verifier(std::move(file)).run();
}

}  // namespace odx
