// The order of a check.
//
// Nothing here asks the code that keeps the counts (TreeEditor, BlockRefs, Names, SpaceMap): only
// the records' decoders are shared. Every table is read from end to end, nodes and files' trees
// into a few bytes of memory for each; then the trees are walked down from their roots, as a second
// opinion. The cost is that of reading the metadata three times whatever the sharing: a node that a
// million files share is looked at as often as any other.
//
// Whatever must mend a problem is decided where the problem is found, because the same facts decide
// both; repair.cpp makes the changes. See findings.hpp for the stages, and repair.cpp for what is
// never changed.
#include "store/check/check.hpp"

#include <algorithm>

#include "store/check/check_pass.hpp"
#include "store/check/damage_owners.hpp"
#include "store/check/findings.hpp"
#include "store/check/lost_found.hpp"
#include "store/check/long_operation_check.hpp"
#include "store/check/namespace_check.hpp"
#include "store/check/space_check.hpp"
#include "store/check/tree_check.hpp"
#include "store/meta/keys.hpp"
#include "store/token/token_record.hpp"

namespace odx {

namespace {

using check::Findings;
using check::for_each_record;
using check::Stage;
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
          findings.unreadable(record.key);
          return;
        }
        const Result<TokenRecord> token = TokenRecord::decode(*id, record.value);
        if (!token) {
          findings.problem("{}: {}", token_text(*id), token.error().detail());
          findings.unreadable(record.key);
          return;
        }
        ++findings.report.tokens;
        trees.see_tree(token->tree, token_text(*id));
        expected.push_back(token->expiry_key());
      }));
  // Nobody can use such a token, and without its record a mount could not tell what is in use. What
  // only it referred to is not freed: see lost_found.hpp.
  findings.for_each_unreadable(keys::kToken, [&](const std::string& key) {
    findings.fix(Stage::kRecords, "a token that cannot be read is removed", {{key, std::nullopt}});
  });
  std::sort(expected.begin(), expected.end());
  auto next = expected.cbegin();
  const auto missing_until = [&](const std::string* key) {
    for (; next != expected.cend() && (key == nullptr || *next < *key); ++next) {
      const Result<TokenDue> due = token_due_of_key(*next);
      const std::string token = due ? token_text(due->id) : "a token";
      if (!findings.is_unreadable(*next)) {
        findings.problem("{} has no expiry record", token);
      }
      findings.fix(Stage::kRecords, token + " has an expiry record now", {{*next, std::string()}});
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
        if (due && findings.is_unreadable(keys::token(due->id))) {
          return;  // nobody knows when it ends
        }
        const std::string what =
            due ? fmt::format("expiry record of {}, which does not end then", token_text(due->id))
                : due.error().detail();
        findings.problem("{}", what);
        findings.fix(Stage::kRecords, what + ": removed", {{record.key, std::nullopt}});
      }));
  missing_until(nullptr);
  findings.for_each_unreadable(keys::kTokenExpiry, [&](const std::string& key) {
    if (!std::binary_search(expected.begin(), expected.end(), key)) {
      findings.fix(Stage::kRecords, "an expiry record of no token is removed",
                   {{key, std::nullopt}});
    }
  });
  return {};
}

// A number that is in use must not be given out again.
Result<void> check_counter(const CheckSubject& subject, std::string_view name,
                           std::uint64_t highest, Findings& findings) {
  // Of numbers that were given out and are not in use any more, nothing is known once the counter
  // is lost: leave many out.
  constexpr std::uint64_t kMargin = 1ULL << 24;
  const auto set = [&](std::uint64_t to) {
    std::string value;
    put_le(value, to);
    findings.fix(Stage::kCounts, fmt::format("counter \"{}\" is at {} now", name, to),
                 {{keys::counter(name), std::move(value)}});
  };
  const auto record = subject.kv.get(keys::counter(name));
  if (!record) {
    if (!record.error().is_corruption()) {
      return std::unexpected(record.error());
    }
    findings.problem("counter \"{}\": {}", name, record.error().detail());
    set(highest + kMargin);
    return {};
  }
  std::uint64_t last = 0;
  if (*record) {
    Decoder in(**record);
    last = in.le<std::uint64_t>();
    if (!in.finish("counter")) {
      findings.problem("counter \"{}\" is malformed", name);
      set(highest + kMargin);
      return {};
    }
  }
  if (last < highest) {
    findings.problem("counter \"{}\" is at {}, but {} is in use", name, last, highest);
    set(*record ? highest : highest + kMargin);
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

}  // namespace

namespace check {

Result<CheckReport> check_pass(const CheckSubject& subject, const CheckOptions& options,
                               Fixes* fixes) {
  Findings findings(options, fixes);
  findings.report.blocks = subject.blocks;
  SpaceCheck space(subject, findings);
  TreeCheck trees(subject, space, findings);
  NamespaceCheck names(subject, findings);

  ODX_TRY(trees.read_nodes());
  ODX_TRY(names.read_inodes([&](const Inode& inode) {
    findings.report.data_bytes += inode.tree.data_bytes();
    trees.see_tree(inode.tree, fmt::format("inode {}", inode.ino.value()));
  }));
  ODX_TRY(names.read_names());
  ODX_TRY(names.read_xattrs());
  ODX_TRY(names.read_orphans());
  ODX_TRY(names.compare());
  ODX_TRY(check_tokens(subject, trees, findings));
  ODX_TRY(trees.read_queue());
  ODX_TRY(trees.read_children());
  ODX_TRY(trees.walk());
  ODX_TRY(trees.compare());
  ODX_TRY(space.compare_references());
  ODX_TRY(space.compare_checksums());
  ODX_TRY(space.compare_bitmaps());
  ODX_TRY(check_counter(subject, keys::kInodeCounter, names.highest().value(), findings));
  ODX_TRY(check_counter(subject, keys::kNodeCounter, trees.highest().value(), findings));
  ODX_TRY(check::check_long_operations(subject.kv, findings));
  ODX_TRY(check_tables(subject, findings));
  ODX_TRY(find_places(subject, {names.lost(), trees.lost(), names.highest()}, findings));
  if (options.data && subject.device != nullptr) {
    const std::vector<std::uint64_t> damaged = ODX_TRY(space.verify_data());
    ODX_TRY(name_damage_owners(subject, damaged, findings));
  }
  findings.report.end_of_extents = space.end_of_extents();
  return std::move(findings.report);
}

void add_problem(CheckReport& report, std::string problem) {
  ++report.problem_count;
  report.problems.insert(report.problems.begin(), std::move(problem));
}

}  // namespace check

Result<CheckReport> check_state(const CheckSubject& subject, const CheckOptions& options) {
  return check::check_pass(subject, options, nullptr);
}

}  // namespace odx
