// Counts the allocations of a test program and makes one of them fail. Include it in exactly one file of the program.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace guild_test {

/// Allocations (operator new and aligned_alloc) of all threads since the program began.
inline std::atomic<long> allocations{0};
/// Bytes of aligned_alloc alone: what buffers take.
inline std::atomic<long> buffer_bytes{0};
/// The allocation that fails when the count reaches it, if `failing`.
inline std::atomic<long> fails_at{0};
inline std::atomic<bool> failing{false};

inline bool may_allocate() noexcept {
  const long number = allocations.fetch_add(1, std::memory_order_relaxed) + 1;
  return !(failing.load(std::memory_order_relaxed) && number == fails_at.load(std::memory_order_relaxed));
}

/// Runs `call` with its n-th allocation failing (n counts from 1). True if that allocation was reached.
template <class Call>
bool with_failing_allocation(long n, Call&& call) {
  const long at = allocations.load() + n;
  fails_at = at;
  failing = true;
  struct Off {
    ~Off() { failing = false; }
  } off;
  call();
  return allocations.load() >= at;
}

inline void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  void* memory = nullptr;
  if (may_allocate() &&
      ::posix_memalign(&memory, alignment < sizeof(void*) ? sizeof(void*) : alignment, bytes == 0 ? 1 : bytes) == 0)
    return memory;
  throw std::bad_alloc();
}

}  // namespace guild_test

// The sanitizers bring their own, and do not like others in between: under them nothing is counted and nothing fails.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GUILD_TEST_COUNTS_ALLOCATIONS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define GUILD_TEST_COUNTS_ALLOCATIONS 0
#endif
#endif
#if !defined(GUILD_TEST_COUNTS_ALLOCATIONS)
#define GUILD_TEST_COUNTS_ALLOCATIONS 1

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return guild_test::allocate_or_throw(bytes, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new[](std::size_t bytes) {
  return guild_test::allocate_or_throw(bytes, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return guild_test::allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
extern "C" void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  void* memory = nullptr;
  if (!guild_test::may_allocate() || ::posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
  guild_test::buffer_bytes.fetch_add(static_cast<long>(bytes), std::memory_order_relaxed);
  return memory;
}
#endif
