#include "progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <ostream>

#include "command.hpp"
#include "text.hpp"

namespace odx::cli {

namespace {

std::size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) {
    return 79;
  }
  // Writing into the last column would wrap on some terminals.
  return size.ws_col - 1U;
}

}  // namespace

Progress::Progress(std::ostream& stream) : stream_(stream), shown_(is_terminal(stream)) {}

void Progress::finish_file(std::uint64_t bytes) {
  finished_ += bytes;
  update(0);
}

void Progress::update(std::uint64_t bytes_of_file) {
  update(bytes_of_file, std::chrono::duration<double>(SteadyClock::now() - start_).count());
}

void Progress::update(std::uint64_t bytes_of_file, double elapsed_seconds) {
  if (!shown_ || total_ == 0) {
    return;
  }
  const auto now = SteadyClock::now();
  if (now - last_ < std::chrono::milliseconds(100)) {
    return;
  }
  last_ = now;
  stream_ << '\r'
          << progress_line(finished_ + bytes_of_file, total_, elapsed_seconds, terminal_width())
          << "\x1b[K" << std::flush;
  drawn_ = true;
}

void Progress::clear() {
  if (drawn_) {
    stream_ << "\r\x1b[K" << std::flush;
    drawn_ = false;
  }
}

}  // namespace odx::cli
