// Threads that wait for parallel regions: chunks are handed out dynamically, waiting spins briefly and then sleeps.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// `threads - 1` workers plus the calling thread. One region runs at a time: a caller that finds the pool busy runs its
/// chunks itself. Which thread runs a chunk never changes what the chunk computes, so results do not depend on timing.
class ThreadPool {
 public:
  /// Throws dev_unavailable when the system does not start so many threads.
  explicit ThreadPool(int threads) {
    try {
      workers_.reserve(static_cast<std::size_t>(threads > 1 ? threads - 1 : 0));
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::exception& error) {
      const std::size_t started = workers_.size() + 1;
      stop();
      detail::refuse(ErrorCode::dev_unavailable, {"the system started ", started, " of ", threads, " threads (",
                                                  error.what(), "); ask for fewer, or raise its limit"});
    }
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() { stop(); }

  [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls f(chunk, worker) for every chunk in [0, chunks), worker in [0, threads()). Returns when all are done. If f
  /// throws, the other chunks may or may not run; when none runs any more, one of the exceptions goes on to the caller.
  template <class F>
  void run(Index chunks, F&& f) {
    if (chunks <= 0) return;
    // A flag and not a mutex: a region inside a region asks from the thread that holds it.
    if (chunks == 1 || workers_.empty() || busy_.test_and_set(std::memory_order_acquire)) {
      for (Index i = 0; i < chunks; ++i) f(i, 0);
      return;
    }
    using Body = std::remove_reference_t<F>;
    const std::uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
    // The ticket is (generation, next chunk). It is closed before the region is described: a late worker that still
    // holds a ticket of the last region fails to exchange it, whatever it has read of the new description.
    ticket_.store(std::uint64_t{generation} << 32 | closed, std::memory_order_relaxed);
    chunks_.store(chunks, std::memory_order_release);
    body_ = [](const void* context, Index chunk, int worker) {
      (*static_cast<Body*>(const_cast<void*>(context)))(chunk, worker);
    };
    context_ = &f;
    done_.store(0, std::memory_order_relaxed);
    ticket_.store(std::uint64_t{generation} << 32, std::memory_order_release);
    generation_.store(generation, std::memory_order_seq_cst);  // ordered before the look at sleepers_
    if (sleepers_.load(std::memory_order_seq_cst) > 0) generation_.notify_all();
    take_chunks(generation, 0);
    for (int spin = 0; done_.load(std::memory_order_acquire) != chunks; ++spin) {
      if (spin < spin_limit)
        pause();
      else
        std::this_thread::yield();
    }
    const std::exception_ptr failure = std::exchange(failure_, nullptr);
    failed_.clear(std::memory_order_relaxed);
    busy_.clear(std::memory_order_release);
    if (failure) std::rethrow_exception(failure);
  }

 private:
  static constexpr std::uint64_t closed = 0xffffffffU;
  static constexpr int spin_limit = 2000;  // some tens of microseconds

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();  // <immintrin.h> would cost every user half a second
#endif
  }

  void take_chunks(std::uint32_t generation, int worker) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (static_cast<std::uint32_t>(ticket >> 32) == generation) {
      const auto chunk = static_cast<Index>(ticket & 0xffffffffU);
      // body_ and context_ are read only after a chunk is taken: from then on this region cannot end before it is done.
      if (chunk >= chunks_.load(std::memory_order_acquire)) return;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
      try {
        body_(context_, chunk, worker);
      } catch (...) {
        if (!failed_.test_and_set(std::memory_order_relaxed)) failure_ = std::current_exception();
      }
      done_.fetch_add(1, std::memory_order_acq_rel);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void stop() {
    stop_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  void work(int worker) {
    std::uint32_t seen = 0;
    for (;;) {
      std::uint32_t now = generation_.load(std::memory_order_acquire);
      for (int spin = 0; now == seen && spin < spin_limit; ++spin) {
        pause();
        now = generation_.load(std::memory_order_acquire);
      }
      if (now == seen) {
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        generation_.wait(seen, std::memory_order_seq_cst);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
        continue;
      }
      seen = now;
      if (stop_.load(std::memory_order_relaxed)) return;
      take_chunks(seen, worker);
    }
  }

  std::atomic_flag busy_;
  std::atomic_flag failed_;
  std::exception_ptr failure_;  // written by whoever sets failed_, read when the region is done
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<Index> done_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  void (*body_)(const void*, Index, int) = nullptr;
  const void* context_ = nullptr;
  std::atomic<Index> chunks_{0};
  std::vector<std::thread> workers_;
};

}  // namespace v1
}  // namespace guild
