// Runs a fuzz target without a fuzzer: over its corpus, and over seeded random changes of it.
//
//   fuzz_TARGET_corpus FOLDER [--changed N] [--seed N] [--seconds N]
//   fuzz_TARGET_corpus FILE...
//
// The input at hand lies in a file of its own while it runs; what ends the process leaves it there
// to run again.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "folder.hpp"
#include "input.hpp"

namespace {

using namespace odx::fuzz;

constexpr std::size_t kMostBytes = 1 << 16;

// The input at hand, where a dying process leaves it. Memory of the file's, so that noting it costs
// no system call.
class Notebook {
 public:
  Notebook() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/odx-fuzz-input-XXXXXX";
    file_.reset(::mkstemp(path_.data()));
    FUZZ_EXPECT(file_.valid() && ::ftruncate(file_.get(), kMostBytes) == 0);
    void* const map =
        ::mmap(nullptr, kMostBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
    FUZZ_EXPECT(map != MAP_FAILED);
    bytes_ = static_cast<char*>(map);
  }
  Notebook(const Notebook&) = delete;
  Notebook& operator=(const Notebook&) = delete;
  ~Notebook() {
    ::munmap(bytes_, kMostBytes);
    ::unlink(path_.c_str());
  }

  [[nodiscard]] const std::string& path() const { return path_; }

  void run(const std::string& input) {
    const std::size_t size = std::min(input.size(), kMostBytes);
    // Bytes behind the input are zeros, as which an input that has run out reads anyway.
    std::memcpy(bytes_, input.data(), size);
    std::memset(bytes_ + size, 0, used_ > size ? used_ - size : 0);
    used_ = size;
    // A block of exactly that size, so that a sanitizer sees what reads behind it.
    const std::vector<std::uint8_t> exact(input.begin(), input.begin() + static_cast<long>(size));
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
  }

 private:
  std::string path_;
  odx::Fd file_;
  char* bytes_ = nullptr;
  std::size_t used_ = 0;
};

std::string changed(std::mt19937_64& random, const std::vector<std::string>& corpus) {
  const auto below = [&](std::size_t end) { return static_cast<std::size_t>(random() % end); };
  std::string out = corpus[below(corpus.size())];
  for (std::size_t left = 1 + below(6); left > 0; --left) {
    const std::size_t at = below(out.size() + 1);
    switch (below(5)) {
      case 0:
        out.insert(at, 1, static_cast<char>(random()));
        break;
      case 1:
        out.erase(at, 1 + below(8));
        break;
      case 2: {  // goes on as another one does
        const std::string& other = corpus[below(corpus.size())];
        out.resize(at);
        out += other.substr(below(other.size() + 1));
        break;
      }
      default:
        if (at < out.size()) {
          out[at] = below(2) == 0 ? static_cast<char>(random())
                                  : static_cast<char>(out[at] ^ (1 << below(8)));
        }
        break;
    }
  }
  out.resize(std::min(out.size(), kMostBytes));
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> files;
  std::size_t changes = 0;
  std::uint64_t seed = std::random_device{}();
  std::chrono::seconds limit = std::chrono::hours(1);
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&] {
      FUZZ_EXPECT(i + 1 < argc);
      return std::stoull(argv[++i]);
    };
    if (argument == "--changed") {
      changes = value();
    } else if (argument == "--seed") {
      seed = value();
    } else if (argument == "--seconds") {
      limit = std::chrono::seconds(value());
    } else if (std::filesystem::is_directory(argument)) {
      for (const auto& entry : std::filesystem::directory_iterator(argument)) {
        files.push_back(entry.path().string());
      }
    } else {
      files.push_back(argument);
    }
  }
  if (files.empty()) {
    std::fprintf(stderr, "no corpus\n");
    return 1;
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> corpus;
  corpus.reserve(files.size());
  for (const std::string& file : files) {
    corpus.push_back(read_file(file));
  }
  const char* quick = std::getenv("ODX_QUICK");
  if (quick != nullptr && std::string(quick) == "1") {
    changes /= 10;
  }

  Notebook notebook;
  std::printf(
      "%zu files, %zu random changes of them (--seed %llu); should it die, %s is the input\n",
      corpus.size(), changes, static_cast<unsigned long long>(seed), notebook.path().c_str());
  std::fflush(stdout);
  for (const std::string& input : corpus) {
    notebook.run(input);
  }
  std::mt19937_64 random(seed);
  const auto end = std::chrono::steady_clock::now() + limit;
  std::size_t done = 0;
  while (done < changes && std::chrono::steady_clock::now() < end) {
    notebook.run(changed(random, corpus));
    ++done;
  }
  std::printf("%zu files and %zu changed ones: nothing found\n", corpus.size(), done);
  return 0;
}
