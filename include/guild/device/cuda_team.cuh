// Teams of CUDA threads: a warp or a block. Reductions have a fixed order and need no library.
#pragma once

#include <guild/device/best.hpp>
#include <guild/device/team.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

namespace detail {

template <class Value>
__device__ Value shuffle_xor(const Value& value, int mask) {
  return __shfl_xor_sync(0xffffffffU, value, mask);
}
template <class Real>
__device__ Best<Real> shuffle_xor(const Best<Real>& value, int mask) {
  Best<Real> other;
  other.value = __shfl_xor_sync(0xffffffffU, value.value, mask);
  other.index = static_cast<Index>(__shfl_xor_sync(0xffffffffU, static_cast<long long>(value.index), mask));
  return other;
}

/// Folds the values of a warp in a butterfly: x + y and y + x have the same bits, so every lane ends with the same
/// value.
template <class Value, class Fold>
__device__ Value fold_warp(Value value, Fold fold) {
  for (int mask = 16; mask > 0; mask /= 2) fold(value, shuffle_xor(value, mask));
  return value;
}

struct AddTo {
  template <class Value>
  __device__ void operator()(Value& all, const Value& one) const {
    all += one;
  }
};
struct TakeBest {
  template <class Real>
  __device__ void operator()(Best<Real>& all, const Best<Real>& one) const {
    all.take(one.value, one.index);
  }
};

/// What F returns for an index. Return types are spelled out: nvcc's host pass sees no body to deduce them from.
template <class F>
using ResultOf = std::remove_cvref_t<std::invoke_result_t<F&, Index>>;

/// What warp and block teams have in common; `Self` brings rank, size, sync and fold.
template <class Self>
class CudaTeam {
 public:
  template <class F>
  __device__ void for_each(Index n, F&& f) const {
    for (Index i = self().rank(); i < n; i += self().size()) f(i);
  }
  template <class F>
  __device__ ResultOf<F> sum(Index n, F&& f) const {
    ResultOf<F> mine{};
    for (Index i = self().rank(); i < n; i += self().size()) mine += f(i);
    return self().fold(mine, AddTo{});
  }
  template <class F>
  __device__ ResultOf<F> max(Index n, F&& f) const {
    return best(n, f).value;
  }
  template <class F>
  __device__ Index argmax(Index n, F&& f) const {
    return best(n, f).index;
  }

 private:
  template <class F>
  __device__ Best<ResultOf<F>> best(Index n, F& f) const {
    Best<ResultOf<F>> mine;
    for (Index i = self().rank(); i < n; i += self().size()) mine.take(f(i), i);
    return self().fold(mine, TakeBest{});
  }
  __device__ const Self& self() const { return static_cast<const Self&>(*this); }
};

}  // namespace detail

/// The 32 threads of a warp. `sync` orders their memory accesses.
class WarpTeam : public detail::CudaTeam<WarpTeam> {
 public:
  [[nodiscard]] __device__ int rank() const { return static_cast<int>(threadIdx.x % 32U); }
  [[nodiscard]] __device__ int size() const { return 32; }
  __device__ void sync() const { __syncwarp(); }
  template <class Value, class Fold>
  __device__ Value fold(const Value& mine, Fold add) const {
    return detail::fold_warp(mine, add);
  }
};

/// The threads of a block, a multiple of 32 of them, at most 1024.
class BlockTeam : public detail::CudaTeam<BlockTeam> {
 public:
  /// Shared memory for reductions.
  struct Shared {
    struct alignas(16) Slot {
      unsigned char bytes[16];
    } slots[32];
  };

  __device__ explicit BlockTeam(Shared& shared) : shared_(&shared) {}
  [[nodiscard]] __device__ int rank() const { return static_cast<int>(threadIdx.x); }
  [[nodiscard]] __device__ int size() const { return static_cast<int>(blockDim.x); }
  __device__ void sync() const { __syncthreads(); }

  /// Warps first, then the warps' values in their order, by every thread alike.
  template <class Value, class Fold>
  __device__ Value fold(const Value& mine, Fold add) const {
    static_assert(sizeof(Value) <= sizeof(Shared::Slot) && std::is_trivially_copyable_v<Value>);
    const Value of_warp = detail::fold_warp(mine, add);
    if (rank() % 32 == 0) *reinterpret_cast<Value*>(shared_->slots[rank() / 32].bytes) = of_warp;
    __syncthreads();
    Value all{};
    for (int warp = 0; warp < size() / 32; ++warp)
      add(all, *reinterpret_cast<const Value*>(shared_->slots[warp].bytes));
    __syncthreads();
    return all;
  }

 private:
  Shared* shared_;
};
static_assert(Team<WarpTeam> && Team<BlockTeam>);

}  // namespace v1
}  // namespace guild
