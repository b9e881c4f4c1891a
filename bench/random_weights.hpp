// Weights of a model type filled with numbers like those of a trained one: N(0, 0.02), tiled from one pool.
#pragma once

#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/core/weight.hpp>
#include <guild/device/cpu.hpp>
#include <guild/modules/module.hpp>
#include <guild/training/allocate.hpp>

namespace guild_bench {

/// Numbers uniform in (-amount, amount).
inline void fill_uniform(guild::View<float> values, double amount, std::uint64_t seed) {
  guild::Random random(seed);
  for (float& value : values) value = static_cast<float>(amount * (2.0 * random.uniform() - 1.0));
}

/// A visitor that allocates every tensor of Dense<float>: matrices of deviation 0.02, vectors 0.
struct FillDense {
  void operator()(const guild::Path& path, const auto& shape, auto& tensor) const {
    guild::Allocate{}(path, shape, tensor);
    if constexpr (requires { shape.cols; }) fill_uniform(tensor.data.view(), 0.035, 3);
  }
};

/// A visitor that allocates every tensor: matrices of `hidden x outputs` as `type` (embedding, head and router stay
/// bf16 with fp8, as published), norms 1, selection biases 0.
class FillRandom {
 public:
  FillRandom(guild::Cpu& device, guild::DType type) : device_(device), type_(type), pool_(pool_size) {
    guild::Random random(1);
    for (float& value : pool_) {
      const double radius = std::sqrt(-2.0 * std::log(1.0 - random.uniform()));
      value = static_cast<float>(0.02 * radius * std::cos(2.0 * std::numbers::pi * random.uniform()));
    }
  }

  void operator()(const guild::Path& path, guild::MatrixShape shape, guild::StoredMatrix& matrix) {
    const bool plain = is(path, "embedding") || is(path, "head") || is(path, "router");
    matrix.format = plain && type_ == guild::DType::f8_e4m3 ? guild::DType::bf16 : type_;
    matrix.rows = shape.rows;
    matrix.cols = shape.cols;
    matrix.data = guild::Buffer<std::byte>::uninitialized(shape.rows * shape.cols * bits(matrix.format.element) / 8);
    if (matrix.format.element == guild::DType::f8_e4m3) {
      matrix.scales = guild::Buffer<std::byte>(4 * (shape.rows + 127) / 128 * ((shape.cols + 127) / 128));
      for (float& scale : matrix.scales_as<float>()) scale = 0.1f / 448.0f;
    }
    switch (matrix.format.element) {
      case guild::DType::f32:
        return tile<float>(matrix, 1.0f);
      case guild::DType::bf16:
        return tile<guild::bf16>(matrix, 1.0f);
      case guild::DType::f16:
        return tile<guild::f16>(matrix, 1.0f);
      default:
        return tile<guild::fp8_e4m3>(matrix, 448.0f / 0.1f);
    }
  }
  void operator()(const guild::Path& path, guild::StackShape shape, guild::StoredStack& stack) {
    std::vector<guild::StoredMatrix> matrices(static_cast<std::size_t>(shape.count));
    for (guild::StoredMatrix& matrix : matrices) (*this)(path, shape.matrix(), matrix);
    stack = guild::StoredStack(std::move(matrices));
  }
  void operator()(const guild::Path& path, guild::VectorShape shape, guild::StoredVector& vector) {
    vector.data = guild::Buffer<float>(shape.size);
    if (path.name() == "weight")
      for (float& value : vector.data.view()) value = 1.0f;
  }

 private:
  static constexpr std::size_t pool_size = (std::size_t{1} << 22) + 4099;  // odd, so that no two rows repeat in step

  static bool is(const guild::Path& path, std::string_view name) {
    return path.parent() != nullptr && path.parent()->name() == name;
  }
  template <class T>
  void tile(guild::StoredMatrix& matrix, float factor) {
    std::vector<T> pool(pool_.size());
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = static_cast<T>(pool_[i] * factor);
    T* out = reinterpret_cast<T*>(matrix.data.data());
    const guild::Index count = matrix.rows * matrix.cols, piece = 1 << 18;
    const auto start = static_cast<guild::Index>(next_ += 1000003);
    device_.run((count + piece - 1) / piece, [&](guild::Index chunk, int) {
      for (guild::Index i = chunk * piece; i < std::min(count, (chunk + 1) * piece);) {
        const auto from = static_cast<std::size_t>(start + i) % pool.size();
        const guild::Index n =
            std::min({count - i, static_cast<guild::Index>(pool.size() - from), (chunk + 1) * piece - i});
        std::memcpy(out + i, pool.data() + from, static_cast<std::size_t>(n) * sizeof(T));
        i += n;
      }
    });
  }

  guild::Cpu& device_;
  guild::DType type_;
  std::vector<float> pool_;
  std::size_t next_ = 0;
};

}  // namespace guild_bench
