// A CUDA GPU as a device: a stream, a scratch arena, and the launch of row kernels.
#pragma once

#include <algorithm>
#include <guild/core/refuse.hpp>
#include <guild/device/arena.hpp>
#include <guild/device/cuda_buffer.cuh>
#include <guild/device/cuda_team.cuh>
#include <guild/device/tuning.hpp>
#include <string>
#include <type_traits>
#include <utility>

namespace guild {
inline namespace v1 {

struct CudaOptions {
  int ordinal = 0;  ///< which GPU, as CUDA counts them
};

/// One stream of one GPU with scratch memory of its own. Used by one host thread at a time; not copyable: work of two
/// `Cuda` values is not ordered. Views passed to operations point to memory of this GPU.
/// Work is queued and runs later, so an error of a kernel may come from a later call; `synchronize` waits for all of
/// it. After a kernel failed CUDA keeps the error: the device then refuses every further call with that first message.
class Cuda {
 public:
  using Memory = CudaMemory;

  /// Throws dev_unavailable when there is no such GPU or no driver for it.
  explicit Cuda(CudaOptions options = {}) : ordinal_(options.ordinal) {
    int count = 0;
    detail::check_cuda(cudaGetDeviceCount(&count), "find a GPU");
    if (ordinal_ < 0 || ordinal_ >= count)
      detail::refuse(ErrorCode::dev_unavailable,
                     {"GPU ", ordinal_, " was asked for, but the machine has ", count, "; pass an ordinal below that"});
    use();
    check(cudaFree(nullptr), "start the GPU");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream");
    constexpr Index words = 16;
    faults_ = CudaBuffer<std::uint32_t>::uninitialized(words);
    check(cudaMemsetAsync(faults_.data(), 0, words * sizeof(std::uint32_t), stream_), "clear the fault flags");
  }
  Cuda(const Cuda&) = delete;
  Cuda& operator=(const Cuda&) = delete;
  ~Cuda() {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }

  /// Another handle for another thread or session: the same GPU, a stream and scratch of its own.
  [[nodiscard]] Cuda fork() const { return Cuda(CudaOptions{.ordinal = ordinal_}, tuning_); }

  [[nodiscard]] int ordinal() const { return ordinal_; }
  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  [[nodiscard]] Tuning& tuning() { return tuning_; }
  [[nodiscard]] const Tuning& tuning() const { return tuning_; }

  /// Scratch in device memory for the life of the returned frame. Later work on the stream may reuse it safely.
  [[nodiscard]] auto scratch() {
    use();
    return BasicArena<CudaBuffer<std::byte>>::Frame(arena_);
  }
  [[nodiscard]] Index scratch_bytes() const { return arena_.capacity(); }
  /// Host memory for the lists of a call, see Staged.
  [[nodiscard]] Arena::Frame staging() { return Arena::Frame(staging_); }

  /// Where kernels flag faults of the data that they read, one word a kind; see `raise_faults` in
  /// guild/ops/common/fault.hpp.
  [[nodiscard]] DeviceView<std::uint32_t> faults() { return faults_.view(); }

  /// Waits for all queued work. Throws dev_failed if any of it failed.
  void synchronize() {
    use();
    check(cudaStreamSynchronize(stream_), "finish the queued work");
  }

  /// Makes this GPU the thread's current one. Throws dev_failed if it failed before.
  void use() {
    if (!failure_.empty())
      detail::refuse(ErrorCode::dev_failed, {"the device failed before and is unusable: ", failure_});
    check(cudaSetDevice(ordinal_), "select the GPU");
    check(cudaPeekAtLastError(), "go on: an error from outside of this library is pending");
  }

  /// Throws for every status but success, and remembers an error that CUDA will not recover from.
  void check(cudaError_t status, const char* doing) {
    try {
      detail::check_cuda(status, doing);
    } catch (const Error& error) {
      if (cudaPeekAtLastError() != cudaSuccess)
        failure_ = error.message();  // could not be cleared: the context is lost
      throw;
    }
  }

 private:
  Cuda(CudaOptions options, const Tuning& tuning) : Cuda(options) { tuning_ = tuning; }

  int ordinal_;
  cudaStream_t stream_ = nullptr;
  Tuning tuning_{};
  BasicArena<CudaBuffer<std::byte>> arena_;
  CudaBuffer<std::uint32_t> faults_;
  Arena staging_;
  std::string failure_;
};

/// Copies `from` (host) to `to` (device), in the order of the stream; pageable host memory is read before it returns.
template <class T>
void copy_to_device(Cuda& device, View<const std::type_identity_t<T>> from, DeviceView<T> to) {
  if (from.size != to.size) detail::refuse(ErrorCode::op_shape, "copies need two views of one size");
  device.use();
  device.check(cudaMemcpyAsync(to.data, from.data, static_cast<std::size_t>(to.size) * sizeof(T),
                               cudaMemcpyHostToDevice, device.stream()),
               "copy to the GPU");
}
/// Copies `from` (device) to `to` (host) and waits for it.
template <class T>
void copy_to_host(Cuda& device, DeviceView<const std::type_identity_t<T>> from, View<T> to) {
  if (from.size != to.size) detail::refuse(ErrorCode::op_shape, "copies need two views of one size");
  device.use();
  device.check(cudaMemcpyAsync(to.data, from.data, static_cast<std::size_t>(to.size) * sizeof(T),
                               cudaMemcpyDeviceToHost, device.stream()),
               "copy from the GPU");
  device.synchronize();
}

namespace detail {

inline constexpr int row_threads = 256;

template <class Kernel>
__global__ void __launch_bounds__(row_threads) run_row_by_warp(Kernel kernel, Index rows) {
  const WarpTeam team;
  constexpr Index warps = row_threads / 32;
  for (Index row = blockIdx.x * warps + threadIdx.x / 32U; row < rows; row += gridDim.x * warps) {
    kernel(team, row);
    team.sync();
  }
}

template <class Kernel>
__global__ void __launch_bounds__(row_threads) run_row_by_block(Kernel kernel, Index rows) {
  __shared__ BlockTeam::Shared shared;
  const BlockTeam team(shared);
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) {
    kernel(team, row);
    team.sync();
  }
}

/// Kernels with many reductions over few elements say `static constexpr bool prefers_warp = true`.
template <class Kernel>
concept PrefersWarp = Kernel::prefers_warp;

}  // namespace detail

/// Queues a row kernel over all rows: a block of 256 threads per row, or a warp where rows are short.
template <class Kernel>
void for_each_row(Cuda& device, Index rows, Index row_work, const Kernel& kernel) {
  static_assert(std::is_trivially_copyable_v<Kernel>,
                "a row kernel for CUDA holds views and numbers only: it is copied to the GPU");
  if (rows <= 0) return;
  device.use();
  constexpr Index most_blocks = Index{1} << 20, short_row = 1024, warps = detail::row_threads / 32;
  if (detail::PrefersWarp<Kernel> || row_work <= short_row) {
    const auto blocks = static_cast<unsigned>(std::min((rows + warps - 1) / warps, most_blocks));
    detail::run_row_by_warp<<<blocks, detail::row_threads, 0, device.stream()>>>(kernel, rows);
  } else {
    const auto blocks = static_cast<unsigned>(std::min(rows, most_blocks));
    detail::run_row_by_block<<<blocks, detail::row_threads, 0, device.stream()>>>(kernel, rows);
  }
  device.check(cudaGetLastError(), "launch a row kernel");
}

}  // namespace v1
}  // namespace guild
