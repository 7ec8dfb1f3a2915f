// Extended attributes: table `X`, one record for each, the value as it is.
#include "store/inode/names.hpp"
#include "store/inode/names_steps.hpp"
#include "store/meta/keys.hpp"

namespace odx {

namespace {

constexpr std::size_t kMaxXattrName = 255;
constexpr std::size_t kXattrsPerScan = 64;

Result<void> check_xattr_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxXattrName) {
    return fail(ERANGE);
  }
  if (name.find('\0') != std::string_view::npos) {
    return fail(EINVAL);
  }
  return {};
}

}  // namespace

Result<std::string> Names::xattr(InodeNo ino, std::string_view name) {
  ODX_TRY(check_xattr_name(name));
  const InodePtr inode = ODX_TRY(core_.inode(ino));
  if (inode->xattr_count == 0) {
    return fail(ENODATA);
  }
  std::optional<std::string> value = ODX_TRY(core_.meta->get(keys::xattr(ino, name)));
  if (!value) {
    return fail(ENODATA);
  }
  return *std::move(value);
}

Result<void> Names::set_xattr(InodeNo ino, std::string_view name, std::string_view value,
                              XattrMode mode) {
  ODX_TRY(check_xattr_name(name));
  if (value.size() > kMaxXattrBytes) {
    return fail(E2BIG);
  }
  Mutation m = ODX_TRY(Mutation::begin(core_));
  Inode inode = ODX_TRY(m.inode(ino));
  const std::string key = keys::xattr(ino, name);
  const bool exists = inode.xattr_count != 0 && ODX_TRY(m.kv().get(key)).has_value();
  if (exists && mode == XattrMode::kCreate) {
    return fail(EEXIST);
  }
  if (!exists && mode == XattrMode::kReplace) {
    return fail(ENODATA);
  }
  m.kv().put(key, std::string(value));
  inode.xattr_count += exists ? 0 : 1;
  inode.ctime_ns = m.now_ns();
  m.put(std::move(inode));
  ODX_TRY(m.commit());
  return {};
}

Result<void> Names::remove_xattr(InodeNo ino, std::string_view name) {
  ODX_TRY(check_xattr_name(name));
  Mutation m = ODX_TRY(Mutation::begin(core_));
  Inode inode = ODX_TRY(m.inode(ino));
  const std::string key = keys::xattr(ino, name);
  if (inode.xattr_count == 0 || !ODX_TRY(m.kv().get(key))) {
    return fail(ENODATA);
  }
  m.kv().erase(key);
  --inode.xattr_count;
  inode.ctime_ns = m.now_ns();
  m.put(std::move(inode));
  ODX_TRY(m.commit());
  return {};
}

Result<std::vector<std::string>> Names::list_xattrs(InodeNo ino) {
  const InodePtr inode = ODX_TRY(core_.inode(ino));
  std::vector<std::string> names;
  if (inode->xattr_count == 0) {
    return names;
  }
  const std::string prefix = keys::xattr(ino, {});
  const std::string end = keys::xattr(InodeNo(ino.value() + 1), {});
  std::string from = prefix;
  for (;;) {
    const std::vector<KeyValue> found = ODX_TRY(core_.meta->scan(from, end, kXattrsPerScan));
    for (const KeyValue& xattr : found) {
      names.push_back(xattr.key.substr(prefix.size()));
    }
    if (found.size() < kXattrsPerScan) {
      return names;
    }
    from = found.back().key + '\0';
  }
}

}  // namespace odx
