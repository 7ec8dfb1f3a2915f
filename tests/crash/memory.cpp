#include "memory.hpp"

#include <atomic>
#include <cerrno>
#include <cstdlib>

namespace odx::crash {

namespace {

std::atomic<std::uint64_t> counted{0};
std::atomic<std::uint64_t> doomed{0};
// Threads that the store starts have no other business. The test's own thread says otherwise in
// main().
thread_local bool counts = true;

[[maybe_unused]] bool strikes() {
  const std::uint64_t nth = doomed.load(std::memory_order_relaxed);
  return nth != 0 && counts && counted.fetch_add(1) + 1 == nth;
}

}  // namespace

void fail_allocation(std::uint64_t nth) {
  counted = 0;
  doomed = nth;
}
std::uint64_t allocations() { return counted; }
bool allocation_failed() { return doomed != 0 && counted >= doomed; }

Sheltered::Sheltered() : before_(counts) { counts = false; }
Sheltered::~Sheltered() { counts = before_; }
Exposed::Exposed() : before_(counts) { counts = true; }
Exposed::~Exposed() { counts = before_; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

namespace {
void* take(std::size_t bytes) {
  void* const memory = strikes() ? nullptr : std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}
}  // namespace

}  // namespace odx::crash

void* operator new(std::size_t bytes) { return odx::crash::take(bytes); }
void* operator new[](std::size_t bytes) { return odx::crash::take(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

#else

}  // namespace odx::crash

// glibc's own, under the names that it keeps for this.
extern "C" {
void* __libc_malloc(std::size_t);                 // NOLINT
void* __libc_calloc(std::size_t, std::size_t);    // NOLINT
void* __libc_realloc(void*, std::size_t);         // NOLINT
void* __libc_memalign(std::size_t, std::size_t);  // NOLINT

void* malloc(std::size_t bytes) noexcept {
  if (odx::crash::strikes()) {
    errno = ENOMEM;
    return nullptr;
  }
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) noexcept {
  if (odx::crash::strikes()) {
    errno = ENOMEM;
    return nullptr;
  }
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, std::size_t bytes) noexcept {
  if (odx::crash::strikes()) {
    errno = ENOMEM;
    return nullptr;
  }
  return __libc_realloc(old, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  if (odx::crash::strikes()) {
    errno = ENOMEM;
    return nullptr;
  }
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) noexcept {
  void* const got = odx::crash::strikes() ? nullptr : __libc_memalign(alignment, bytes);
  if (got == nullptr) {
    return ENOMEM;
  }
  *memory = got;
  return 0;
}
}

#endif
