// Damaged stores: makes each, and compares what mounting, `odx check` and `odx check --repair` say
// about it with the table in cases.cpp.
//
//   damaged_stores                every image, every verdict
//   damaged_stores NAME...        only these
//   damaged_stores --write DIR    leaves the images below DIR, for people and other programs
//
// For each image, besides the verdicts: nothing crashes; a check changes no byte; a repair that was
// killed at some moment can be made again; a second repair finds nothing more to do; and a store
// that is called repaired is clean, mounts for writing, and is clean again afterwards.
#include <fcntl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "base/fd.hpp"
#include "base_stores.hpp"
#include "image.hpp"
#include "must_or_die.hpp"
#include "odx_main.hpp"
#include "store/check/repair.hpp"

namespace odx::images {

namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/odx-images-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) {
      die("no temporary folder");
    }
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::string at(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Copies data only: segments are mostly holes.
void copy_data(const std::string& from, const std::string& to) {
  const Fd in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  const Fd out(::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const off_t size = ::lseek(in.get(), 0, SEEK_END);
  if (!in.valid() || !out.valid() || ::ftruncate(out.get(), size) != 0) {
    die("cannot copy " + from);
  }
  std::vector<char> room(1 << 20);
  for (off_t at = 0; (at = ::lseek(in.get(), at, SEEK_DATA)) >= 0 && at < size;) {
    const off_t end = ::lseek(in.get(), at, SEEK_HOLE);
    while (at < end) {
      const auto wanted = std::min<std::size_t>(room.size(), static_cast<std::size_t>(end - at));
      const ssize_t got = ::pread(in.get(), room.data(), wanted, at);
      if (got <= 0 || ::pwrite(out.get(), room.data(), static_cast<std::size_t>(got), at) != got) {
        die("cannot copy " + from);
      }
      at += got;
    }
  }
}

void copy_store(const std::string& from, const std::string& to) {
  fs::remove_all(to);
  fs::create_directory(to);
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    const std::string target = to + entry.path().string().substr(from.size());
    if (entry.is_directory()) {
      fs::create_directory(target);
    } else {
      copy_data(entry.path(), target);
    }
  }
}

// The names, sizes and bytes of everything in a store, but for holes.
std::string everything_in(const std::string& dir) {
  std::string out;
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (!entry.is_directory()) {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    out += path + std::to_string(fs::file_size(path));
    const Fd in(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::vector<char> room(1 << 16);
    for (off_t at = 0; (at = ::lseek(in.get(), at, SEEK_DATA)) >= 0;) {
      const ssize_t got = ::pread(in.get(), room.data(), room.size(), at);
      if (got <= 0) {
        break;
      }
      out += std::to_string(
          std::hash<std::string_view>()({room.data(), static_cast<std::size_t>(got)}));
      at += got;
    }
  }
  return out;
}

struct Said {
  int code = 0;
  std::string text;
};

Said odx_check(const std::string& dir, const std::vector<std::string>& options) {
  std::vector<std::string> args{"check"};
  args.insert(args.end(), options.begin(), options.end());
  args.push_back(dir);
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  Said said;
  said.code = cli::odx_main(args, in, out, err);
  said.text = out.str() + err.str();
  return said;
}

class Judge {
 public:
  explicit Judge(const Folder& folder) : folder_(folder) {
    make_base(Base::kClosed, folder.at("closed"));
    make_base(Base::kCrashed, folder.at("crashed"));
  }

  void make(const Case& wanted, const std::string& dir) const {
    copy_store(folder_.at(wanted.base == Base::kClosed ? "closed" : "crashed"), dir);
    Image image(dir);
    wanted.damage(image);
  }

  // False if any verdict differs.
  bool judge(const Case& wanted) {
    case_ = &wanted;
    good_ = true;
    std::printf("%s\n", wanted.name);
    std::fflush(stdout);
    const std::string image = folder_.at("image");
    const std::string copy = folder_.at("copy");
    make(wanted, image);

    const bool data = std::strncmp(wanted.name, "data", 4) == 0;
    std::vector<std::string> options;
    if (data) {
      options.emplace_back("--data");
    }
    const std::string before = everything_in(image);
    const Said checked = odx_check(image, options);
    expect(checked.code == wanted.check, "check ended with " + std::to_string(checked.code),
           checked.text);
    expect(contains(checked.text, wanted.problem),
           std::string("check does not say \"") + wanted.problem + "\"", checked.text);
    expect(everything_in(image) == before, "the check changed something", "");
    const Said as_json = odx_check(image, {"--json"});
    expect(wanted.check == 8 || contains(as_json.text, "\"problem_count\""), "no JSON",
           as_json.text);

    copy_store(image, copy);
    const std::string used = use(copy);
    const bool refused = std::strlen(wanted.mount) > 2;
    expect(refused ? contains(used, wanted.mount) : used == wanted.mount, "mounting says: " + used,
           "");

    options.emplace_back("--repair");
    if (wanted.drop_tail) {
      options.emplace_back("--drop-journal-tail");
    }
    repair_with_kills(image, copy, wanted);
    copy_store(image, copy);
    const Said repaired = odx_check(copy, options);
    expect(repaired.code == wanted.repair, "repair ended with " + std::to_string(repaired.code),
           repaired.text);
    const bool did = contains(repaired.text, "repaired: ");
    expect(*wanted.repaired != 0 ? did && contains(repaired.text, wanted.repaired) : !did,
           std::string("repair does not say \"") + wanted.repaired + "\"", repaired.text);
    if (wanted.repair == 8) {
      return good_;
    }
    const Said again = odx_check(copy, options);
    expect(!contains(again.text, "repaired: "), "a second repair still finds something to do",
           again.text);
    const Said left = odx_check(copy, {});
    if (wanted.repair <= 1) {
      require_good(copy, left, "after the repair");
    }
    return good_;
  }

 private:
  static bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  void expect(bool condition, const std::string& what, const std::string& text) {
    if (!condition) {
      std::printf("  FAILED %s: %s\n%s", case_->name, what.c_str(), text.c_str());
      good_ = false;
    }
  }
  // Called repaired: clean, of use, and clean afterwards.
  void require_good(const std::string& dir, const Said& check, const std::string& when) {
    expect(check.code == 0, "not clean " + when, check.text);
    const std::string used = use(dir);
    expect(used == "rw", "mounting " + when + " says: " + used, "");
    const Said after = odx_check(dir, {});
    expect(after.code == 0, "not clean after it was mounted " + when, after.text);
  }

  // Repairs that end in the middle, by a signal that ends the process at some moment; the one after
  // them must bring what an undisturbed one would have.
  void repair_with_kills(const std::string& image, const std::string& copy, const Case& wanted) {
    if (wanted.repair != 1) {
      return;
    }
    copy_store(image, copy);
    const int kills = std::getenv("ODX_QUICK") != nullptr ? 2 : 6;
    for (int i = 0; i < kills; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        itimerval timer{};
        timer.it_value.tv_usec = 300 + i * 1700;
        ::setitimer(ITIMER_REAL, &timer, nullptr);
        (void)repair_store(copy, {{}, wanted.drop_tail});
        ::_exit(0);
      }
      int status = 0;
      if (child < 0 || ::waitpid(child, &status, 0) != child) {
        die("fork");
      }
      kills_ += WIFSIGNALED(status) ? 1 : 0;
      expect(!WIFSIGNALED(status) || WTERMSIG(status) == SIGALRM, "a repair crashed", "");
    }
    std::vector<std::string> options{"--repair"};
    if (wanted.drop_tail) {
      options.emplace_back("--drop-journal-tail");
    }
    const Said last = odx_check(copy, options);
    expect(last.code <= 1,
           "after repairs that were killed, one ended with " + std::to_string(last.code),
           last.text);
    require_good(copy, odx_check(copy, {}), "after repairs that were killed");
  }

 public:
  [[nodiscard]] int kills() const { return kills_; }

 private:
  const Folder& folder_;
  const Case* case_ = nullptr;
  bool good_ = true;
  int kills_ = 0;
};

int run(const std::vector<std::string>& args) {
  const Folder folder;
  Judge judge(folder);
  if (args.size() == 2 && args[0] == "--write") {
    for (const Case& each : cases()) {
      judge.make(each, args[1] + "/" + each.name);
    }
    return 0;
  }
  int judged = 0;
  int failed = 0;
  for (const Case& each : cases()) {
    if (args.empty() || std::find(args.begin(), args.end(), each.name) != args.end()) {
      ++judged;
      failed += judge.judge(each) ? 0 : 1;
    }
  }
  std::printf("%d images, %d not as expected; %d repairs were killed on the way\n", judged, failed,
              judge.kills());
  return judged == 0 || failed != 0 ? 1 : 0;
}

}  // namespace

}  // namespace odx::images

int main(int argc, char** argv) {
  return odx::images::run(std::vector<std::string>(argv + 1, argv + argc));
}
