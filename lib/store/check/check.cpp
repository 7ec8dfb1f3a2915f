// The order of a check, and opening what it looks at.
//
// Nothing here asks the code that keeps the counts (TreeEditor, BlockRefs, Names, SpaceMap): only
// the records' decoders are shared. Every table is read from end to end, nodes and files' trees
// into a few bytes of memory for each, so the cost is that of scanning the metadata twice whatever
// the sharing: a node that a million files share is looked at once.
//
// A damaged store must be checkable, so this opens the parts itself: what Store::open() refuses is
// what there is to report.
#include "store/check/check.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>

#include "base/fd.hpp"
#include "store/check/damage_owners.hpp"
#include "store/check/findings.hpp"
#include "store/check/long_operation_check.hpp"
#include "store/check/namespace_check.hpp"
#include "store/check/space_check.hpp"
#include "store/check/tree_check.hpp"
#include "store/device/segment_device.hpp"
#include "store/meta/keys.hpp"
#include "store/meta/meta_store.hpp"
#include "store/superblock.hpp"
#include "store/token/token_record.hpp"

namespace odx {

namespace {

using check::Findings;
using check::for_each_record;
using check::token_text;

// Every token has one expiry record, and there are no others.
Result<void> check_tokens(const CheckSubject& subject, check::TreeCheck& trees,
                          Findings& findings) {
  std::vector<std::string> expected;
  ODX_TRY(
      for_each_record(subject.kv, keys::kToken, "tokens", findings, [&](const KeyValue& record) {
        const Result<TokenId> id = token_id_of_key(record.key);
        if (!id) {
          findings.problem("{}", id.error().detail());
          return;
        }
        const Result<TokenRecord> token = TokenRecord::decode(*id, record.value);
        if (!token) {
          findings.problem("{}: {}", token_text(*id), token.error().detail());
          return;
        }
        ++findings.report.tokens;
        trees.see_tree(token->tree, token_text(*id));
        expected.push_back(token->expiry_key());
      }));
  std::sort(expected.begin(), expected.end());
  auto next = expected.cbegin();
  const auto missing_until = [&](const std::string* key) {
    for (; next != expected.cend() && (key == nullptr || *next < *key); ++next) {
      const Result<TokenDue> due = token_due_of_key(*next);
      findings.problem("{} has no expiry record", due ? token_text(due->id) : "a token");
    }
  };
  ODX_TRY(for_each_record(
      subject.kv, keys::kTokenExpiry, "token expiry", findings, [&](const KeyValue& record) {
        missing_until(&record.key);
        if (next != expected.cend() && *next == record.key) {
          ++next;
          return;
        }
        const Result<TokenDue> due = token_due_of_key(record.key);
        if (due) {
          findings.problem("expiry record of {}, which does not end then", token_text(due->id));
        } else {
          findings.problem("{}", due.error().detail());
        }
      }));
  missing_until(nullptr);
  return {};
}

// A number that is in use must not be given out again.
Result<void> check_counter(const CheckSubject& subject, std::string_view name,
                           std::uint64_t highest, Findings& findings) {
  const auto record = subject.kv.get(keys::counter(name));
  if (!record) {
    if (!record.error().is_corruption()) {
      return std::unexpected(record.error());
    }
    findings.problem("counter \"{}\": {}", name, record.error().detail());
    return {};
  }
  std::uint64_t last = 0;
  if (*record) {
    Decoder in(**record);
    last = in.le<std::uint64_t>();
    if (!in.finish("counter")) {
      findings.problem("counter \"{}\" is malformed", name);
      return {};
    }
  }
  if (last < highest) {
    findings.problem("counter \"{}\" is at {}, but {} is in use", name, last, highest);
  }
  return {};
}

// Records of tables that this format does not have.
Result<void> check_tables(const CheckSubject& subject, Findings& findings) {
  std::string known{keys::kBitmap,      keys::kChecksums,     keys::kDirent, keys::kReclaim,
                    keys::kInode,       keys::kLongOperation, keys::kNode,   keys::kNodeRefs,
                    keys::kBlockRefs,   keys::kCounter,       keys::kToken,  keys::kXattr,
                    keys::kTokenExpiry, keys::kOrphan};
  std::sort(known.begin(), known.end());
  std::string from(1, '\x01');
  const auto look = [&](const std::string& end) {
    return for_each_record(subject.kv, from, end, findings, [&](const KeyValue& record) {
      findings.problem("record of an unknown table {:#04x}",
                       static_cast<unsigned char>(record.key[0]));
    });
  };
  for (const char table : known) {
    ODX_TRY(look(keys::table_begin(table)));
    from = keys::table_end(table);
  }
  return look(std::string(500, '\xff'));
}

// Fails if a daemon has the store. The lock is as good as it gets for a reader: a store that was
// never opened has no lock file yet.
Result<Fd> lock_shared(const std::string& dir) {
  Fd lock(::open((dir + "/LOCK").c_str(), O_RDONLY | O_CLOEXEC));
  if (!lock.valid()) {
    return errno == ENOENT ? Result<Fd>(std::move(lock)) : fail(errno, dir + "/LOCK");
  }
  if (::flock(lock.get(), LOCK_SH | LOCK_NB) != 0) {
    return fail(errno == EWOULDBLOCK ? EBUSY : errno, dir + " is in use");
  }
  return lock;
}

}  // namespace

Result<CheckReport> check_state(const CheckSubject& subject, const CheckOptions& options) {
  Findings findings(options);
  findings.report.blocks = subject.blocks;
  check::SpaceCheck space(subject, findings);
  check::TreeCheck trees(subject, space, findings);
  check::NamespaceCheck names(subject, findings);

  ODX_TRY(trees.read_nodes());
  ODX_TRY(names.read_inodes([&](const Inode& inode) {
    findings.report.data_bytes += inode.tree.data_bytes();
    trees.see_tree(inode.tree, fmt::format("inode {}", inode.ino.value()));
  }));
  ODX_TRY(names.read_names());
  ODX_TRY(names.read_xattrs());
  ODX_TRY(names.read_orphans());
  names.compare();
  ODX_TRY(check_tokens(subject, trees, findings));
  ODX_TRY(trees.read_queue());
  ODX_TRY(trees.read_children());
  ODX_TRY(trees.compare());
  ODX_TRY(space.compare_references());
  ODX_TRY(space.compare_checksums());
  ODX_TRY(space.compare_bitmaps());
  ODX_TRY(check_counter(subject, keys::kInodeCounter, names.highest().value(), findings));
  ODX_TRY(check_counter(subject, keys::kNodeCounter, trees.highest().value(), findings));
  ODX_TRY(check::check_long_operations(subject.kv, findings));
  ODX_TRY(check_tables(subject, findings));
  if (options.data) {
    const std::vector<std::uint64_t> damaged = ODX_TRY(space.verify_data());
    ODX_TRY(check::name_damage_owners(subject, damaged, findings));
  }
  return std::move(findings.report);
}

Result<CheckReport> check_store(const std::string& dir, const CheckOptions& options) {
  const Superblock super = ODX_TRY(read_superblock(dir));
  const Fd lock = ODX_TRY(lock_shared(dir));
  SegmentDeviceOptions device_options;
  device_options.read_only = true;
  const auto device = ODX_TRY(open_segment_device(dir + "/data", device_options));
  MetaOptions meta_options;
  meta_options.read_only = true;
  const auto meta = ODX_TRY(MetaStore::open(
      dir, super.uuid, meta_options, [] { return Result<void>{}; }, [](TxnSeq) {}));
  CheckReport report =
      ODX_TRY(check_state({*meta, super.uuid, device->blocks(), device.get()}, options));
  if (meta->stats().replay_end == JournalEnd::kDamaged) {
    ++report.problem_count;
    report.problems.insert(report.problems.begin(),
                           "the journal is damaged: changes that were acknowledged are lost");
  }
  return report;
}

}  // namespace odx
