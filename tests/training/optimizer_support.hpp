// A small model of every kind of tensor, and the frozen results of torch for it (tests/fixtures/optimizer).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/device/cpu.hpp>
#include <guild/io/checkpoint.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/training/allocate.hpp>

#include "../core/code_of.hpp"

namespace guild_test {

using guild::Index;
using guild::Path;
using guild::TensorRole;
using guild::TensorShape;
using Buffer = guild::Buffer<float>;

/// Tensors of all shapes and roles: matrices of hidden layers, embedding, head, a norm, a bias and a shared copy.
struct Net {
  using Wide = guild::Linear<6, 10>;
  using Tall = guild::Linear<12, 5>;
  using Square = guild::Linear<9, 9>;
  using Large = guild::Linear<20, 33>;
  using Embedding = guild::Linear<11, 6>;
  using Head = guild::Linear<7, 10>;
  using Norm = guild::RmsNorm<10>;

  template <class Store>
  struct Weights {
    typename Embedding::template Weights<Store> embedding;
    typename Wide::template Weights<Store> wide;
    typename Tall::template Weights<Store> tall;
    typename Square::template Weights<Store> square;
    typename Large::template Weights<Store> large;
    typename Norm::template Weights<Store> norm;
    typename Store::Vector bias;
    typename Store::Matrix copy;
    typename Head::template Weights<Store> head;
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Embedding::visit(visitor, path / "embedding", weights.embedding...);
    Wide::visit(visitor, path / "wide", weights.wide...);
    Tall::visit(visitor, path / "tall", weights.tall...);
    Square::visit(visitor, path / "square", weights.square...);
    Large::visit(visitor, path / "large", weights.large...);
    Norm::visit(visitor, path / "norm", weights.norm...);
    visitor(path / "bias", guild::VectorShape{3, TensorRole::state}, weights.bias...);
    visitor(path / "copy", guild::MatrixShape{2, 3, TensorRole::shared}, weights.copy...);
    Head::visit(visitor, path / "head", weights.head...);
  }
};
using NetWeights = Net::Weights<guild::Dense<float>>;

/// The first step of a path: "wide" of "wide.weight".
inline std::string first_name(const Path& path) { return path.str().substr(0, path.str().find('.')); }

/// Weights with memory for all tensors, or gradients with memory for the trained ones; all elements `value`.
inline NetWeights filled_net(float value) {
  NetWeights net;
  guild::allocate<Net>(net);
  guild::for_each_tensor<Net>(
      [&](const Path&, const TensorShape&, TensorRole, Buffer& data) { std::fill_n(data.data(), data.size(), value); },
      net);
  return net;
}

/// Every trained tensor filled with numbers in [-1, 1) that depend on `seed`.
template <class Model, class Weights>
void fill_random(Weights& weights, std::uint64_t seed) {
  guild::Random random(seed);
  guild::for_each_parameter<Model>(
      [&](const Path&, const TensorShape&, Buffer& data) {
        for (float& value : data.view()) value = static_cast<float>(2.0 * random.uniform() - 1.0);
      },
      weights);
}

/// All elements of all tensors in the order of visit.
template <class Model, class Weights>
std::vector<float> elements(const Weights& weights) {
  std::vector<float> all;
  guild::for_each_tensor<Model>(
      [&](const Path&, const TensorShape&, TensorRole, const Buffer& data) {
        all.insert(all.end(), data.data(), data.data() + data.size());
      },
      weights);
  return all;
}
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// The frozen tensors.
class OptimizerFixture {
 public:
  static constexpr Index steps = 20;

  [[nodiscard]] std::vector<float> read(const std::string& name) const {
    const guild::TensorInfo* info = file_.find(name);
    if (info == nullptr || (info->dtype != guild::DType::f32 && info->dtype != guild::DType::f64)) {
      ADD_FAILURE() << "the fixture has no " << name;
      return {};
    }
    std::vector<float> values(info->bytes / sizeof(float));
    file_.read(*info, values.data());
    return values;
  }
  /// Copies `prefix`NAME of the fixture to each trained tensor.
  void load(const std::string& prefix, NetWeights& net) const {
    guild::for_each_parameter<Net>(
        [&](const Path& path, const TensorShape& shape, Buffer& data) {
          const std::vector<float> values = read(prefix + first_name(path));
          ASSERT_EQ(static_cast<Index>(values.size()), shape.size());
          std::copy(values.begin(), values.end(), data.data());
        },
        net);
  }
  /// The largest difference of any element from `name`, times `scale`.
  [[nodiscard]] double error(guild::View<const float> found, const std::string& name, double scale = 1.0) const {
    const std::vector<float> expected = read(name);
    if (static_cast<Index>(expected.size()) != found.size) return INFINITY;
    double worst = 0.0;
    for (Index i = 0; i < found.size; ++i) {
      const double difference = std::fabs(double(found[i]) * scale - double(expected[static_cast<std::size_t>(i)]));
      if (!(difference <= worst)) worst = difference;
    }
    return worst;
  }

 private:
  guild::Checkpoint file_ = guild::Checkpoint::open(std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/optimizer");
};

}  // namespace guild_test
