#include "fake_odxfs.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/types.hpp"
#include "client/negative_cache.hpp"

namespace odx::testing {

namespace {

std::vector<FakeOdxfs*>& all_fakes() {
  static std::vector<FakeOdxfs*> fakes;
  return fakes;
}

FakeOdxfs* fake_of(int fd) {
  std::error_code error;
  const auto path =
      std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), error).string();
  for (FakeOdxfs* fake : all_fakes()) {
    if (path == fake->root() || path.starts_with(fake->root() + "/")) {
      return fake;
    }
  }
  return nullptr;
}

bool only_zeros(const std::string& bytes) {
  return bytes.find_first_not_of('\0') == std::string::npos;
}

std::string content(int fd, std::uint64_t offset, std::uint64_t length) {
  std::string bytes(length, '\0');
  const ssize_t n = ::pread(fd, bytes.data(), length, static_cast<off_t>(offset));
  bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  return bytes;
}

}  // namespace

FakeOdxfs::FakeOdxfs(std::string root) : root_(std::filesystem::canonical(root).string()) {
  forget_hopeless();
  static std::uint8_t count = 0;
  uuid_.fill(++count);
  all_fakes().push_back(this);
}

// A fake is no filesystem of its own: libodx would believe of it what it found out about its host.
void FakeOdxfs::forget_hopeless() const {
  struct stat st {};
  ::stat(root_.c_str(), &st);
  client::NegativeCache::of_process().forget(st.st_dev, st.st_dev);
}

FakeOdxfs::~FakeOdxfs() { std::erase(all_fakes(), this); }

proto::FileFacts FakeOdxfs::facts(int fd) const {
  struct stat st {};
  ::fstat(fd, &st);
  const int mode = ::fcntl(fd, F_GETFL) & O_ACCMODE;
  proto::FileFacts file;
  file.is_regular = S_ISREG(st.st_mode);
  file.is_directory = S_ISDIR(st.st_mode);
  file.readable = mode != O_WRONLY;
  file.writable = mode != O_RDONLY;
  file.eof = static_cast<std::uint64_t>(st.st_size);
  return file;
}

int FakeOdxfs::answer(odx_offload& call, const proto::Verdict& verdict) {
  proto::fill_failure(call, verdict);
  return -verdict.errno_value;
}

int FakeOdxfs::read(int fd, odx_offload& call) {
  const unsigned before = reads++;
  if (const auto reason = interfere ? interfere(proto::Control::kRead, before) : std::nullopt) {
    return answer(call, proto::verdict_for(*reason, proto::Control::kRead));
  }
  const proto::FileFacts file = facts(fd);
  const auto judgement = proto::judge_read(call, file);
  if (const auto* verdict = std::get_if<proto::Verdict>(&judgement)) {
    return answer(call, *verdict);
  }
  const auto* judged = std::get_if<proto::ReadPlan>(&judgement);
  if (judged == nullptr) {
    proto::fill_read_zero_length(call);
    return 0;
  }
  proto::ReadPlan plan = *judged;
  if (plan.length > most_per_read) {
    plan.length = plan.transfer_length = most_per_read;
    plan.data_length = std::min(plan.data_length, most_per_read);
  }
  Token token;
  token.data = content(fd, plan.offset, plan.data_length);
  token.length = plan.length;
  token.fields.store = uuid_;
  ++made_;
  std::memcpy(token.fields.id.data(), &made_, sizeof made_);
  token.fields.secret.fill(0x5A);
  const std::uint64_t end = plan.offset + plan.data_length;
  const bool zeros_beyond = only_zeros(content(fd, end, file.eof - end));
  if (only_zeros(token.data) && !plan.reaches_unaligned_eof) {
    proto::fill_read_success(call, plan, proto::zero_token(), zeros_beyond);
    return 0;
  }
  proto::fill_read_success(call, plan, proto::encode_token(token.fields), zeros_beyond);
  tokens_[token.fields.id] = token;
  return 0;
}

int FakeOdxfs::write(int fd, odx_offload& call) {
  const unsigned before = writes++;
  const proto::FileFacts file = facts(fd);
  const auto judgement = proto::judge_write(call, file);
  if (const auto reason = interfere ? interfere(proto::Control::kWrite, before) : std::nullopt) {
    if (*reason == ODX_REASON_SHORT) {
      proto::fill_write_success(call, std::get<proto::WritePlan>(judgement), 0, 0);
      return 0;
    }
    return answer(call, proto::verdict_for(*reason, proto::Control::kWrite));
  }
  if (const auto* verdict = std::get_if<proto::Verdict>(&judgement)) {
    return answer(call, *verdict);
  }
  const auto* plan = std::get_if<proto::WritePlan>(&judgement);
  if (plan == nullptr) {
    proto::fill_write_zero_length(call);
    return 0;
  }
  const odx_token presented = call.body.write_in.token;
  proto::TokenContent what = proto::ZeroToken{};
  const Token* token = nullptr;
  if (proto::classify(presented) != proto::TokenKind::kZero) {
    const auto fields = proto::decode(presented);
    const auto found = fields ? tokens_.find(fields->id) : tokens_.end();
    if (found == tokens_.end() || !proto::token_matches(presented, found->second.fields)) {
      return answer(call, proto::verdict_for(!fields                  ? ODX_REASON_TOKEN_MALFORMED
                                             : fields->store != uuid_ ? ODX_REASON_TOKEN_FOREIGN
                                                                      : ODX_REASON_TOKEN_UNKNOWN,
                                             proto::Control::kWrite));
    }
    token = &found->second;
    what = proto::TokenSpan{token->length, token->data.size()};
  }
  proto::WritePlan capped = *plan;
  capped.limit = std::min(capped.limit, most_per_write);
  const auto transfer = proto::judge_transfer(capped, file, what);
  if (const auto* verdict = std::get_if<proto::Verdict>(&transfer)) {
    return answer(call, *verdict);
  }
  const auto& move = std::get<proto::TransferPlan>(transfer);
  std::string bytes =
      token != nullptr ? token->data.substr(move.source_offset, move.splice_length) : std::string();
  bytes.resize(move.splice_length + move.zero_length, '\0');
  if (::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(move.destination_offset)) !=
      static_cast<ssize_t>(bytes.size())) {
    return answer(call, proto::verdict_for_errno(errno, proto::Control::kWrite));
  }
  proto::fill_write_success(call, *plan, move.length_written, move.splice_length);
  return 0;
}

int FakeOdxfs::list(struct odx_token_list& page) const {
  TokenId after{};
  std::memcpy(after.data(), page.after, after.size());
  page.count = 0;
  for (auto at = tokens_.upper_bound(after); at != tokens_.end() && page.count < 16; ++at) {
    odx_token_info& info = page.tokens[page.count++];
    info = {};
    std::memcpy(info.id, at->first.data(), at->first.size());
    info.length = at->second.length;
    info.data_bytes = at->second.data.size();
    info.expires_ns = INT64_MAX;
  }
  return 0;
}

int FakeOdxfs::serve(int fd, unsigned long request, void* argument) {
  if (request == ODX_IOC_OFFLOAD_READ) {
    return read(fd, *static_cast<odx_offload*>(argument));
  }
  if (request == ODX_IOC_OFFLOAD_WRITE) {
    return write(fd, *static_cast<odx_offload*>(argument));
  }
  if (request == ODX_IOC_TOKEN_LIST) {
    return list(*static_cast<struct odx_token_list*>(argument));
  }
  if (request == ODX_IOC_TOKEN_DROP) {
    TokenId id{};
    std::memcpy(id.data(), static_cast<struct odx_token_drop*>(argument)->id, id.size());
    return tokens_.erase(id) == 1 ? 0 : -ENOENT;
  }
  if (request == ODX_IOC_FALLBACK) {
    const auto& told = *static_cast<const odx_fallback*>(argument);
    fallback_bytes[told.note] += told.bytes;
    return 0;
  }
  if (request == ODX_IOC_STAT) {
    auto& stat = *static_cast<struct odx_stat*>(argument);
    stat = {};
    stat.size = sizeof stat;
    stat.version = 1;
    std::memcpy(stat.uuid, uuid_.data(), uuid_.size());
    std::strcpy(stat.label, "fake");
    stat.sector_bytes = 512;
    stat.block_bytes = 4096;
    stat.tokens_live = tokens_.size();
    stat.tokens_created = made_;
    return 0;
  }
  return -ENOTTY;
}

void write_file(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string pattern(std::size_t bytes, unsigned seed) {
  std::string text(bytes, '\0');
  std::uint32_t state = seed * 2654435761U + 1;
  for (char& c : text) {
    state = state * 1664525U + 1013904223U;
    c = static_cast<char>('!' + (state >> 24) % 90);
  }
  return text;
}

}  // namespace odx::testing

extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (odx::testing::FakeOdxfs* fake = odx::testing::fake_of(fd)) {
    const int answer = fake->serve(fd, request, argument);
    if (answer < 0) {
      errno = -answer;
      return -1;
    }
    return answer;
  }
  return static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
}
