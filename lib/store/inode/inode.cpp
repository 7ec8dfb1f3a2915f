// The value of an `I` record. FORMAT.md has the layout.
#include "store/inode/inode.hpp"

#include "base/codec.hpp"
#include "store/inode/names.hpp"

namespace odx {

namespace {

constexpr std::size_t kMaxTargetBytes = 4095;

void put_time(std::string& out, std::int64_t ns) { put_le(out, static_cast<std::uint64_t>(ns)); }
std::int64_t get_time(Decoder& in) { return static_cast<std::int64_t>(in.le<std::uint64_t>()); }

// What a record of this type may not have. Says what is wrong, or nullptr.
const char* contradiction(const Inode& inode) {
  switch (inode.mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      break;
    default:
      return "inode of an unknown type";
  }
  if ((inode.mode & ~(S_IFMT | 07777U)) != 0) {
    return "inode with unknown mode bits";
  }
  if (inode.nlink > kMaxLinks) {
    return "inode with too many links";
  }
  if (inode.is_symlink() ? inode.symlink_target.empty() : !inode.symlink_target.empty()) {
    return "symlink target missing or out of place";
  }
  if (inode.symlink_target.size() > kMaxTargetBytes) {
    return "symlink target too long";
  }
  if (inode.is_directory() != (inode.parent != InodeNo{})) {
    return "parent missing or out of place";
  }
  if (!inode.is_directory() && inode.entry_count != 0) {
    return "entry count out of place";
  }
  if (!inode.is_regular() && (inode.tree != Tree{} || inode.data_version != 0)) {
    return "content out of place";
  }
  return nullptr;
}

}  // namespace

std::uint64_t Inode::size() const {
  if (is_regular()) {
    return tree.bytes();
  }
  return is_symlink() ? symlink_target.size() : entry_count;
}

std::string Inode::encode() const {
  std::string out;
  out.reserve(128 + symlink_target.size());
  put_le(out, mode);
  put_le(out, uid);
  put_le(out, gid);
  put_le(out, nlink);
  put_le(out, rdev);
  put_time(out, atime_ns);
  put_time(out, mtime_ns);
  put_time(out, ctime_ns);
  put_time(out, btime_ns);
  put_le(out, parent.value());
  put_le(out, entry_count);
  put_le(out, data_version);
  put_le(out, xattr_count);
  put_le(out, static_cast<std::uint16_t>(symlink_target.size()));
  out.append(symlink_target);
  tree.encode(out);
  return out;
}

Result<Inode> Inode::decode(InodeNo ino, std::string_view bytes) {
  Decoder in(bytes);
  Inode inode;
  inode.ino = ino;
  inode.mode = in.le<std::uint32_t>();
  inode.uid = in.le<std::uint32_t>();
  inode.gid = in.le<std::uint32_t>();
  inode.nlink = in.le<std::uint32_t>();
  inode.rdev = in.le<std::uint32_t>();
  inode.atime_ns = get_time(in);
  inode.mtime_ns = get_time(in);
  inode.ctime_ns = get_time(in);
  inode.btime_ns = get_time(in);
  inode.parent = InodeNo(in.le<std::uint64_t>());
  inode.entry_count = in.le<std::uint64_t>();
  inode.data_version = in.le<std::uint64_t>();
  inode.xattr_count = in.le<std::uint64_t>();
  inode.symlink_target = in.bytes(in.le<std::uint16_t>());
  if (in.failed()) {
    return corrupt("malformed inode record");
  }
  inode.tree = ODX_TRY(Tree::decode(in));
  ODX_TRY(in.finish("inode record"));
  if (const char* what = contradiction(inode)) {
    return corrupt(what);
  }
  return inode;
}

}  // namespace odx
