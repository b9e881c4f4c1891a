// Owned, aligned memory; or a share of memory that somebody else keeps alive (a mapped file).
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// An array of trivially copyable elements, aligned to 64 bytes (large ones to huge pages). Move-only.
template <class T>
class Buffer {
 public:
  Buffer() = default;

  /// `size` zeroed elements. Throws Error dev_memory when the host has not enough memory.
  explicit Buffer(Index size) : Buffer(uninitialized(size)) {
    if (size > 0) std::memset(static_cast<void*>(data_), 0, static_cast<std::size_t>(size) * sizeof(T));
  }

  /// `size` elements whose values are not set yet.
  static Buffer uninitialized(Index size) {
    Buffer buffer;
    if (size == 0) return buffer;
    constexpr std::size_t huge_page = std::size_t{2} << 20;
    const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
    const std::size_t alignment = bytes >= 2 * huge_page ? huge_page : 64;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    void* memory = size < 0 || static_cast<std::size_t>(size) > SIZE_MAX / sizeof(T) / 2
                       ? nullptr
                       : std::aligned_alloc(alignment, rounded);
    if (memory == nullptr) {
      detail::refuse(ErrorCode::dev_memory,
                     {"the host has no ", bytes,
                      " bytes of free memory; use a smaller model or context, or map the weights from the file"});
    }
#if defined(MADV_HUGEPAGE)
    if (alignment == huge_page) madvise(memory, rounded, MADV_HUGEPAGE);  // an advice: failure changes nothing
#endif
    buffer.owner_ = std::shared_ptr<void>(memory, [](void* p) { std::free(p); });
    buffer.data_ = static_cast<T*>(memory);
    buffer.size_ = size;
    return buffer;
  }

  /// A read-only share of `owner`'s memory: nothing is copied, and the memory lives as long as this buffer.
  static Buffer share(std::shared_ptr<const void> owner, const T* data, Index size) {
    Buffer buffer;
    buffer.owner_ = std::const_pointer_cast<void>(std::move(owner));
    buffer.data_ = const_cast<T*>(data);  // only reachable through the const accessors: see is_shared
    buffer.size_ = size;
    buffer.shared_ = true;
    return buffer;
  }

  /// The elements [begin, begin + count): the same memory, which lives as long as either.
  [[nodiscard]] Buffer part(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= size_);
    Buffer buffer;
    buffer.owner_ = owner_;
    buffer.data_ = data_ + begin;
    buffer.size_ = count;
    buffer.shared_ = shared_;
    return buffer;
  }

  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  [[gnu::noinline]] ~Buffer() {}  // weights have many

  [[nodiscard]] T* data() { return data_; }
  [[nodiscard]] const T* data() const { return data_; }
  [[nodiscard]] Index size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] bool is_shared() const { return shared_; }  ///< true: must not be written
  [[nodiscard]] View<T> view() { return {data_, size_}; }
  [[nodiscard]] View<const T> view() const { return {data_, size_}; }
  [[nodiscard]] View<T, 2> view(Index rows, Index cols) {
    assert(rows * cols <= size_);
    return {data_, rows, cols};
  }
  [[nodiscard]] View<const T, 2> view(Index rows, Index cols) const {
    assert(rows * cols <= size_);
    return {data_, rows, cols};
  }
  T& operator[](Index i) {
    assert(i >= 0 && i < size_);
    return data_[i];
  }
  const T& operator[](Index i) const {
    assert(i >= 0 && i < size_);
    return data_[i];
  }

  void swap(Buffer& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(shared_, other.shared_);
  }

 private:
  std::shared_ptr<void> owner_;
  T* data_ = nullptr;
  Index size_ = 0;
  bool shared_ = false;
};

/// Memory that the host computes in. Other kinds of memory bring a Buffer of their own, such as CudaMemory.
struct HostMemory {
  template <class T>
  using Buffer = guild::Buffer<T>;
};

/// A device whose views the host may read. Operations that look at values between kernels say so with a static_assert;
/// for another device its own overload is chosen where its headers are included, and nothing is read by mistake.
template <class Device>
inline constexpr bool computes_in_host_memory = std::is_same_v<typename Device::Memory, HostMemory>;

/// Memory of a device for the host to read and write: free where it is the host's, refused where it is not.
template <class Device, class T, int Rank>
[[nodiscard]] View<T, Rank> host_view(const Device&, DeviceView<T, Rank> view) {
  static_assert(computes_in_host_memory<Device>,
                "host_view: the host cannot read this device's memory; copy what it shall read");
  return view;
}

}  // namespace v1
}  // namespace guild
