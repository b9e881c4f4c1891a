// Scratch memory with stack discipline: after warm-up nothing is allocated.
#pragma once

#include <algorithm>
#include <vector>

#include <guild/core/buffer.hpp>

namespace guild {
inline namespace v1 {

/// A bump allocator. Memory is taken inside a `Frame` and given back all at once when the frame ends. While the
/// arena grows it chains slabs; when the outermost frame ends the slabs become one, larger than the most that was
/// taken at a time: twice as large while that is little, by an eighth when it is much. So needs that grow step by step
/// do not allocate in every step. `Slab` is an array of bytes in the memory of a device, such as Buffer<std::byte>.
template <class Slab>
class BasicArena {
 public:
  class Frame {
   public:
    explicit Frame(BasicArena& arena) : arena_(&arena), slab_(arena.slab_), used_(arena.used_), live_(arena.live_) {
      ++arena.depth_;
    }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() { arena_->rewind(slab_, used_, live_); }

    /// A frame inside this one, for what is needed no longer than it.
    [[nodiscard]] Frame nested() const { return Frame(*arena_); }

    /// `count` elements, not set. Aligned to 64 bytes, valid until this frame ends.
    template <class T>
    [[nodiscard]] DeviceView<T> take(Index count) {
      return {static_cast<T*>(arena_->take(count * Index{sizeof(T)})), count};
    }
    template <class T>
    [[nodiscard]] DeviceView<T, 2> take(Index rows, Index cols) {
      return {static_cast<T*>(arena_->take(rows * cols * Index{sizeof(T)})), rows, cols};
    }

   private:
    BasicArena* arena_;
    std::size_t slab_;
    Index used_, live_;
  };

  [[nodiscard]] Index capacity() const {
    Index sum = 0;
    for (const auto& slab : slabs_) sum += slab.size();
    return sum;
  }
  /// Bytes that the open frames hold, each piece rounded up to 64, and the most that frames ever held at a time.
  [[nodiscard]] Index taken() const { return live_; }
  [[nodiscard]] Index most_taken() const { return most_; }

 private:
  void* take(Index bytes) {
    bytes = (bytes + 63) / 64 * 64;
    while (slab_ < slabs_.size() && used_ + bytes > slabs_[slab_].size()) {
      ++slab_;
      used_ = 0;
    }
    if (slab_ == slabs_.size()) {
      slabs_.push_back(Slab::uninitialized(std::max({bytes, capacity(), Index{1} << 16})));
      used_ = 0;
    }
    void* memory = slabs_[slab_].data() + used_;
    used_ += bytes;
    live_ += bytes;
    most_ = std::max(most_, live_);
    return memory;
  }
  void rewind(std::size_t slab, Index used, Index live) noexcept {
    slab_ = slab;
    used_ = used;
    live_ = live;
    if (--depth_ == 0 && slabs_.size() > 1) {
      slabs_.clear();
      slab_ = 0;
      used_ = 0;
      try {
        constexpr Index little = Index{32} << 20;
        slabs_.push_back(Slab::uninitialized(most_ + std::max(most_ / 8, std::min(most_, little))));
      } catch (...) {}  // grows again when needed
    }
  }

  std::vector<Slab> slabs_;
  std::size_t slab_ = 0;
  Index used_ = 0;  // of the slab at hand
  Index live_ = 0;  // of all slabs, without the ends where something did not fit
  Index most_ = 0;
  int depth_ = 0;
};

/// Scratch in host memory.
using Arena = BasicArena<Buffer<std::byte>>;

}  // namespace v1
}  // namespace guild
