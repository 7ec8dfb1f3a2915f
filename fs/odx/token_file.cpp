#include "token_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <istream>

#include "text.hpp"

namespace odx::cli {

namespace {

Result<odx_token> take_token(std::istream& in) {
  odx_token token;
  in.read(reinterpret_cast<char*>(&token), sizeof token);
  if (in.gcount() != sizeof token || in.peek() != std::istream::traits_type::eof()) {
    return fail(EINVAL, "not a token: a token is exactly 512 bytes");
  }
  return token;
}

}  // namespace

Result<odx_token> load_token(const std::string& path, Streams& io) {
  if (path == "-") {
    return take_token(io.in);
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return fail(errno);
  }
  return take_token(file);
}

Result<void> save_token(const std::string& path, const odx_token& token) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) {
    return fail(errno);
  }
  if (::write(file.get(), &token, sizeof token) != sizeof token) {
    return fail(errno);
  }
  return {};
}

Result<NamedToken> find_token(const std::string& name, Streams& io) {
  NamedToken found;
  if (parse_hex(name, found.id)) {
    return found;
  }
  found.token = ODX_TRY(load_token(name, io));
  if (odx_token_id(&*found.token, found.id.data()) != 0) {
    return fail(EINVAL, "not a token of odxfs");
  }
  return found;
}

}  // namespace odx::cli
