// The way requests come in and replies go out: /dev/fuse, read by a set of threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "base/aligned_buffer.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "filesystem.hpp"
#include "fuse_lowlevel.hpp"

namespace odx::daemon {

class Transport {
 public:
  // `device` belongs to a mount that exists already. `fs` outlives the transport.
  static Result<std::unique_ptr<Transport>> create(Fd device, Filesystem& fs);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // Begins to serve. Answers when the kernel and we have agreed on the protocol.
  Result<void> start();

  // Readable once the kernel has ended the connection (unmounted, or aborted).
  [[nodiscard]] int ended_event() const { return ended_.get(); }

  // Ends all threads, whatever they are waiting for. Requests that come in later wait until the
  // transport is destroyed, which fails them. Idempotent.
  void stop();

  [[nodiscard]] fuse_session* session() { return session_.get(); }

 private:
  struct Worker {
    Fd own_device;  // a clone; invalid: the main device is used
    AlignedBuffer incoming;
    AlignedBuffer scratch;
    std::atomic<bool> finished{false};
    std::thread thread;
  };
  struct EndSession {
    void operator()(fuse_session* session) const { ::fuse_session_destroy(session); }
  };

  explicit Transport(Filesystem& fs) : fs_(fs) {}
  Result<void> add_worker();
  void run(Worker& worker);
  // False: the connection has ended.
  bool receive(Worker& worker, int device);
  void dispatch(std::span<std::byte> message, Worker& worker);
  void negotiate(std::span<std::byte> message, Worker& worker);
  void pass_to_libfuse(std::span<std::byte> message);
  static ssize_t write_reply(int device, iovec* parts, int count, void* userdata);
  static ssize_t read_request(int device, void* buffer, size_t bytes, void* userdata);

  Filesystem& fs_;
  std::unique_ptr<fuse_session, EndSession> session_;  // closes the main device
  int device_ = -1;
  Fd ended_;

  std::mutex mutex_;
  std::condition_variable ready_;
  bool agreed_ = false;
  std::list<Worker> workers_;

  std::atomic<int> idle_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace odx::daemon
