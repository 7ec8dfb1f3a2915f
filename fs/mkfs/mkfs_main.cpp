#include "mkfs_main.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <exception>
#include <ostream>

#include "base/print.hpp"
#include "store/store.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

namespace po = boost::program_options;

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;

constexpr std::uint64_t kMinJournalBytes = 1ULL << 20;

struct Request {
  std::string store;
  FormatOptions format;
};

po::options_description described() {
  po::options_description options("Options");
  options.add_options()("size", po::value<std::string>()->value_name("BYTES"),
                        "how large the data may grow (default: nine tenths of what is free)")(
      "sector", po::value<std::string>()->value_name("BYTES"),
      "unit of offload requests, 512 to 4096 (default: 512)")(
      "label", po::value<std::string>()->value_name("TEXT"), "a name, at most 31 bytes")(
      "journal", po::value<std::string>()->value_name("BYTES"),
      "size of the journal (default: 256M)")("help,h", "print this help")("version",
                                                                          "print the version");
  return options;
}

void print_help(std::ostream& out) {
  print(out,
        "Usage: mkfs.odxfs [OPTION...] STORE\n\n"
        "Makes an empty odxfs store in the directory STORE, which must be missing or empty.\n\n");
  out << described();
  print(out,
        "\nSizes are in bytes, or with a suffix K, M, G, T in powers of 1024.\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage.\n");
}

Result<std::uint64_t> size_of(const po::variables_map& values, const char* name) {
  const auto& text = values[name].as<std::string>();
  const auto bytes = parse_size(text);
  if (!bytes) {
    return fail(EINVAL, fmt::format("--{}: '{}' is not a size", name, text));
  }
  return *bytes;
}

Result<Request> understand(const po::variables_map& values) {
  Request request;
  const auto operands = values.count("operand") != 0
                            ? values["operand"].as<std::vector<std::string>>()
                            : std::vector<std::string>{};
  if (operands.size() != 1) {
    return fail(EINVAL, operands.empty()
                            ? "which directory?"
                            : fmt::format("'{}' is one operand too many", operands[1]));
  }
  request.store = operands[0];
  if (values.count("size") != 0) {
    request.format.limit_bytes = ODX_TRY(size_of(values, "size"));
    if (request.format.limit_bytes == 0) {
      return fail(EINVAL, "--size: nothing fits into 0 bytes");
    }
  }
  if (values.count("sector") != 0) {
    const std::uint64_t bytes = ODX_TRY(size_of(values, "sector"));
    if (bytes != 512 && bytes != 1024 && bytes != 2048 && bytes != 4096) {
      return fail(EINVAL, "--sector: must be 512, 1024, 2048 or 4096");
    }
    request.format.sector_bytes = static_cast<std::uint32_t>(bytes);
  }
  if (values.count("journal") != 0) {
    const std::uint64_t bytes = ODX_TRY(size_of(values, "journal"));
    if (bytes < kMinJournalBytes || bytes % kBlockBytes != 0) {
      return fail(EINVAL, "--journal: must be at least 1M and a multiple of 4K");
    }
    request.format.journal_bytes = bytes;
  }
  if (values.count("label") != 0) {
    request.format.label = values["label"].as<std::string>();
    if (request.format.label.size() > kMaxLabelBytes) {
      return fail(EINVAL, fmt::format("--label: at most {} bytes", kMaxLabelBytes));
    }
  }
  // Whoever makes a store can use it.
  request.format.uid = ::geteuid();
  request.format.gid = ::getegid();
  return request;
}

Result<void> make(const Request& request, std::ostream& out) {
  ODX_TRY(Store::format(request.store, request.format));
  const Superblock super = ODX_TRY(read_superblock(request.store));
  print(out, "{}: odxfs store {}{}, up to {} of data, sector {}, journal {}\n", request.store,
        to_text(super.uuid), super.label.empty() ? "" : fmt::format(" \"{}\"", super.label),
        size_text(super.limit_blocks * kBlockBytes), super.sector_bytes,
        size_text(request.format.journal_bytes));
  return {};
}

int run(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  const auto misused = [&](std::string_view why) {
    print(err, "mkfs.odxfs: {} (see mkfs.odxfs --help)\n", why);
    return kUsage;
  };
  po::options_description all = described();
  all.add_options()("operand", po::value<std::vector<std::string>>());
  po::positional_options_description positions;
  positions.add("operand", -1);
  po::variables_map values;
  try {
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(args).options(all).positional(positions).style(style).run(),
              values);
    po::notify(values);
  } catch (const po::error& e) {
    return misused(e.what());
  }
  if (values.count("help") != 0) {
    print_help(out);
    return kDone;
  }
  if (values.count("version") != 0) {
    print(out, "mkfs.odxfs {}\n", ODX_VERSION);
    return kDone;
  }
  const Result<Request> request = understand(values);
  if (!request) {
    return misused(request.error().detail());
  }
  if (const auto made = make(*request, out); !made) {
    print(err, "mkfs.odxfs: {}\n", made.error().message());
    return kFailed;
  }
  return kDone;
}

}  // namespace

int mkfs_main(const std::vector<std::string>& args, std::ostream& out, std::ostream& err) {
  try {
    const int code = run(args, out, err);
    if (!out.flush() && code == kDone) {
      print(err, "mkfs.odxfs: the output could not be written\n");
      return kFailed;
    }
    return code;
  } catch (const std::exception& e) {
    print(err, "mkfs.odxfs: {}\n", e.what());
    return kFailed;
  }
}

}  // namespace odx::cli
