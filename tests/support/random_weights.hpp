// Fills the weights of a model with reproducible random numbers, in any stored type; and a small model to fill.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/core/weight.hpp>
#include <guild/device/cpu.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/hash_router.hpp>
#include <guild/modules/module.hpp>

namespace guild_test {

using guild::Index;

/// A visitor. Each tensor draws from a stream named after its path, so its numbers depend on nothing else: models that
/// differ in one part share the rest, and two stored types hold the same numbers, each rounded in its way.
/// Matrices have about unit gain; norm weights are near 1; selection biases near 0.
class RandomWeights {
 public:
  explicit RandomWeights(guild::DType type = guild::DType::f32, std::uint64_t seed = 1) : type_(type), seed_(seed) {}

  void operator()(const guild::Path& path, guild::MatrixShape shape, guild::StoredMatrix& matrix) const {
    // As published: the embedding, heads, routers and the prediction layer's projection are not quantised.
    const std::string_view owner = path.parent()->name();
    const bool plain = owner == "embedding" || owner == "head" || owner == "router" || owner.starts_with("mtp_");
    matrix.format = type_ == guild::DType::f8_e4m3 && plain ? guild::DType::bf16 : type_;
    matrix.rows = shape.rows;
    matrix.cols = shape.cols;
    matrix.data = guild::Buffer<std::byte>(shape.rows * shape.cols * guild::bits(matrix.format.element) / 8);
    guild::Random random(seed_, stream(path));
    const double width = std::sqrt(3.0 / (owner.ends_with("embedding") ? 1.0 : static_cast<double>(shape.cols)));
    guild::Buffer<float> values(shape.rows * shape.cols);
    for (float& value : values.view()) value = static_cast<float>(width * (2.0 * random.uniform() - 1.0));
    store(values, matrix);
  }
  /// The same numbers as in matrices that are walked one by one; each has memory of its own.
  void operator()(const guild::Path& path, guild::StackShape shape, guild::StoredStack& stack) const {
    std::vector<guild::StoredMatrix> matrices(static_cast<std::size_t>(shape.count));
    for (Index e = 0; e < shape.count; ++e)
      guild::with_matrix_path(path, e, [&](const guild::Path& matrix) {
        (*this)(matrix, shape.matrix(), matrices[static_cast<std::size_t>(e)]);
      });
    stack = guild::StoredStack(std::move(matrices));
  }
  void operator()(const guild::Path& path, guild::VectorShape shape, guild::StoredVector& vector) const {
    guild::Random random(seed_, stream(path));
    const bool bias = path.name() == "selection_bias";
    vector.data = guild::Buffer<float>(shape.size);
    if (shape.role == guild::TensorRole::table) {  // of four experts
      for (Index i = 0; i < shape.size; ++i) vector.data[i] = static_cast<float>((i + i / 5) % 4);
      return;
    }
    for (float& value : vector.data.view())
      value = static_cast<float>((bias ? 0.0 : 1.0) + 0.2 * (2.0 * random.uniform() - 1.0));
  }

 private:
  static std::uint64_t stream(const guild::Path& path) {
    std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
    for (const char c : path.str()) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return hash;
  }
  template <class Element>
  static void round_to(const guild::Buffer<float>& values, guild::StoredMatrix& matrix) {
    for (Index i = 0; i < values.size(); ++i) {
      const auto element = static_cast<Element>(values[i]);
      std::memcpy(matrix.data.data() + i * Index{sizeof element}, &element, sizeof element);
    }
  }
  static void store(const guild::Buffer<float>& values, guild::StoredMatrix& matrix) {
    switch (matrix.format.element) {
      case guild::DType::bf16: return round_to<guild::bf16>(values, matrix);
      case guild::DType::f16: return round_to<guild::f16>(values, matrix);
      case guild::DType::f8_e4m3: return quantise(values, matrix);
      default: return round_to<float>(values, matrix);
    }
  }
  static void quantise(const guild::Buffer<float>& values, guild::StoredMatrix& matrix) {
    constexpr Index block = guild::scale_block;
    const Index across = (matrix.cols + block - 1) / block, down = (matrix.rows + block - 1) / block;
    matrix.scales = guild::Buffer<std::byte>(down * across * 4);
    const auto scales = matrix.scales_as<float>();
    for (Index r = 0; r < matrix.rows; ++r)
      for (Index c = 0; c < matrix.cols; ++c) {
        float& scale = scales[r / block * across + c / block];
        scale = std::max(scale, std::fabs(values[r * matrix.cols + c]) / 448.0f);
      }
    for (Index r = 0; r < matrix.rows; ++r)
      for (Index c = 0; c < matrix.cols; ++c) {
        const Index i = r * matrix.cols + c;
        const guild::fp8_e4m3 element(values[i] / scales[r / block * across + c / block]);
        std::memcpy(matrix.data.data() + i, &element, 1);
      }
  }

  guild::DType type_;
  std::uint64_t seed_;
};

/// The weights of a whole model, without or with its prediction layers.
template <class Model>
typename Model::template Weights<guild::Published> random_model(guild::DType type = guild::DType::f32,
                                                                std::uint64_t seed = 1, int mtp_layers = 0) {
  typename Model::template Weights<guild::Published> weights;
  weights.mtp.resize(static_cast<std::size_t>(mtp_layers));
  Model::visit(RandomWeights(type, seed), guild::Path(), weights);
  return weights;
}

/// The weights of one module.
template <class Module>
typename Module::template Weights<guild::Published> random_weights(guild::DType type = guild::DType::f32,
                                                                   std::uint64_t seed = 1) {
  typename Module::template Weights<guild::Published> weights;
  const guild::Path root;
  Module::visit(RandomWeights(type, seed), root / "module", weights);
  return weights;
}

/// Random numbers in [-1, 1).
inline guild::Buffer<float> random_values(Index size, std::uint64_t seed) {
  guild::Random random(seed, 0x76616c756573);
  guild::Buffer<float> values(size);
  for (float& value : values.view()) value = static_cast<float>(2.0 * random.uniform() - 1.0);
  return values;
}

/// The numbers of a small model with every part of DeepSeek-R1. Heads and latent_up cross the blocks of fp8 scales.
struct SmallSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {
      .vocab = 97, .hidden = 48, .layers = 3, .mtp_layers = 1, .context = 192};
  static constexpr guild::MlaConfig attention = {
      .heads = 4, .query_rank = 40, .latent_rank = 32, .nope_dim = 24, .rope_dim = 8, .value_dim = 20};
  static constexpr guild::DenseConfig dense = {.hidden = 272, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 3, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 28, .shared = 1};
};

/// A part's config after `change(part)`.
template <class Part, class Change>
constexpr Part with(Part part, Change change) {
  change(part);
  return part;
}

struct TinySpec : SmallSpec {
  using CacheElement = float;
};
/// A layer whose experts come from a table of token ids, before one that chooses.
struct HashSpec : TinySpec {
  template <class S>
  using HashLayer = guild::Block<S, guild::Mla<S>, guild::Moe<S, guild::HashRouter<S>>>;
  template <class S>
  using Layers = guild::Stack<guild::Segment<typename S::template DenseLayer<S>, 1>, guild::Segment<HashLayer<S>, 1>,
                              guild::Segment<typename S::template ExpertLayer<S>, 1>>;
};
struct TinyBf16Spec : SmallSpec {  // the cache in bf16
};

}  // namespace guild_test
