// Whole operations are single transactions by the contracts of names.hpp, files.hpp and tokens.hpp,
// so a crash shows all of one or nothing. The exceptions are invisible: reap() takes an orphan's
// attributes in steps, reclaim() and expiry work in bounded transactions, and none of these changes
// what can be seen by name. So every operation is one step of the history here.
#include "workload.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/aligned_buffer.hpp"
#include "memory.hpp"
#include "proto/token_codec.hpp"
#include "store/host_space.hpp"

namespace odx::crash {

namespace {

constexpr std::uint64_t kSector = 512;
constexpr OffloadCaller kRoot{.uid = 0, .readable = true, .writable = true};

void put(std::string& content, std::uint64_t at, std::string_view data) {
  if (content.size() < at + data.size()) {
    content.resize(at + data.size());
  }
  std::copy(data.begin(), data.end(), content.begin() + static_cast<std::ptrdiff_t>(at));
}

struct Weighted {
  OpKind kind;
  unsigned weight;
};
constexpr Weighted kWeights[] = {
    {OpKind::kCreate, 8},      {OpKind::kMkdir, 3},           {OpKind::kSymlink, 2},
    {OpKind::kLink, 4},        {OpKind::kUnlink, 7},          {OpKind::kReap, 4},
    {OpKind::kRmdir, 2},       {OpKind::kRename, 6},          {OpKind::kExchange, 3},
    {OpKind::kWrite, 22},      {OpKind::kTruncate, 5},        {OpKind::kPunch, 4},
    {OpKind::kCollapse, 2},    {OpKind::kInsert, 2},          {OpKind::kCopy, 8},
    {OpKind::kClone, 4},       {OpKind::kWriteOrphan, 2},     {OpKind::kSetXattr, 4},
    {OpKind::kRemoveXattr, 2}, {OpKind::kLargeXattr, 1},      {OpKind::kChmod, 2},
    {OpKind::kOffloadRead, 5}, {OpKind::kOffloadReadSync, 3}, {OpKind::kOffloadWrite, 8},
    {OpKind::kDropToken, 3},   {OpKind::kFsync, 10},          {OpKind::kSync, 6},
    {OpKind::kCheckpoint, 3},  {OpKind::kReclaim, 4},         {OpKind::kCreateUnnamed, 3},
    {OpKind::kLinkUnnamed, 4},
};

}  // namespace

std::vector<Op> make_ops(std::uint64_t seed, std::size_t count) {
  std::mt19937_64 random(seed);
  unsigned total = 0;
  for (const Weighted& one : kWeights) {
    total += one.weight;
  }
  std::vector<Op> ops;
  while (ops.size() < count) {
    unsigned pick = static_cast<unsigned>(random() % total);
    const Weighted* at = kWeights;
    while (pick >= at->weight) {
      pick -= at++->weight;
    }
    ops.push_back({at->kind, random(), random(), random(), random()});
  }
  return ops;
}

std::vector<Op> churn_ops(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Op> ops = {{OpKind::kCreate, 0, 5, 0, 0}};
  for (int i = 0; i < 30; ++i) {
    ops.push_back({OpKind::kLargeXattr, random(), random(), random(), random()});
    ops.push_back({random() % 6 == 0 ? OpKind::kCheckpoint : OpKind::kSync, 0, 0, 0, 0});
  }
  return ops;
}

std::vector<Op> base_ops() {
  std::vector<Op> ops = {
      {OpKind::kMkdir, 0, 0, 0, 0}, {OpKind::kMkdir, 0, 1, 0, 0}, {OpKind::kCreate, 0, 2, 0, 0}};
  // The file is the only one yet: every other block, so that nothing can be merged.
  for (std::uint64_t i = 0; i < 160; ++i) {
    ops.push_back({OpKind::kWrite, 0, 1 + i * 2 * 4096 / 3, 4, i});
  }
  ops.push_back({OpKind::kClone, 0, 3, 0, 0});
  ops.push_back({OpKind::kSetXattr, 0, 0, 300, 5});
  ops.push_back({OpKind::kSync, 0, 0, 0, 0});
  return ops;
}

void use_timers(OpenOptions& options) {
  options.meta.flush_interval = std::chrono::milliseconds(1);
  options.meta.batch_bytes = 16ULL << 10;
  options.meta.memtable_bytes = 96ULL << 10;
}

OpenOptions open_options(const Clock& clock) {
  OpenOptions options;
  options.device.mode = IoMode::kBuffered;
  options.device.engine = IoEngineKind::kSync;
  options.meta.flush_interval = std::chrono::milliseconds(0);
  options.meta.map_bytes = 64ULL << 20;
  options.tokens.ttl_default_ms = 600'000;
  options.clock = &clock;
  options.background = false;
  return options;
}

Result<void> Runner::run(const Op& op) {
  const std::uint64_t number = history.size();
  if (recorder_ != nullptr) {
    recorder_->begin(number);
  }
  Result<std::string> text = carry_out(op, number);
  if (!text) {
    done.push_back("failed: " + text.error().message());
    return std::unexpected(text.error());
  }
  done.push_back(*std::move(text));
  // The flusher's thread does the same sooner or later; where the next data goes depends on it.
  store_.core().settle_space();
  history.push_back(state_.model.describe());
  return {};
}

void Runner::acknowledge(std::uint64_t number) {
  acknowledged = std::max(acknowledged, number);
  if (recorder_ != nullptr) {
    recorder_->acknowledge(number);
  }
}

std::vector<Runner::Named> Runner::named(bool dirs, bool others) const {
  std::vector<Named> out;
  for (const std::uint64_t dir : directories()) {
    for (const auto& [name, ino] : state_.model.nodes.at(dir).entries) {
      if (state_.model.nodes.at(ino).is_directory() ? dirs : others) {
        out.push_back({dir, name, ino});
      }
    }
  }
  return out;
}

std::vector<std::uint64_t> Runner::directories() const {
  std::vector<std::uint64_t> out;
  for (const auto& [ino, node] : state_.model.nodes) {
    if (node.is_directory() && node.links > 0) {
      out.push_back(ino);
    }
  }
  return out;
}

std::vector<std::uint64_t> Runner::regular() const {
  std::vector<std::uint64_t> out;
  for (const auto& [ino, node] : state_.model.nodes) {
    if (node.is_regular() && node.links > 0) {
      out.push_back(ino);
    }
  }
  return out;
}

std::vector<std::uint64_t> Runner::orphans() const {
  std::vector<std::uint64_t> out;
  for (const auto& [ino, node] : state_.model.nodes) {
    if (node.links == 0) {
      out.push_back(ino);
    }
  }
  return out;
}

bool Runner::is_below(std::uint64_t ino, std::uint64_t ancestor) const {
  if (ino == ancestor) {
    return true;
  }
  for (const auto& [name, child] : state_.model.nodes.at(ancestor).entries) {
    if (state_.model.nodes.at(child).is_directory() && is_below(ino, child)) {
      return true;
    }
  }
  return false;
}

void Runner::lose_link(std::uint64_t ino, std::uint64_t number) {
  Node& lost = node(ino);
  lost.links = lost.is_directory() ? 0 : lost.links - 1;
  lost.changed = number;
}

Result<std::string> Runner::carry_out(const Op& op, std::uint64_t number) {
  switch (op.kind) {
    case OpKind::kWrite:
    case OpKind::kTruncate:
    case OpKind::kPunch:
    case OpKind::kCollapse:
    case OpKind::kInsert:
    case OpKind::kCopy:
    case OpKind::kClone:
    case OpKind::kWriteOrphan:
      return data_op(op, number);
    case OpKind::kOffloadRead:
    case OpKind::kOffloadReadSync:
    case OpKind::kOffloadWrite:
    case OpKind::kDropToken:
      return token_op(op, number);
    case OpKind::kFsync: {
      const auto files = regular();
      if (files.empty()) {
        return "skip";
      }
      const std::uint64_t ino = files[op.a % files.size()];
      ODX_TRY(exposed([&] { return store_.files().sync(InodeNo(ino)); }));
      acknowledge(node(ino).changed);
      return fmt::format("fsync {}", ino);
    }
    case OpKind::kSync:
      ODX_TRY(exposed([&] { return store_.names().sync(); }));
      acknowledge(number);
      return "sync";
    case OpKind::kCheckpoint:
      ODX_TRY(exposed([&] { return store_.core().meta->checkpoint(); }));
      acknowledge(number);
      return "checkpoint";
    case OpKind::kReclaim:
      ODX_TRY(exposed([&] { return store_.reclaim(); }));
      if (op.a % 2 == 0) {
        while (store_.core().return_space(Core::ReturnSpace::kAll)) {
        }
      }
      if (op.b % 2 == 0) {
        ResizeReport report;
        const auto resized = store_.resize((16 + op.c % 9) << 20, report);
        if (!resized && resized.error().errno_value() != EBUSY) {
          return std::unexpected(resized.error());
        }
        return fmt::format("reclaim, size {} MiB", report.limit >> 20);
      }
      return "reclaim";
    default:
      return names_op(op, number);
  }
}

Result<std::string> Runner::names_op(const Op& op, std::uint64_t number) {
  Names& names = store_.names();
  const auto dirs = directories();
  const std::uint64_t dir = dirs[op.a % dirs.size()];
  const std::string name = fmt::format("n{}", op.b % 12);
  const bool taken = node(dir).entries.contains(name);
  switch (op.kind) {
    case OpKind::kCreate:
    case OpKind::kMkdir:
    case OpKind::kSymlink: {
      if (taken) {
        return "skip";
      }
      NewInode what;
      what.mode = op.kind == OpKind::kCreate  ? S_IFREG | 0644
                  : op.kind == OpKind::kMkdir ? S_IFDIR | 0755
                                              : S_IFLNK | 0777;
      if (op.kind == OpKind::kSymlink) {
        what.symlink_target = pattern(1 + op.c % 200, op.d);
      }
      const InodePtr made =
          ODX_TRY(exposed([&] { return names.create(InodeNo(dir), name, what); }));
      const std::uint64_t ino = made->ino.value();
      const bool is_dir = op.kind == OpKind::kMkdir;
      state_.model.nodes[ino] =
          Node{what.mode, is_dir ? 2U : 1U, what.symlink_target, {}, {}, number};
      node(dir).entries[name] = ino;
      node(dir).links += is_dir ? 1 : 0;
      return fmt::format("create {}/{} = {}, mode {:o}", dir, name, ino, what.mode);
    }
    case OpKind::kCreateUnnamed: {
      NewInode what;
      what.mode = S_IFREG | 0600;
      const InodePtr made = ODX_TRY(exposed([&] { return names.create_unnamed(what); }));
      state_.model.nodes[made->ino.value()] = Node{what.mode, 0, {}, {}, {}, number, true};
      return fmt::format("create nameless {}", made->ino.value());
    }
    case OpKind::kLinkUnnamed: {
      auto waiting = orphans();
      std::erase_if(waiting, [this](std::uint64_t ino) { return !node(ino).unnamed; });
      if (taken || waiting.empty()) {
        return "skip";
      }
      const std::uint64_t ino = waiting[op.c % waiting.size()];
      ODX_TRY(exposed([&] { return names.link(InodeNo(ino), InodeNo(dir), name); }));
      node(dir).entries[name] = ino;
      node(ino).links = 1;
      node(ino).unnamed = false;
      node(ino).changed = number;
      return fmt::format("name {} as {}/{}", ino, dir, name);
    }
    case OpKind::kLink: {
      const auto files = named(false, true);
      if (taken || files.empty()) {
        return "skip";
      }
      const std::uint64_t ino = files[op.c % files.size()].ino;
      ODX_TRY(exposed([&] { return names.link(InodeNo(ino), InodeNo(dir), name); }));
      node(dir).entries[name] = ino;
      ++node(ino).links;
      node(ino).changed = number;
      return fmt::format("link {} as {}/{}", ino, dir, name);
    }
    case OpKind::kUnlink: {
      const auto files = named(false, true);
      if (files.empty()) {
        return "skip";
      }
      const Named& which = files[op.b % files.size()];
      ODX_TRY(exposed([&] { return names.unlink(InodeNo(which.dir), which.name); }));
      node(which.dir).entries.erase(which.name);
      lose_link(which.ino, number);
      return fmt::format("unlink {}/{} = {}", which.dir, which.name, which.ino);
    }
    case OpKind::kReap: {
      const auto gone = orphans();
      if (gone.empty()) {
        return "skip";
      }
      const std::uint64_t ino = gone[op.b % gone.size()];
      ODX_TRY(exposed([&] { return names.reap(InodeNo(ino)); }));
      state_.model.nodes.erase(ino);
      return fmt::format("reap {}", ino);
    }
    case OpKind::kRmdir: {
      const auto all = named(true, false);
      if (all.empty() || !node(all[op.b % all.size()].ino).entries.empty()) {
        return "skip";
      }
      const Named& which = all[op.b % all.size()];
      ODX_TRY(exposed([&] { return names.rmdir(InodeNo(which.dir), which.name); }));
      node(which.dir).entries.erase(which.name);
      --node(which.dir).links;
      lose_link(which.ino, number);
      return fmt::format("rmdir {}/{} = {}", which.dir, which.name, which.ino);
    }
    case OpKind::kRename:
    case OpKind::kExchange: {
      const auto all = named(true, true);
      if (all.empty()) {
        return "skip";
      }
      const Named from = all[op.c % all.size()];
      const bool exchange = op.kind == OpKind::kExchange;
      const Named other = all[op.d % all.size()];
      const std::uint64_t to_dir = exchange ? other.dir : dir;
      const std::string to = exchange ? other.name : name;
      const auto there = node(to_dir).entries.find(to);
      const bool replaces = there != node(to_dir).entries.end();
      const std::uint64_t lost = replaces ? there->second : 0;
      const bool from_is_dir = node(from.ino).is_directory();
      if ((from_is_dir && is_below(to_dir, from.ino)) || lost == from.ino ||
          (exchange && node(lost).is_directory() && is_below(from.dir, lost)) ||
          (!exchange && replaces &&
           (node(lost).is_directory() != from_is_dir || !node(lost).entries.empty()))) {
        return "skip";
      }
      ODX_TRY(exposed([&] {
        return names.rename(InodeNo(from.dir), from.name, InodeNo(to_dir), to,
                            exchange ? RenameMode::kExchange : RenameMode::kReplace);
      }));
      const bool lost_is_dir = replaces && node(lost).is_directory();
      node(from.dir).entries.erase(from.name);
      node(from.dir).links -= from_is_dir ? 1 : 0;
      node(to_dir).entries[to] = from.ino;
      node(to_dir).links += from_is_dir ? 1 : 0;
      if (exchange) {
        node(from.dir).entries[from.name] = lost;
        node(from.dir).links += lost_is_dir ? 1 : 0;
        node(to_dir).links -= lost_is_dir ? 1 : 0;
      } else if (replaces) {
        node(to_dir).links -= lost_is_dir ? 1 : 0;
        lose_link(lost, number);
      }
      return fmt::format("{} {}/{} -> {}/{}", exchange ? "exchange" : "rename", from.dir, from.name,
                         to_dir, to);
    }
    case OpKind::kSetXattr:
    case OpKind::kRemoveXattr:
    case OpKind::kLargeXattr:
    case OpKind::kChmod: {
      const auto all = named(true, true);
      if (all.empty()) {
        return "skip";
      }
      const std::uint64_t ino = all[op.a % all.size()].ino;
      Node& changed = node(ino);
      const std::string key = fmt::format("user.x{}", op.b % 4);
      if (op.kind == OpKind::kChmod) {
        AttrChange change;
        change.mode = static_cast<std::uint32_t>(op.b % 0777);
        ODX_TRY(exposed([&] { return names.change(InodeNo(ino), change); }));
        changed.mode = (changed.mode & S_IFMT) | *change.mode;
      } else if (op.kind == OpKind::kRemoveXattr) {
        if (!changed.xattrs.contains(key)) {
          return "skip";
        }
        ODX_TRY(exposed([&] { return names.remove_xattr(InodeNo(ino), key); }));
        changed.xattrs.erase(key);
      } else {
        // Nearly the largest value there can be: a transaction of many journal blocks.
        const std::size_t size = op.kind == OpKind::kLargeXattr ? 60'000 : op.c % 700;
        const std::string value = pattern(size, op.d);
        ODX_TRY(exposed(
            [&] { return names.set_xattr(InodeNo(ino), key, value, Names::XattrMode::kAny); }));
        changed.xattrs[key] = value;
      }
      changed.changed = number;
      return fmt::format("attributes of {}: kind {}, {}", ino, static_cast<int>(op.kind), key);
    }
    default:
      return "skip";
  }
}

Result<std::string> Runner::data_op(const Op& op, std::uint64_t number) {
  using Mode = Files::AllocateMode;
  Files& files = store_.files();
  auto all = op.kind == OpKind::kWriteOrphan ? orphans() : regular();
  std::erase_if(all, [this](std::uint64_t ino) { return !node(ino).is_regular(); });
  if (all.empty()) {
    return "skip";
  }
  const std::uint64_t ino = all[op.a % all.size()];
  std::string& content = node(ino).content;
  const std::uint64_t size = content.size();
  const auto changed = [&](std::string text) {
    node(ino).changed = number;
    return text;
  };
  switch (op.kind) {
    case OpKind::kWrite:
    case OpKind::kWriteOrphan: {
      // Mostly odd, sometimes whole blocks, now and then large.
      std::uint64_t at = op.b % 3 == 0 ? op.b % 50 * 4096 : op.b % (size + 5000);
      std::uint64_t count = op.c % 5 == 0   ? 4096 * (1 + op.c % 4)
                            : op.c % 7 == 0 ? 1 + op.c % 100'000
                                            : 1 + op.c % 9000;
      if (op.c == 4) {  // base_ops
        at = op.b * 3 / 4096 * 4096;
        count = 4096;
      }
      at = std::min<std::uint64_t>(at, 2'000'000);
      const std::string data = pattern(count, op.d);
      // Whether the bytes lie at a page's start decides how they are written.
      AlignedBuffer buffer(count + 8);
      const std::span<std::byte> from = buffer.span().subspan(op.d % 2 * 8, count);
      std::memcpy(from.data(), data.data(), count);
      ODX_TRY(exposed([&] { return files.write(InodeNo(ino), FileOffset(at), from); }));
      put(content, at, data);
      return changed(fmt::format("write {} [{}, +{})", ino, at, count));
    }
    case OpKind::kTruncate: {
      const std::uint64_t bytes = op.b % 4 == 0 ? 0 : op.b % (size + 10'000);
      ODX_TRY(exposed([&] { return files.truncate(InodeNo(ino), bytes); }));
      content.resize(bytes);
      return changed(fmt::format("truncate {} from {} to {}", ino, size, bytes));
    }
    case OpKind::kPunch:
    case OpKind::kCollapse:
    case OpKind::kInsert: {
      if (size < 2) {
        return "skip";
      }
      const std::uint64_t at = op.b % (size - 1);
      const std::uint64_t count = 1 + op.c % std::min<std::uint64_t>(size - at - 1, 40'000);
      const auto where = content.begin() + static_cast<std::ptrdiff_t>(at);
      const Mode mode = op.kind == OpKind::kPunch      ? Mode::kPunchHole
                        : op.kind == OpKind::kCollapse ? Mode::kCollapse
                                                       : Mode::kInsert;
      if (at + count >= size) {
        return "skip";
      }
      ODX_TRY(exposed([&] {
        return files.allocate(InodeNo(ino), mode, mode == Mode::kPunchHole, FileOffset(at), count);
      }));
      if (mode == Mode::kPunchHole) {
        std::fill_n(where, count, '\0');
      } else if (mode == Mode::kCollapse) {
        content.erase(at, count);
      } else {
        content.insert(at, count, '\0');
      }
      return changed(
          fmt::format("allocate {} mode {} [{}, +{})", ino, static_cast<int>(mode), at, count));
    }
    case OpKind::kCopy:
    case OpKind::kClone: {
      const std::uint64_t to =
          op.kind == OpKind::kClone && op.b == 3 ? ino : all[op.b % all.size()];
      const bool whole = op.kind == OpKind::kClone;
      const std::uint64_t from_at = whole ? 0 : op.c % (size + 1);
      std::uint64_t to_at = whole ? 0 : op.d % (node(to).content.size() + 3000);
      if (op.kind == OpKind::kClone && op.b == 3) {
        to_at = size;  // base_ops: a file that shares with itself
      }
      const std::uint64_t wanted = whole ? size : 1 + op.d % 80'000;
      const std::string piece = content.substr(from_at, wanted);
      if (node(to).content.size() + piece.size() > 4'000'000) {
        return "skip";
      }
      const Files::Copied copied = ODX_TRY(exposed([&] {
        return files.copy_range(InodeNo(ino), FileOffset(from_at), InodeNo(to), FileOffset(to_at),
                                wanted);
      }));
      if (copied.bytes != piece.size()) {
        return fail(EIO, "copy_range copied another number of bytes");
      }
      if (!piece.empty()) {
        put(node(to).content, to_at, piece);
        node(to).changed = number;
      }
      return fmt::format("copy {} [{}, +{}) to {} at {}", ino, from_at, piece.size(), to, to_at);
    }
    default:
      return "skip";
  }
}

Result<std::string> Runner::token_op(const Op& op, std::uint64_t number) {
  const auto all = regular();
  if (op.kind == OpKind::kDropToken) {
    if (state_.model.tokens.empty()) {
      return "skip";
    }
    const std::string id = std::next(state_.model.tokens.begin(),
                                     static_cast<std::ptrdiff_t>(op.a % state_.model.tokens.size()))
                               ->first;
    ODX_TRY(exposed([&] {
      return store_.tokens().drop(proto::decode(state_.known.at(id).token).value().id, 0);
    }));
    state_.model.tokens.erase(id);
    return "drop token " + id;
  }
  if (all.empty()) {
    return "skip";
  }
  const std::uint64_t ino = all[op.b % all.size()];
  const std::uint64_t size = node(ino).content.size();
  const std::uint64_t sectors = size / kSector;
  odx_offload call{};
  if (op.kind != OpKind::kOffloadWrite) {
    if (sectors == 0) {
      return "skip";
    }
    const bool sync = op.kind == OpKind::kOffloadReadSync;
    const std::uint64_t at = op.c % sectors * kSector;
    const std::uint64_t length =
        (1 + op.d % std::min<std::uint64_t>(sectors - at / kSector, 300)) * kSector;
    call.body.read_in.size = sizeof(odx_read_input);
    call.body.read_in.file_offset = at;
    call.body.read_in.copy_length = length;
    call.c.options = sync ? ODX_TOKEN_SYNC : 0;
    if (const int error = ODX_TRY(exposed([&]() -> Result<int> {
          return store_.tokens().offload_read(InodeNo(ino), kRoot, call);
        }));
        error != 0) {
      return fail(error, "OFFLOAD_READ");
    }
    const odx_read_output& out = call.body.read_out;
    const std::string piece = node(ino).content.substr(at, out.transfer_length);
    const odx_token zero = proto::zero_token();
    if (std::memcmp(&out.token, &zero, sizeof zero) == 0) {
      return "OFFLOAD_READ: the zero token";
    }
    const TokenId raw = proto::decode(out.token).value().id;
    const std::string id = hex(raw.data(), raw.size());
    state_.known[id] = {out.token, piece};
    state_.model.tokens[id] = piece.size();
    if (sync) {
      acknowledge(number);
    }
    return fmt::format("OFFLOAD_READ {} [{}, +{}){}", ino, at, piece.size(), sync ? " sync" : "");
  }
  if (state_.model.tokens.empty() || sectors == 0) {
    return "skip";
  }
  const std::string id = std::next(state_.model.tokens.begin(),
                                   static_cast<std::ptrdiff_t>(op.a % state_.model.tokens.size()))
                             ->first;
  const KnownToken& known = state_.known.at(id);
  const std::uint64_t at = op.c % sectors * kSector;
  const std::uint64_t from = op.d % (known.content.size() / kSector) * kSector;
  const std::uint64_t room = std::min(known.content.size() - from, (sectors * kSector) - at);
  call.body.write_in.size = sizeof(odx_write_input);
  call.body.write_in.file_offset = at;
  call.body.write_in.copy_length = room;
  call.body.write_in.transfer_offset = from;
  call.body.write_in.token = known.token;
  if (const int error = ODX_TRY(exposed([&]() -> Result<int> {
        return store_.tokens().offload_write(InodeNo(ino), kRoot, call);
      }));
      error != 0) {
    return fail(error, "OFFLOAD_WRITE");
  }
  const std::uint64_t written = call.body.write_out.length_written;
  put(node(ino).content, at, std::string_view(known.content).substr(from, written));
  node(ino).changed = number;
  return fmt::format("OFFLOAD_WRITE {} [{}, +{}) from {} of token {}", ino, at, written, from, id);
}

Result<std::string> redeem(Store& store, const KnownToken& known, const std::string& name) {
  NewInode what;
  what.mode = S_IFREG | 0600;
  const InodeNo ino = ODX_TRY(store.names().create(kRootInode, name, what))->ino;
  const std::uint64_t length = known.content.size();
  ODX_TRY(store.files().truncate(ino, length));
  odx_offload call{};
  call.body.write_in.size = sizeof(odx_write_input);
  call.body.write_in.copy_length = length;
  call.body.write_in.token = known.token;
  if (const int error = store.tokens().offload_write(ino, kRoot, call); error != 0) {
    return fail(error, "OFFLOAD_WRITE");
  }
  std::string out(length + 1, '\0');
  out.resize(
      ODX_TRY(store.files().read(ino, FileOffset(0), std::as_writable_bytes(std::span(out)))));
  return out;
}

}  // namespace odx::crash
