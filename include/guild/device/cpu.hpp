// The CPU as a device: a thread pool that copies share, and a scratch arena of one's own.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/arena.hpp>
#include <guild/device/isa.hpp>
#include <guild/device/team.hpp>
#include <guild/device/thread_pool.hpp>
#include <guild/device/tuning.hpp>

namespace guild {
inline namespace v1 {

struct CpuOptions {
  int threads = 0;  ///< 0: as many as the machine runs at once
  /// The kernels to run; they must run here (`runs_here`). The default computes with float activations on every
  /// machine. `best_isa()` may be `avx512_bf16`: faster prefill of bf16 and fp8 weights, with activations rounded to
  /// bf16 as in the engines that compute in bf16.
  Isa isa = best_float_isa();
};

/// Its kernels for operations; guild/cpu.hpp has them and completes the type.
struct CpuTwins;

/// A `Cpu` is used by one thread at a time, like a CUDA stream. A copy shares the pool, is tuned alike and brings its
/// own scratch arena, so each session or host thread holds a copy. There is no default device and no global pool.
class Cpu {
 public:
  using Memory = HostMemory;
  using Twins = CpuTwins;

  /// Throws dev_unavailable if the kernels asked for do not run on this machine, or no thread can be started.
  explicit Cpu(CpuOptions options = {}) : isa_(options.isa) {
    if (!runs_here(isa_))
      detail::refuse(ErrorCode::dev_unavailable,
                     {"this machine does not run ", name(isa_), " kernels; the best are ", name(best_isa())},
                     "CpuOptions::isa");
    pool_ = std::make_shared<ThreadPool>(options.threads > 0 ? options.threads : available_threads());
  }
  Cpu(const Cpu& other) : isa_(other.isa_), tuning_(other.tuning_), pool_(other.pool_) {}
  Cpu& operator=(const Cpu& other) {
    isa_ = other.isa_;
    tuning_ = other.tuning_;
    pool_ = other.pool_;
    return *this;
  }
  ~Cpu() = default;

  /// Another handle for another thread or session: the same pool, a scratch arena of its own.
  [[nodiscard]] Cpu fork() const { return *this; }

  [[nodiscard]] int threads() const { return pool_->threads(); }
  [[nodiscard]] Isa isa() const { return isa_; }
  [[nodiscard]] Tuning& tuning() { return tuning_; }
  [[nodiscard]] const Tuning& tuning() const { return tuning_; }

  /// Calls f(chunk, worker) for every chunk in [0, chunks) on the pool's threads; returns when all are done.
  template <class F>
  void run(Index chunks, F&& f) {
    pool_->run(chunks, std::forward<F>(f));
  }

  /// Scratch for the life of the returned frame.
  [[nodiscard]] Arena::Frame scratch() { return Arena::Frame(arena_); }
  /// Bytes of scratch and staging held: constant once warmed up.
  [[nodiscard]] Index scratch_bytes() const { return arena_.capacity() + staging_.capacity(); }
  /// Host memory for the lists of a call, see Staged.
  [[nodiscard]] Arena::Frame staging() { return Arena::Frame(staging_); }

 private:
  static int available_threads() {
    const unsigned n = std::thread::hardware_concurrency();
    return n == 0 ? 1 : static_cast<int>(n);
  }

  Isa isa_;
  Tuning tuning_{};
  std::shared_ptr<ThreadPool> pool_;
  Arena arena_;
  Arena staging_;
};

namespace cpu {

/// Rows [begin, end) of a kernel, compiled for each instruction set: the kernel's body is inlined and its loops become
/// vectors of that width.
template <class Kernel>
void rows_baseline(const Kernel& kernel, Index begin, Index end) {
  for (Index row = begin; row < end; ++row) kernel(SerialTeam{}, row);
}
#if defined(__x86_64__)
template <class Kernel>
[[gnu::target("avx2,fma"), gnu::flatten]] void rows_avx2(const Kernel& kernel, Index begin, Index end) {
  for (Index row = begin; row < end; ++row) kernel(SerialTeam{}, row);
}
#if defined(__clang__)
template <class Kernel>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,fma"), gnu::flatten, clang::min_vector_width(512)]]
#else
template <class Kernel>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512"), gnu::flatten]]
#endif
void rows_avx512(const Kernel& kernel, Index begin, Index end) {
  for (Index row = begin; row < end; ++row) kernel(SerialTeam{}, row);
}
#endif

/// The variant of `isa`, as all kernels of a `Cpu` are.
template <class Kernel>
auto rows_of(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return rows_avx512<Kernel>;
  if (isa == Isa::avx2) return rows_avx2<Kernel>;
#endif
  static_cast<void>(isa);
  return rows_baseline<Kernel>;
}

}  // namespace cpu

/// Runs a row kernel, `kernel(team, row)`, over all rows. `row_work` is the rough number of elements a row touches: it
/// decides how many rows make a chunk worth handing to another thread.
template <class Kernel>
void for_each_row(Cpu& device, Index rows, Index row_work, const Kernel& kernel) {
  constexpr Index chunk_work = 16384;
  const Index per_chunk = row_work >= chunk_work ? 1 : chunk_work / (row_work > 0 ? row_work : 1);
  const auto run_rows = cpu::rows_of<Kernel>(device.isa());
  device.run((rows + per_chunk - 1) / per_chunk, [&](Index chunk, int) {
    const Index end = (chunk + 1) * per_chunk < rows ? (chunk + 1) * per_chunk : rows;
    run_rows(kernel, chunk * per_chunk, end);
  });
}

}  // namespace v1
}  // namespace guild
