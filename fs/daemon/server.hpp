// A mounted store, from opening to closing.
#pragma once

#include <memory>
#include <string>

#include "filesystem.hpp"
#include "options.hpp"
#include "own_view.hpp"
#include "transport.hpp"
#include "watchdog.hpp"

namespace odx::daemon {

class Server {
 public:
  // Opens the store and mounts it; requests are served when this returns. `options` holds absolute
  // paths. SIGTERM and SIGINT must be blocked already.
  static Result<std::unique_ptr<Server>> start(Options options);
  ~Server();

  // Serves until the mount is gone or a signal asks for the end (then unmounts), and closes the
  // store. The error of closing, if any.
  Result<void> run();

 private:
  explicit Server(Options options) : options_(std::move(options)) {}
  Result<void> open_store();
  Result<void> mount();
  // Mounts the whole store there and serves requests.
  Result<void> serve_at(const std::string& mount_point, bool read_only);
  // True: a signal asked for the end.
  bool wait_for_end();
  void unmount();
  void clear_dead_mount();
  Result<void> close_store();

  const Options options_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Filesystem> fs_;
  std::unique_ptr<OwnView> view_;
  std::unique_ptr<Transport> transport_;
  Watchdog watchdog_;
};

}  // namespace odx::daemon
