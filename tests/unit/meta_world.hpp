// What the tests of the metadata store share: a store folder, its two callbacks, and comparisons.
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "must.hpp"
#include "store/meta/meta_store.hpp"
#include "temp_dir.hpp"

namespace odx::test {

using State = std::map<std::string, std::string>;

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << bytes;
}

inline void patch_file(const std::string& path, std::uint64_t at, std::string_view bytes) {
  std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
  out.seekp(static_cast<std::streamoff>(at));
  out << bytes;
}

// Everything in the folder, by name.
inline State folder(const std::string& path) {
  State files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
    files[entry.path().string()] = entry.is_regular_file() ? read_file(entry.path()) : "";
  }
  return files;
}

// The whole store, read in pieces.
inline State state_of(const KvReader& store, std::size_t piece = 100) {
  State out;
  std::string from;
  for (;;) {
    const auto pairs = must(store.scan(from, "\xff\xff\xff", piece));
    for (const KeyValue& pair : pairs) {
      out[pair.key] = pair.value;
    }
    if (pairs.size() < piece) {
      return out;
    }
    from = pairs.back().key + '\0';
  }
}

class MetaWorld {
 public:
  static constexpr std::uint64_t kRing = 1ULL << 20;

  explicit MetaWorld(std::uint64_t ring_bytes = kRing) {
    options.flush_interval = std::chrono::milliseconds(0);
    options.map_bytes = 1ULL << 20;
    must(MetaStore::format(path(), ring_bytes));
  }

  MetaStore& open() {
    store.reset();
    durable_ = 0;
    store = must(MetaStore::open(
        path(), Uuid{1, 2, 3}, options, [this] { return sync ? sync() : Result<void>(); },
        [this](TxnSeq seq) {
          {
            const std::lock_guard lock(mutex_);
            durable_ = seq.value();
          }
          moved_.notify_all();
          if (announced) {
            announced(seq);
          }
        }));
    return *store;
  }
  // As a crash of the process would.
  MetaStore& reopen() { return open(); }

  // The newest announced transaction; exact once the store object is gone.
  std::uint64_t announced_durable() {
    const std::lock_guard lock(mutex_);
    return durable_;
  }
  void wait_announced(TxnSeq seq) {
    std::unique_lock lock(mutex_);
    moved_.wait(lock, [&] { return durable_ >= seq.value(); });
  }

  [[nodiscard]] std::string path() const { return dir_.path(); }
  [[nodiscard]] std::string journal() const { return dir_.file("journal"); }
  [[nodiscard]] std::string data() const { return dir_.file("meta/data.mdb"); }

  MetaOptions options;
  std::function<Result<void>()> sync;     // set before open()
  std::function<void(TxnSeq)> announced;  // set before open()

 private:
  TempDir dir_;
  std::mutex mutex_;
  std::condition_variable moved_;
  std::uint64_t durable_ = 0;

 public:
  std::unique_ptr<MetaStore> store;  // goes first: its threads use all of the above
};

}  // namespace odx::test
