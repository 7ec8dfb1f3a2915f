// Several callers at once.
//
// Each thread works in a directory of its own and keeps the history of it; ticks of one clock say
// when an operation began and ended. After a crash every directory must be as its thread had left
// it after some operation k(t), so that
//   - k(t) is not before the last operation that a sync, of any thread, had begun behind;
//   - whatever had ended before a visible operation began is visible, of other threads too: the
//     crash contract is about moments, not about files.
// Which of the interleavings a run takes is the scheduler's choice. The log of the run is what is
// judged, so the verdict is certain whichever it was.
#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "memory.hpp"
#include "store/check/check.hpp"
#include "sweep.hpp"

namespace odx::crash {

namespace {

constexpr unsigned kThreads = 3;
constexpr std::size_t kOps = 14;

using Files = std::map<std::string, std::string>;  // of one directory: name, content

std::string describe_files(const Files& files) {
  std::string out;
  for (const auto& [name, content] : files) {
    out += fmt::format("{} {} {:x}\n", name, content.size(),
                       XXH3_64bits(content.data(), content.size()));
  }
  return out;
}

Result<std::string> describe_directory(Store& store, InodeNo dir) {
  Files files;
  for (const DirectoryEntry& entry : ODX_TRY(store.names().list(dir, 0, 1000))) {
    const InodePtr inode = ODX_TRY(store.names().get(entry.ino));
    std::string content(inode->size(), '\0');
    ODX_TRY(
        store.files().read(entry.ino, FileOffset(0), std::as_writable_bytes(std::span(content))));
    files[entry.name] = std::move(content);
  }
  return describe_files(files);
}

struct Done {
  std::uint64_t began;
  std::uint64_t ended;
  // Of a sync: what it made durable, in operations of its own thread and in time.
  std::size_t own = 0;
  std::uint64_t before = 0;
};

// One thread's work; states[k] is its directory after k operations.
class Worker {
 public:
  Worker(Store& store, InodeNo dir, std::uint64_t seed, std::atomic<std::uint64_t>& ticks)
      : store_(store), dir_(dir), random_(seed), ticks_(ticks), states{describe_files({})} {}

  void run(Recorder& recorder, unsigned number) {
    for (std::size_t i = 1; i <= kOps && error.empty(); ++i) {
      recorder.begin(number * 1000 + i);
      Done one{++ticks_, 0};
      const Result<void> ran = operate(one);
      if (!ran) {
        error = ran.error().message();
        return;
      }
      one.ended = ++ticks_;
      done.push_back(one);
      states.push_back(describe_files(files_));
      recorder.acknowledge(number * 1000 + i);  // that it has ended
    }
  }

 private:
  Store& store_;
  InodeNo dir_;
  std::mt19937_64 random_;
  std::atomic<std::uint64_t>& ticks_;
  Files files_;
  std::map<std::string, InodeNo> inodes_;
  std::map<std::string, std::size_t> changed_;  // the last operation that did
  unsigned made_ = 0;

 public:
  std::vector<std::string> states;
  std::vector<Done> done;
  std::string error;

 private:
  std::string any() {
    return std::next(files_.begin(), static_cast<std::ptrdiff_t>(random_() % files_.size()))->first;
  }

  Result<void> operate(Done& one) {
    const std::uint64_t pick = files_.size() < 2 ? 0 : random_() % 9;
    switch (pick) {
      case 0: {
        const std::string name = fmt::format("f{}", made_++);
        NewInode what;
        what.mode = S_IFREG | 0644;
        inodes_[name] = ODX_TRY(store_.names().create(dir_, name, what))->ino;
        files_[name] = {};
        changed_[name] = states.size();
        return {};
      }
      case 1:
      case 2:
      case 3: {
        const std::string name = any();
        std::string& content = files_[name];
        const std::uint64_t at = random_() % (content.size() + 2000);
        const std::string data = pattern(1 + random_() % 9000, random_());
        ODX_TRY(
            store_.files().write(inodes_[name], FileOffset(at), std::as_bytes(std::span(data))));
        content.resize(std::max(content.size(), at + data.size()));
        content.replace(at, data.size(), data);
        changed_[name] = states.size();
        return {};
      }
      case 4: {
        const std::string name = any();
        const std::uint64_t size = files_[name].size() / 2 + random_() % 3000;
        ODX_TRY(store_.files().truncate(inodes_[name], size));
        files_[name].resize(size);
        changed_[name] = states.size();
        return {};
      }
      case 5: {
        const std::string from = any();
        const std::string to = fmt::format("r{}", made_++);
        ODX_TRY(store_.names().rename(dir_, from, dir_, to, RenameMode::kReplace));
        files_[to] = std::move(files_[from]);
        inodes_[to] = inodes_[from];
        changed_[to] = changed_[from];
        files_.erase(from);
        return {};
      }
      case 6: {
        const std::string from = any();
        const std::string to = any();
        const std::string piece = files_[from];
        const std::uint64_t at = files_[to].size();
        ODX_TRY(store_.files().copy_range(inodes_[from], FileOffset(0), inodes_[to], FileOffset(at),
                                          piece.size()));
        files_[to] += piece;
        if (!piece.empty()) {
          changed_[to] = states.size();
        }
        return {};
      }
      case 7: {  // an fsync is for the file's last change, and so for all before it
        const std::string name = any();
        one.own = changed_[name];
        one.before = done[one.own - 1].began;
        return store_.files().sync(inodes_[name]);
      }
      default:
        one.own = done.size();
        one.before = one.began;
        return store_.names().sync();
    }
  }
};

// The earliest state of every thread that fits, if there is one: `found[t]` lists the states that
// thread t's directory may be in. Raising one thread's state only ever asks more of the others.
bool consistent(const std::vector<Worker>& workers,
                const std::vector<std::vector<std::size_t>>& found) {
  std::vector<std::size_t> at(found.size(), 0);
  const auto needed = [&](const Worker& of, std::uint64_t before) {
    return static_cast<std::size_t>(std::count_if(
        of.done.begin(), of.done.end(), [&](const Done& one) { return one.ended < before; }));
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t t = 0; t < found.size(); ++t) {
      const std::size_t k = found[t][at[t]];
      for (std::size_t u = 0; k > 0 && u < found.size(); ++u) {
        while (u != t && k <= workers[t].done.size() &&
               found[u][at[u]] < needed(workers[u], workers[t].done[k - 1].began)) {
          if (++at[u] == found[u].size()) {
            return false;
          }
          moved = true;
        }
      }
    }
  }
  return true;
}

}  // namespace

std::optional<Violation> Sweep::concurrent(std::uint64_t seed) {
  ++runs_;
  std::vector<Op> setup;
  for (std::uint64_t i = 0; i < kThreads; ++i) {
    setup.push_back({OpKind::kMkdir, 0, i, 0, 0});
  }
  const Base base = make_base_of("one directory for each thread", setup);
  std::filesystem::remove_all(root_ + "/live");
  Folder folder(root_ + "/live");
  folder.hold(base.medium);
  Recorder recorder(folder, base.medium);
  std::vector<Worker> workers;
  std::atomic<std::uint64_t> ticks{0};
  std::vector<InodeNo> dirs;
  {
    const Listening listening(recorder);
    OpenOptions options = open_options(clock_);
    if (seed % 2 == 0) {
      use_timers(options);
    }
    auto store = Store::open(folder.path(), std::move(options));
    if (!store) {
      return Violation{"opening: " + store.error().message(), "no crash", {}};
    }
    workers.reserve(kThreads);
    for (unsigned i = 0; i < kThreads; ++i) {
      dirs.push_back((*store)->names().lookup(kRootInode, fmt::format("n{}", i)).value()->ino);
      workers.emplace_back(**store, dirs[i], seed * 31 + i, ticks);
    }
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] { workers[i].run(recorder, i); });
    }
    threads.clear();  // joins
    for (unsigned i = 0; i < kThreads; ++i) {
      if (!workers[i].error.empty()) {
        return Violation{workers[i].error, fmt::format("no crash: thread {}", i), {}};
      }
      if (describe_directory(**store, dirs[i]).value_or("unreadable") != workers[i].states.back()) {
        return Violation{"the live store is not the model", fmt::format("thread {}", i), {}};
      }
    }
    store->reset();
  }

  PowerCut disk(base.medium, lie_);
  std::vector<std::size_t> first(kThreads, 0);
  std::vector<std::size_t> last(kThreads, 0);
  std::mt19937_64 random(seed);
  const std::size_t count = recorder.entries.size();
  for (std::size_t i = 0; i <= count; ++i) {
    const Entry* next = i < count ? &recorder.entries[i] : nullptr;
    const bool at_sync = next == nullptr || next->kind == Entry::Kind::kSync || next->synced;
    if (at_sync || random() % 12 == 0) {
      const auto keep = static_cast<PowerCut::Keep>(random() % 3);
      ++points_;
      image_->hold(disk.crash(keep, random(), nullptr));
      const Listening listening(*image_);
      std::string wrong;
      auto store = Store::open(image_->path(), open_options(clock_));
      if (!store) {
        wrong = "opening: " + store.error().message();
      }
      std::vector<std::vector<std::size_t>> found(kThreads);
      for (unsigned t = 0; t < kThreads && wrong.empty(); ++t) {
        const auto now = describe_directory(**store, dirs[t]);
        for (std::size_t k = first[t]; now && k <= last[t]; ++k) {
          // The state after an operation that was under way when the power went is known, too.
          if (workers[t].states[k] == *now) {
            found[t].push_back(k);
          }
        }
        if (found[t].empty()) {
          wrong = fmt::format("directory {} is none of the states {} to {}: {}", t, first[t],
                              last[t], now ? *now : now.error().message());
        }
      }
      if (wrong.empty() && !consistent(workers, found)) {
        wrong = "an operation is visible, and one that had ended before it began is not";
      }
      if (wrong.empty()) {
        Core& core = (*store)->core();
        CheckOptions check;
        check.data = true;
        const auto report = check_state(
            {*core.meta, core.super.uuid, core.device->blocks(), core.device.get()}, check);
        wrong = !report           ? "check: " + report.error().message()
                : report->clean() ? std::string()
                                  : "check: " + report->problems.front();
      }
      if (!wrong.empty()) {
        return Violation{wrong, fmt::format("at entry {} of {}", i, count), {}};
      }
    }
    if (next == nullptr) {
      break;
    }
    if (next->kind == Entry::Kind::kBegin) {
      last[next->at / 1000] = next->at % 1000;
    } else if (next->kind == Entry::Kind::kAcknowledge) {
      const std::size_t t = next->at / 1000;
      const Done& one = workers[t].done[next->at % 1000 - 1];
      first[t] = std::max(first[t], one.own);
      for (unsigned u = 0; u < kThreads; ++u) {
        const auto& done = workers[u].done;
        const auto ended = std::count_if(
            done.begin(), done.end(), [&](const Done& other) { return other.ended < one.before; });
        first[u] = std::max(first[u], static_cast<std::size_t>(ended));
      }
    } else {
      disk.pass(*next);
    }
  }
  return std::nullopt;
}

}  // namespace odx::crash
