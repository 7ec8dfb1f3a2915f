// The loop of a copy engine (odx-rules.md 3.3): take a token for the rest of the file, write it out
// in steps, take short answers as they come, and hand over to an ordinary copy from the point
// reached when the filesystem says no.
#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "base/result.hpp"
#include "odx/odx.h"

namespace odx::client {

class CopyEngine {
 public:
  // The descriptors, `options` and `report` must outlive the engine. `report` is kept up to date
  // at every step.
  CopyEngine(int source, int destination, const odx_copy_options& options, odx_copy_report& report)
      : source_(source), destination_(destination), options_(options), report_(report) {}

  // Once. Errors: ECANCELED by the caller's own callback; with ODX_COPY_REQUIRE_OFFLOAD the errno
  // of the refusal; else that of an ordinary system call.
  Result<void> run();

 private:
  Result<void> prepare();
  // Both false with a note.
  [[nodiscard]] bool worth_trying();
  [[nodiscard]] bool same_store();
  // What was found out about the two filesystems, as opposed to these two files.
  [[nodiscard]] bool known_hopeless();
  void remember_if_hopeless(int error, const odx_result& result) const;
  Result<void> offload();
  // Writes out what one token stands for. False: stop offloading. Success with the end not reached:
  // take another token.
  Result<bool> redeem(const odx_token& token, std::uint64_t span);
  Result<void> copy_rest();
  Result<void> notice_shrinking();
  // The source was cut short: so is the copy.
  Result<void> end_at(std::uint64_t end);
  Result<void> set_full_size();

  // Both end the copy if the caller's callback says so.
  Result<void> advance_offloaded(odx_copy_way way, std::uint64_t bytes, std::uint64_t shared);
  Result<void> advance_plainly(odx_copy_way way, std::uint64_t offset, std::uint64_t bytes);
  // Counts a success that moved nothing. True: that was one too many.
  bool stalled();
  // Keeps the first reason why not everything is offloaded.
  void note(odx_copy_note why, int error = 0, const odx_result& result = {});
  [[nodiscard]] Result<void> tell(const odx_copy_range& step) const;
  // Tells the filesystem what did not go by tokens. Best effort: it only counts.
  void tell_fallback() const;
  [[nodiscard]] int refusal_errno() const;

  int source_;
  int destination_;
  const odx_copy_options& options_;
  odx_copy_report& report_;
  struct stat source_stat_ {};
  struct stat destination_stat_ {};
  std::uint64_t size_ = 0;
  std::uint64_t at_ = 0;   // everything before is in place
  unsigned stalls_ = 0;    // successes in a row that moved nothing
  bool may_renew_ = true;  // one new token for an expired one, until there is progress again
};

}  // namespace odx::client
