// Every key and value codec on any bytes. Nearly all of them know one encoding for each value, so
// what was taken apart must come out again as it went in.
#include <string>

#include "base/codec.hpp"
#include "input.hpp"
#include "store/extent/block_refs.hpp"
#include "store/extent/tree.hpp"
#include "store/inode/directory.hpp"
#include "store/inode/inode.hpp"
#include "store/inode/names_steps.hpp"
#include "store/meta/batch.hpp"
#include "store/meta/keys.hpp"
#include "store/meta/sealed_value.hpp"
#include "store/space/segment_bitmap.hpp"
#include "store/token/token_record.hpp"

namespace odx::fuzz {

namespace {

// Sound ones, for the input to change.
std::string sample(std::size_t kind, Input& in) {
  std::string out;
  switch (kind) {
    case 0: {
      Inode inode;
      inode.mode = S_IFREG | 0644;
      inode.nlink = 1;
      for (std::size_t left = in.below(kInlineExtents + 2); left > 0; --left) {
        inode.tree.extents.push_back(in.below(2) == 0
                                         ? TreeEntry::hole(in.number())
                                         : TreeEntry::data(PhysAddr(in.number()), in.number()));
      }
      return inode.encode();
    }
    case 1: {
      Inode link;
      link.mode = S_IFLNK | 0777;
      link.nlink = 1;
      link.symlink_target = "target";
      return link.encode();
    }
    case 2: {
      TokenRecord token;
      token.ttl_ms = 1000;
      token.span = token.data_length = 512;
      token.tree.extents.push_back(TreeEntry::data(PhysAddr(4096), 512));
      return token.encode();
    }
    case 3: {
      TreeNode node;
      node.level = static_cast<unsigned>(in.below(3));
      node.entries.resize(1 + in.below(kNodeMaxEntries + 1), TreeEntry::data(PhysAddr(512), 100));
      return node.encode();
    }
    case 4:
      put_le(out, std::uint64_t{12});
      put_le(out, std::uint32_t{S_IFREG});
      return out + "name";
    default:
      return out;
  }
}

void decode_batch_again(std::string_view bytes) {
  auto memtable = std::make_shared<Memtable>();
  OpenBatch batch;
  std::size_t changes = 0;
  const Result<void> decoded = decode_batch(bytes, [&](std::string key, SharedValue value) {
    batch.reserve(1);
    batch.add(memtable->put(Memtable::make_change(std::move(key), std::move(value))));
    ++changes;
  });
  const SealedBatch sealed = batch.seal(memtable);
  if (decoded && sealed.changes.size() == changes) {  // no key twice
    std::string again;
    sealed.encode(again);
    FUZZ_EXPECT(again == bytes);
  }
}

void run(Input in) {
  const std::size_t what = in.below(11);
  std::string bytes = sample(in.below(6), in);
  for (std::size_t left = in.below(8); left > 0; --left) {
    in.damage(bytes);
  }
  const std::string key(in.take(in.below(32)));
  bytes.append(in.take_rest());
  switch (what) {
    case 0:
      if (const auto inode = Inode::decode(InodeNo(5), bytes)) {
        FUZZ_EXPECT(inode->encode() == bytes);
      }
      break;
    case 1:
      if (const auto token = TokenRecord::decode(TokenId{}, bytes)) {
        FUZZ_EXPECT(token->encode() == bytes);
      }
      break;
    case 2:
      if (const auto node = TreeNode::decode(bytes)) {
        FUZZ_EXPECT(node->encode() == bytes);
      }
      break;
    case 3:
      if (const auto entry = decode_entry({key, bytes})) {
        FUZZ_EXPECT(!entry->name.empty() && entry->name.size() <= kMaxNameBytes);
        FUZZ_EXPECT(bytes.ends_with(entry->name));
        FUZZ_EXPECT(entry->cookie >= kMaxEqualHashes && entry->cookie <= INT64_MAX);
      }
      break;
    case 4:
      if (const auto record = BlockRefs::decode({key, bytes})) {
        FUZZ_EXPECT(record->refs >= 2 && record->run.count > 0);
        FUZZ_EXPECT(keys::block_refs(record->run.end() - 1).substr(1) == key.substr(1));
      }
      break;
    case 5:
      if (const auto kind = decode_orphan(bytes)) {
        FUZZ_EXPECT(bytes == std::string(1, static_cast<char>(*kind)));
      }
      break;
    case 6:
      if (const auto id = token_id_of_key(key)) {
        FUZZ_EXPECT(keys::token(*id) == key);
      }
      if (const auto due = token_due_of_key(key)) {
        FUZZ_EXPECT(keys::token_expiry(static_cast<std::uint64_t>(due->due_ns), due->id) == key);
      }
      break;
    case 7: {
      (void)unseal_value(key, bytes);
      std::string sealed(bytes.size() + kSealBytes, '\0');
      seal_value(key, bytes, sealed);
      FUZZ_EXPECT(must(unseal_value(key, sealed)) == bytes);
      std::string damaged = sealed;
      damaged[key.size() % sealed.size()] =
          static_cast<char>(damaged[key.size() % sealed.size()] ^ 1);
      FUZZ_EXPECT(!unseal_value(key, damaged));
      break;
    }
    case 8:
      decode_batch_again(bytes);
      break;
    case 9: {
      SegmentBitmap bitmap(1 + key.size() * 37);
      if (bitmap.load(bytes)) {
        FUZZ_EXPECT(bitmap.save() == bytes);
      }
      break;
    }
    default: {
      Decoder decoder(bytes);
      if (const auto tree = Tree::decode(decoder); tree && !decoder.failed()) {
        std::string again;
        tree->encode(again);
        FUZZ_EXPECT(bytes.starts_with(again));
      }
      break;
    }
  }
}

}  // namespace

}  // namespace odx::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  odx::fuzz::run({data, size});
  return 0;
}
