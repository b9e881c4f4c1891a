// Owned memory of a CUDA device, and the translation of CUDA's errors.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <string>
#include <utility>

namespace guild {
inline namespace v1 {

namespace detail {

/// Throws for every status but success. `doing` completes the sentence "CUDA failed to ...".
inline void check_cuda(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // clears it, unless the context is lost
  const std::string cause =
      std::string("CUDA failed to ") + doing + ": " + cudaGetErrorName(status) + ", " + cudaGetErrorString(status);
  switch (status) {
    case cudaErrorMemoryAllocation:
      detail::refuse(ErrorCode::dev_memory, {cause, "; use a smaller batch, context or model"});
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemNotReady:
    case cudaErrorStubLibrary:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      detail::refuse(ErrorCode::dev_unavailable,
                     {cause, "; expected a GPU, a driver for this CUDA version, and code built for that GPU"});
    default:
      detail::refuse(ErrorCode::dev_failed,
                     {cause, "; if it is the error of an earlier kernel, run with CUDA_LAUNCH_BLOCKING=1 to find it"});
  }
}

}  // namespace detail

/// An array of trivially copyable elements in the memory of the current CUDA device. Move-only. Throws dev_memory.
template <class T>
class CudaBuffer {
 public:
  CudaBuffer() = default;

  /// `size` elements whose values are not set yet.
  static CudaBuffer uninitialized(Index size) {
    CudaBuffer buffer;
    if (size <= 0) return buffer;
    if (static_cast<std::size_t>(size) > SIZE_MAX / sizeof(T) / 2)
      detail::refuse(ErrorCode::dev_memory, {"the size ", size, " exceeds the address space"});
    void* memory = nullptr;
    detail::check_cuda(cudaMalloc(&memory, static_cast<std::size_t>(size) * sizeof(T)), "allocate device memory");
    buffer.data_ = static_cast<T*>(memory);
    buffer.size_ = size;
    return buffer;
  }

  CudaBuffer(CudaBuffer&& other) noexcept { swap(other); }
  CudaBuffer& operator=(CudaBuffer&& other) noexcept {
    CudaBuffer(std::move(other)).swap(*this);
    return *this;
  }
  ~CudaBuffer() { (void)cudaFree(data_); }  // waits for kernels that may still use it

  [[nodiscard]] T* data() { return data_; }
  [[nodiscard]] const T* data() const { return data_; }
  [[nodiscard]] Index size() const { return size_; }
  [[nodiscard]] DeviceView<T> view() { return {data_, size_}; }
  [[nodiscard]] DeviceView<const T> view() const { return {data_, size_}; }
  [[nodiscard]] DeviceView<T, 2> view(Index rows, Index cols) {
    assert(rows * cols <= size_);
    return {data_, rows, cols};
  }
  [[nodiscard]] DeviceView<const T, 2> view(Index rows, Index cols) const {
    assert(rows * cols <= size_);
    return {data_, rows, cols};
  }

  void swap(CudaBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

 private:
  T* data_ = nullptr;
  Index size_ = 0;
};

/// The memory of a GPU, as stores of weights name it.
struct CudaMemory {
  template <class T>
  using Buffer = CudaBuffer<T>;
};

}  // namespace v1
}  // namespace guild
