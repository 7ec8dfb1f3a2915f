// An odxfs for tests without a mount: while one lives, ordinary files below its directory answer
// the ioctls of odxfs, by the real rule engine and with tokens held in memory. It can be told to
// move little, to refuse, and to stall. The program's own ioctl() takes the place of libc's, so the
// code under test is what programs run.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "odx/offload.h"
#include "proto/rules.hpp"
#include "proto/token_codec.hpp"
#include "temp_dir.hpp"

namespace odx::testing {

class FakeOdxfs {
 public:
  explicit FakeOdxfs(std::string root);
  ~FakeOdxfs();
  FakeOdxfs(const FakeOdxfs&) = delete;
  FakeOdxfs& operator=(const FakeOdxfs&) = delete;

  // Most bytes of one READ or WRITE: whole sectors.
  std::uint64_t most_per_read = UINT64_MAX;
  std::uint64_t most_per_write = UINT64_MAX;
  // Asked before every control with how many of its kind went before. A reason: that is the answer.
  // ODX_REASON_SHORT stands for a success that moves nothing.
  std::function<std::optional<odx_reason>(proto::Control, unsigned before)> interfere;

  // By odx_copy_note, as copy engines told.
  std::array<std::uint64_t, ODX_NOTE_SLOTS> fallback_bytes{};
  unsigned reads = 0;
  unsigned writes = 0;
  void forget_hopeless() const;
  [[nodiscard]] std::size_t live_tokens() const { return tokens_.size(); }

  // The answer of an ioctl on a file below `root`: 0 or a negative errno.
  int serve(int fd, unsigned long request, void* argument);
  [[nodiscard]] const std::string& root() const { return root_; }

 private:
  struct Token {
    proto::TokenFields fields;
    std::string data;
    std::uint64_t length = 0;
  };

  [[nodiscard]] proto::FileFacts facts(int fd) const;
  int answer(odx_offload& call, const proto::Verdict& verdict);
  int read(int fd, odx_offload& call);
  int write(int fd, odx_offload& call);
  int list(struct odx_token_list& page) const;

  std::string root_;
  Uuid uuid_{};
  std::map<TokenId, Token> tokens_;
  unsigned made_ = 0;
};

using test::TempDir;

void write_file(const std::string& path, const std::string& content);
[[nodiscard]] std::string read_file(const std::string& path);
// `bytes` of text without zeros, another one for every `seed`.
[[nodiscard]] std::string pattern(std::size_t bytes, unsigned seed = 1);

}  // namespace odx::testing
