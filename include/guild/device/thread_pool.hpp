// Threads that wait for parallel regions: chunks are handed out dynamically, waiting spins briefly and then sleeps.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include <guild/core/view.hpp>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace guild::inline v1 {

/// `threads - 1` workers plus the calling thread. One region runs at a time: a caller that finds the pool busy runs its
/// chunks itself. Which thread runs a chunk never changes what the chunk computes, so results do not depend on timing.
class ThreadPool {
 public:
  explicit ThreadPool(int threads) {
    workers_.reserve(static_cast<std::size_t>(threads > 1 ? threads - 1 : 0));
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    stop_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls f(chunk, worker) for every chunk in [0, chunks), worker in [0, threads()). Returns when all are done.
  /// f must not throw: check shapes before the region.
  template <class F>
  void run(Index chunks, F&& f) {
    if (chunks <= 0) return;
    if (chunks == 1 || workers_.empty() || !busy_.try_lock()) {
      for (Index i = 0; i < chunks; ++i) f(i, 0);
      return;
    }
    const std::lock_guard lock(busy_, std::adopt_lock);
    using Body = std::remove_reference_t<F>;
    const std::uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
    // The ticket is (generation, next chunk). It is closed before the region is described: a late worker that still holds
    // a ticket of the last region fails to exchange it, whatever it has read of the new description.
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
      if (spin < spin_limit) pause(); else std::this_thread::yield();
    }
  }

 private:
  static constexpr std::uint64_t closed = 0xffffffffU;
  static constexpr int spin_limit = 2000;  // some tens of microseconds

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#endif
  }

  void take_chunks(std::uint32_t generation, int worker) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (static_cast<std::uint32_t>(ticket >> 32) == generation) {
      const auto chunk = static_cast<Index>(ticket & 0xffffffffU);
      // body_ and context_ are read only after a chunk is taken: from then on this region cannot end before it is done.
      if (chunk >= chunks_.load(std::memory_order_acquire)) return;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
      body_(context_, chunk, worker);
      done_.fetch_add(1, std::memory_order_acq_rel);
      ticket = ticket_.load(std::memory_order_acquire);
    }
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

  std::mutex busy_;
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

}  // namespace guild::inline v1
