// odx resize: how far a store may grow, mounted or not.
//
// A directory with a superblock in it is a store that is not mounted, or not here; anything else is
// asked by the control, which the daemon answers.
#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <ostream>

#include "base/print.hpp"
#include "command.hpp"
#include "store/host_space.hpp"
#include "store/store.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

// What was asked: `sign` 0 for a size, else for a change by that much.
struct Wanted {
  int sign = 0;
  std::uint64_t bytes = 0;
};

std::optional<Wanted> parse_wanted(std::string_view text) {
  Wanted wanted;
  if (text.starts_with('+') || text.starts_with('-')) {
    wanted.sign = text[0] == '+' ? 1 : -1;
    text.remove_prefix(1);
  }
  const auto bytes = parse_size(text);
  if (!bytes || (wanted.sign == 0 && *bytes == 0)) {
    return std::nullopt;
  }
  wanted.bytes = *bytes;
  return wanted;
}

std::optional<std::uint64_t> size_wanted(const Wanted& wanted, std::uint64_t limit) {
  if (wanted.sign == 0) {
    return wanted.bytes;
  }
  if (wanted.sign > 0) {
    return wanted.bytes > UINT64_MAX - limit ? std::nullopt : std::optional(limit + wanted.bytes);
  }
  return wanted.bytes >= limit ? std::nullopt : std::optional(limit - wanted.bytes);
}

// One store, however it is reached. Both calls fill in the report whatever happens.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual Result<void> ask(ResizeReport& report) = 0;
  virtual Result<void> set(std::uint64_t bytes, ResizeReport& report) = 0;
  virtual Result<void> finish() { return {}; }
};

class Mounted final : public Subject {
 public:
  explicit Mounted(Fd file) : file_(std::move(file)) {}
  Result<void> ask(ResizeReport& report) override { return call(0, report); }
  Result<void> set(std::uint64_t bytes, ResizeReport& report) override {
    return call(bytes, report);
  }

 private:
  Result<void> call(std::uint64_t bytes, ResizeReport& report) {
    odx_resize resize{};
    resize.limit = bytes;
    const int error = odx_resize_store(file_.get(), &resize);
    if (error == 0 || resize.limit_before != 0) {
      report = {resize.limit_before, resize.limit, resize.exists_before, resize.exists,
                resize.least};
    }
    return error == 0 ? Result<void>() : fail(-error, error == -ENOTTY ? why_failed(ENOTTY) : "");
  }
  Fd file_;
};

class Offline final : public Subject {
 public:
  explicit Offline(std::unique_ptr<Store> store) : store_(std::move(store)) {}
  Result<void> ask(ResizeReport& report) override {
    report = size_of(store_->core());
    return {};
  }
  Result<void> set(std::uint64_t bytes, ResizeReport& report) override {
    return store_->resize(bytes, report);
  }
  Result<void> finish() override { return store_->close(); }

 private:
  std::unique_ptr<Store> store_;
};

Result<std::unique_ptr<Subject>> reach(const std::string& path) {
  if (::access((path + "/SUPER.0").c_str(), F_OK) == 0 ||
      ::access((path + "/SUPER.1").c_str(), F_OK) == 0) {
    OpenOptions options;
    options.background = false;
    return std::make_unique<Offline>(ODX_TRY(Store::open(path, std::move(options))));
  }
  return std::make_unique<Mounted>(ODX_TRY(open_file(path, O_RDONLY | O_NONBLOCK)));
}

std::string why(const Error& error, const ResizeReport& report) {
  switch (error.errno_value()) {
    case EBUSY:
      return report.least == 0 ? plain_text(error)
                               : fmt::format(
                                     "blocks behind that size are in use; the least size "
                                     "now is {} ({} bytes)",
                                     size_text(report.least), report.least);
    case EINVAL:
      return fmt::format("not a size that a store can have; it has at least {}",
                         size_text(kMinStoreBytes));
    case EPERM:
      return "only root and the owner of the mount may do that";
    default:
      return plain_text(error);
  }
}

void print_text(std::ostream& out, const std::string& path, const ResizeReport& report) {
  print(out, "{}: may hold {} of data", path, size_text(report.limit));
  if (report.limit != report.limit_before) {
    print(out, " ({} before)", size_text(report.limit_before));
  }
  print(out, "; {} exist", size_text(report.exists));
  if (report.exists < report.exists_before) {
    print(out, ", {} were cut off", size_text(report.exists_before - report.exists));
  }
  print(out, "\n");
}

void print_json(std::ostream& out, const std::string& path, const ResizeReport& report,
                const Error* error) {
  nlohmann::ordered_json json;
  json["path"] = path;
  json["errno"] = error != nullptr ? error->errno_value() : 0;
  json["limit_bytes"] = report.limit;
  json["limit_bytes_before"] = report.limit_before;
  json["existing_bytes"] = report.exists;
  json["existing_bytes_before"] = report.exists_before;
  json["least_bytes"] = report.least;
  out << json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

}  // namespace

int run_resize(const Arguments& args, Streams& io) {
  CommandLine line(
      "resize [--json] MOUNTPOINT|STORE [SIZE]",
      "Changes how much data a store may hold, while it is mounted (give a mount "
      "point)\nor not (give the store's directory). SIZE is in bytes, or with a suffix "
      "K, M, G, T\nin powers of 1024; +SIZE and -SIZE change what there is. Free space "
      "behind a\nsmaller size is cut off. Without SIZE, tells how things are.");
  line.add()("json", "print one JSON object, all sizes in bytes");
  line.operands(1, 2);
  // -1G is a size, not an option.
  Arguments arguments = args;
  std::optional<std::string> negative;
  if (!arguments.empty() && parse_wanted(arguments.back()) && arguments.back()[0] == '-') {
    negative = arguments.back();
    arguments.pop_back();
  }
  if (const auto code = line.parse(arguments, io)) {
    return *code;
  }
  std::vector<std::string> operands = line.operands();
  if (negative) {
    operands.push_back(*negative);
  }
  const std::string& path = operands[0];
  std::optional<Wanted> wanted;
  if (operands.size() > 1) {
    wanted = parse_wanted(operands[1]);
    if (!wanted || operands.size() > 2) {
      print(io.err, "odx: '{}' is not a size (see odx resize --help)\n", operands[1]);
      return kUsage;
    }
  }

  ResizeReport report;
  const auto work = [&]() -> Result<void> {
    const auto subject = ODX_TRY(reach(path));
    ODX_TRY(subject->ask(report));
    Result<void> done;
    if (wanted) {
      const auto bytes = size_wanted(*wanted, report.limit);
      done = bytes ? subject->set(*bytes, report) : fail(EINVAL);
    }
    const Result<void> finished = subject->finish();
    return done ? finished : done;
  };
  const Result<void> done = work();
  if (line.given("json")) {
    print_json(io.out, path, report, done ? nullptr : &done.error());
  } else if (done) {
    print_text(io.out, path, report);
  }
  if (!done) {
    complain(io, path, why(done.error(), report));
    return kFailed;
  }
  return kDone;
}

}  // namespace odx::cli
