// Memory that runs out: the n-th allocation of the store fails.
//
// Only what the store asks for counts: on its own threads, and on the test's thread inside of
// exposed(). Without a sanitizer malloc itself is taken over, so that LMDB's allocations count as
// well; with one, operator new is.
#pragma once

#include <cstdint>
#include <new>

#include "base/result.hpp"

namespace odx::crash {

// The allocation number `nth` from now on fails, once; 0: none does.
void fail_allocation(std::uint64_t nth);
// How many there were since, and whether it has come to the one that fails.
std::uint64_t allocations();
bool allocation_failed();

// Nothing of this thread counts in its scope: the test's own work.
class Sheltered {
 public:
  Sheltered();
  ~Sheltered();
  Sheltered(const Sheltered&) = delete;
  Sheltered& operator=(const Sheltered&) = delete;

 private:
  bool before_;
};

class Exposed {
 public:
  Exposed();
  ~Exposed();
  Exposed(const Exposed&) = delete;
  Exposed& operator=(const Exposed&) = delete;

 private:
  bool before_;
};

// A call of the store's, in which allocations count. What the daemon would answer with ENOMEM is
// that here.
template <class Call>
auto exposed(Call call) -> decltype(call()) {
  try {
    const Exposed exposed_here;
    return call();
  } catch (const std::bad_alloc&) {
    return fail(ENOMEM, "out of memory");
  }
}

}  // namespace odx::crash
