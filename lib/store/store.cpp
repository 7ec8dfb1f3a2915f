// Opening and closing a store.
//
// What a crash leaves is opened like anything else: LMDB as of its last checkpoint, then the
// journal's batches on top. Free space is not recorded anywhere in between; it is what no leaf
// names, found by one scan of the records that hold leaves. A clean unmount saves the bitmaps and a
// mark, which the first commit afterwards takes back, to skip that scan.

#include "store/store.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>

#include "base/log.hpp"
#include "store/background.hpp"
#include "store/host_space.hpp"
#include "store/meta/keys.hpp"
#include "store/mutation.hpp"
#include "store/token/token_record.hpp"

namespace odx {

namespace {

namespace fs = std::filesystem;

Result<std::uint64_t> default_limit(const std::string& dir) {
  struct statvfs host {};
  if (::statvfs(dir.c_str(), &host) != 0) {
    return fail(errno, dir);
  }
  return host.f_bavail * host.f_frsize / 10 * 9;
}

Uuid random_uuid() {
  Uuid uuid;
  ::randombytes_buf(uuid.data(), uuid.size());
  uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0F) | 0x40);
  uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3F) | 0x80);
  return uuid;
}

Result<void> make_root(const std::string& dir, const Uuid& uuid, const FormatOptions& options) {
  auto meta = ODX_TRY(MetaStore::open(
      dir, uuid, MetaOptions{}, [] { return Result<void>(); }, [](TxnSeq) {}));
  Inode root;
  root.ino = kRootInode;
  root.mode = S_IFDIR | 0755;
  root.uid = options.uid;
  root.gid = options.gid;
  root.nlink = 2;
  root.parent = kRootInode;
  root.atime_ns = root.mtime_ns = root.ctime_ns = root.btime_ns = Clock::system().now_ns();
  WriteSet writes;
  writes.emplace(keys::inode(kRootInode), root.encode());
  std::string last;
  put_le(last, kRootInode.value());
  writes.emplace(keys::counter("inode"), last);
  ODX_TRY(meta->commit(std::move(writes)));
  return meta->close();
}

Result<void> format_in(const std::string& dir, const FormatOptions& options) {
  Superblock super;
  super.uuid = random_uuid();
  super.label = options.label;
  super.sector_bytes = options.sector_bytes;
  const std::uint64_t limit =
      options.limit_bytes != 0 ? options.limit_bytes : ODX_TRY(default_limit(dir));
  if (limit < kMinStoreBytes) {
    return fail(EINVAL, fmt::format("a store needs at least {} MiB", kMinStoreBytes >> 20));
  }
  super.limit_blocks = limit / kBlockBytes;
  if (::mkdir((dir + "/data").c_str(), 0700) != 0) {
    return fail(errno, dir + "/data");
  }
  ODX_TRY(MetaStore::format(dir, options.journal_bytes));
  ODX_TRY(make_root(dir, super.uuid, options));
  // Last, so that an interrupted mkfs leaves no store.
  ODX_TRY(write_superblock(dir, super));
  super.generation = 2;
  return write_superblock(dir, super);
}

constexpr int kMaxLockBytes = 32;  // it holds a number and a new line

// Whose lock it is, for people.
std::string holder_of(int lock_fd) {
  char text[kMaxLockBytes] = {};
  const ssize_t got = ::pread(lock_fd, text, sizeof text - 1, 0);
  return got > 0 ? std::string(text, std::strcspn(text, "\n")) : "?";
}

Result<Fd> lock_store(const std::string& dir, bool read_only) {
  const std::string path = dir + "/LOCK";
  // Who may write in the directory could have put a link there, or a pipe.
  const int flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  Fd lock(::open(path.c_str(), flags | (read_only ? O_RDONLY : O_RDWR | O_CREAT), 0600));
  if (!lock.valid()) {
    if (read_only && errno == ENOENT) {
      return lock;  // formatted and never opened since
    }
    return fail(errno, path);
  }
  struct stat status {};
  if (::fstat(lock.get(), &status) != 0) {
    return fail(errno, path);
  }
  if (!S_ISREG(status.st_mode) || status.st_nlink > 1 || status.st_size > kMaxLockBytes) {
    return fail(EINVAL, path + " is not the lock file of a store");
  }
  if (::flock(lock.get(), (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    return fail(EBUSY, fmt::format("{} is in use by process {}", dir, holder_of(lock.get())));
  }
  if (!read_only) {
    const std::string pid = fmt::format("{}\n", ::getpid());
    if (::ftruncate(lock.get(), 0) != 0 ||
        ::pwrite(lock.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
      return fail(errno, path);
    }
  }
  return lock;
}

// Calls `each` with every record of a table.
Result<void> for_each(const KvReader& kv, char table,
                      const std::function<Result<void>(const KeyValue&)>& each) {
  std::string from = keys::table_begin(table);
  const std::string end = keys::table_end(table);
  for (;;) {
    const auto page = ODX_TRY(kv.scan(from, end, 512));
    if (page.empty()) {
      return {};
    }
    for (const KeyValue& record : page) {
      ODX_TRY(each(record));
    }
    from = page.back().key + '\0';
  }
}

Result<void> mark_extents(SpaceMap& space, const std::vector<TreeEntry>& extents) {
  for (const TreeEntry& extent : extents) {
    if (!extent.is_hole()) {
      ODX_TRY(space.mark_used(blocks_of(extent)));
    }
  }
  return {};
}

// Every leaf is in one of three places: a node record, an inode, or a token.
Result<void> rebuild_space(Core& core) {
  const KvReader& kv = *core.meta;
  ODX_TRY(for_each(kv, keys::kNode, [&](const KeyValue& record) -> Result<void> {
    const TreeNode node = ODX_TRY(TreeNode::decode(record.value));
    return node.level == 0 ? mark_extents(core.space, node.entries) : Result<void>();
  }));
  ODX_TRY(for_each(kv, keys::kInode, [&](const KeyValue& record) -> Result<void> {
    const InodeNo ino(keys::number_of(record.key));
    return mark_extents(core.space, ODX_TRY(Inode::decode(ino, record.value)).tree.extents);
  }));
  return for_each(kv, keys::kToken, [&](const KeyValue& record) -> Result<void> {
    const TokenId id = ODX_TRY(token_id_of_key(record.key));
    return mark_extents(core.space, ODX_TRY(TokenRecord::decode(id, record.value)).tree.extents);
  });
}

Result<void> load_space(Core& core) {
  const std::uint64_t blocks = core.device->blocks();
  for (std::uint64_t at = 0; at < blocks; at += kSegmentBlocks) {
    core.space.add_segment(std::min(kSegmentBlocks, blocks - at));
  }
  const auto mark = core.meta->get(keys::counter("clean"));
  if (!mark && !mark.error().is_corruption()) {
    return std::unexpected(mark.error());
  }
  core.clean_mark = !mark || mark->has_value();  // the first commit takes it back
  if (!mark || !*mark) {
    return rebuild_space(core);
  }
  // Segments added after that unmount, by a mount that did not live to its first commit, have no
  // saved bitmap. One that has, and is not there, is lost: its number must not be used again.
  const auto lost = ODX_TRY(core.meta->scan(keys::bitmap(core.space.segments()),
                                            keys::table_end(keys::kBitmap), 1));
  if (!lost.empty()) {
    return corrupt(fmt::format("segment {:04}.seg is missing", keys::number_of(lost[0].key)));
  }
  for (std::size_t i = 0; i < core.space.segments(); ++i) {
    auto saved = core.meta->get(keys::bitmap(i));
    if (!saved && !saved.error().is_corruption()) {
      return std::unexpected(saved.error());
    }
    // A segment that grew after that unmount is longer than its bitmap.
    const std::size_t bytes = (std::min(kSegmentBlocks, blocks - i * kSegmentBlocks) + 7) / 8;
    if (!saved || !*saved || (*saved)->size() != bytes) {
      return rebuild_space(core);
    }
    ODX_TRY(core.space.load_segment(i, **saved));
  }
  return {};
}

Result<void> save_space(Core& core) {
  WriteSet writes;
  for (std::size_t i = 0; i < core.space.segments(); ++i) {
    writes.emplace(keys::bitmap(i), core.space.save_segment(i));
  }
  for (std::size_t gone = core.space.segments(); ODX_TRY(core.meta->get(keys::bitmap(gone)));
       ++gone) {
    writes.emplace(keys::bitmap(gone), std::nullopt);
  }
  writes.emplace(keys::counter("clean"), std::string());
  ODX_TRY(core.meta->commit(std::move(writes)));
  return {};
}

}  // namespace

Result<void> Store::format(const std::string& dir, const FormatOptions& options) {
  if (::sodium_init() < 0) {
    return fail(EIO, "libsodium has no source of random numbers");
  }
  if (options.sector_bytes < 512 || options.sector_bytes > kBlockBytes ||
      !std::has_single_bit(options.sector_bytes)) {
    return fail(EINVAL, "the sector must be a power of two from 512 to 4096");
  }
  if (options.label.size() > 31) {
    return fail(EINVAL, "the label must be at most 31 bytes");
  }
  std::error_code error;
  const bool existed = fs::exists(dir, error);
  if (existed && !fs::is_directory(dir, error)) {
    return fail(ENOTDIR, dir);
  }
  if (existed && !fs::is_empty(dir, error)) {
    return error ? fail(error.value(), dir) : fail(ENOTEMPTY, dir);
  }
  if (!existed && ::mkdir(dir.c_str(), 0700) != 0) {
    return fail(errno, dir);
  }
  const Result<void> done = format_in(dir, options);
  if (!done) {
    for (const auto& entry : fs::directory_iterator(dir, error)) {
      fs::remove_all(entry.path(), error);
    }
    if (!existed) {
      fs::remove(dir, error);
    }
  }
  return done;
}

Store::Store(std::string dir, OpenOptions& options)
    : dir_(std::move(dir)),
      names_(core_),
      files_(core_),
      tokens_(core_, options.tokens),
      scrub_(core_, options.scrub),
      online_check_(core_) {}

Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::open(const std::string& dir, OpenOptions options) {
  if (::sodium_init() < 0) {
    return fail(EIO, "libsodium has no source of random numbers");
  }
  std::unique_ptr<Store> store(new Store(dir, options));
  ODX_TRY(store->start(options));
  return store;
}

Result<void> Store::start(OpenOptions& options) {
  core_.super = ODX_TRY(read_superblock(dir_));
  options.read_only = options.read_only || core_.super.read_only_features();
  lock_ = ODX_TRY(lock_store(dir_, options.read_only));
  core_.clock = options.clock;
  core_.read_only = options.read_only;
  options.device.read_only = options.read_only;
  options.meta.read_only = options.read_only;
  core_.device = options.test_device ? std::move(options.test_device)
                                     : ODX_TRY(open_segment_device(dir_ + "/data", options.device));
  core_.meta = ODX_TRY(MetaStore::open(
      dir_, core_.super.uuid, options.meta, [this] { return core_.device->sync(); },
      [this](TxnSeq) { core_.settle_space(); }));
  if (!core_.meta->health()) {
    core_.read_only = true;  // damage inside the journal: look, but do not touch
  }
  // Where a record cannot be read that may hold blocks, nobody knows which blocks are free.
  if (const auto loaded = load_state(); !loaded) {
    if (!loaded.error().is_corruption()) {
      return loaded;
    }
    log::error("{} is read-only: {}", dir_, loaded.error().message());
    core_.read_only = true;
    scrub_.stop();  // it goes by the blocks in use: what it did not know of would count as sound
  }
  scrub_.load();
  if (core_.read_only) {
    return {};
  }
  if (const auto reaped = names_.reap_all_orphans(); !reaped) {
    if (!reaped.error().is_corruption()) {
      return reaped;
    }
    log::error("orphans stay: {}", reaped.error().message());
  }
  core_.reclaim_now = [this] { return reclaim(); };
  if (options.background) {
    background_ = std::make_unique<Background>(core_, tokens_);
  }
  return {};
}

Result<void> Store::load_state() {
  core_.limit_blocks.store(core_.super.limit_blocks);
  ODX_TRY(load_space(core_));
  ODX_TRY(settle_host_space(core_));
  ODX_TRY(tokens_.load());
  std::uint64_t queued = 0;
  ODX_TRY(for_each(*core_.meta, keys::kReclaim, [&](const KeyValue&) -> Result<void> {
    ++queued;
    return {};
  }));
  core_.reclaim_pending.store(queued);
  return {};
}

Result<void> Store::reclaim() { return reclaim_queue(core_); }

Result<void> Store::resize(std::uint64_t bytes, ResizeReport& report) {
  return odx::resize(core_, dir_, bytes, report);
}

Result<void> Store::close() {
  scrub_.stop();
  online_check_.stop();
  background_.reset();
  if (core_.read_only) {
    return {};
  }
  // Nobody reads any more: once all is durable, nothing freed is pending.
  ODX_TRY(core_.meta->wait_durable(core_.meta->committed()));
  core_.settle_space();
  ODX_TRY(save_space(core_));
  ODX_TRY(core_.meta->close());
  core_.read_only = true;
  // Whoever waits for the end of this process learns that all is well.
  (void)::ftruncate(lock_.get(), 0);
  lock_.reset();
  return {};
}

void Store::fill_statistics(odx_stat& out) {
  std::memset(&out, 0, sizeof out);
  out.size = sizeof out;
  out.version = 1;
  std::copy(core_.super.uuid.begin(), core_.super.uuid.end(), out.uuid);
  core_.super.label.copy(out.label, sizeof out.label - 1);
  out.sector_bytes = core_.super.sector_bytes;
  out.block_bytes = kBlockBytes;
  const TokenOptions& options = tokens_.options();
  out.features = (options.extend ? ODX_FEATURE_EXTEND : 0U) |
                 (options.bind_to_user ? ODX_FEATURE_USER_TOKENS : 0U) |
                 (core_.read_only ? ODX_FEATURE_READ_ONLY : 0U);
  out.file_bytes_max = kMaxFileBytes;
  out.token_ttl_default_ms = options.ttl_default_ms;
  out.token_ttl_max_ms = options.ttl_max_ms;
  out.tokens_max = options.max_total;
  out.tokens_max_per_user = options.max_per_uid;
  out.pinned_bytes_max = options.max_pinned_bytes;
  out.pinned_bytes_max_per_user = options.max_pinned_bytes_per_uid;
  const Core::Capacity capacity = core_.capacity();
  out.total_bytes = capacity.total_bytes;
  out.free_bytes = capacity.free_bytes;
  out.pending_bytes = capacity.pending_bytes;
  out.reclaim_pending = core_.reclaim_pending.load();
  const TokenUsage& usage = tokens_.usage();
  out.tokens_live = usage.live();
  out.tokens_live_peak = usage.most_live();
  out.pinned_bytes = usage.pinned_bytes();
  out.pinned_bytes_peak = usage.most_pinned_bytes();
  const Counters& counters = core_.counters;
  out.tokens_created = counters.tokens_created.load();
  out.tokens_redeemed = counters.tokens_redeemed.load();
  out.tokens_expired = counters.tokens_expired.load();
  out.tokens_dropped = counters.tokens_dropped.load();
  out.offload_bytes = counters.offload_bytes.load();
  out.offload_bytes_shared = counters.offload_bytes_shared.load();
  out.clone_calls = counters.clone_calls.load();
  out.clone_bytes_shared = counters.clone_bytes_shared.load();
  std::copy(counters.refused.begin(), counters.refused.end(), out.refused);
  std::copy(counters.fallback_bytes.begin(), counters.fallback_bytes.end(), out.fallback_bytes);
  out.device_bytes_read = counters.device_bytes_read.load();
  out.device_bytes_written = counters.device_bytes_written.load();
  const MetaStats meta = core_.meta->stats();
  out.journal_bytes_written = meta.journal_bytes;
  out.journal_flushes = meta.flushes;
  out.checkpoints = meta.checkpoints;
  out.checksum_errors = counters.checksum_errors.load();
}

}  // namespace odx
