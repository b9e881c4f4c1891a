// Central differences in double against a module's backward: every weight and every input, element by element.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/device/cpu.hpp>
#include <guild/modules/pass.hpp>
#include <guild/training/allocate.hpp>

namespace guild_test {

using guild::Index;

/// A ragged batch of whole sequences, and what a pass over it needs.
class RaggedPass {
 public:
  RaggedPass(guild::Cpu& device, std::vector<Index> lengths, std::uint64_t seed, std::int32_t vocab)
      : pass{.device = device} {
    guild::Random random(seed, 77);
    offsets_.push_back(0);
    for (const Index length : lengths) {
      chunks_.push_back({static_cast<int>(chunks_.size()), offsets_.back(), length, 0});
      for (Index i = 0; i < length; ++i) {
        positions_.push_back(static_cast<std::int32_t>(i));
        tokens_.push_back(static_cast<std::int32_t>(random.uniform() * vocab));
      }
      offsets_.push_back(offsets_.back() + length);
    }
    pass.batch = {{tokens_.data(), tokens()}, {positions_.data(), tokens()}, chunks_};
    pass.sequence_offsets = offsets_;
  }
  RaggedPass(const RaggedPass&) = delete;
  RaggedPass& operator=(const RaggedPass&) = delete;

  [[nodiscard]] Index tokens() const { return static_cast<Index>(tokens_.size()); }
  guild::Pass<guild::Cpu> pass;

 private:
  std::vector<std::int32_t> tokens_, positions_;
  std::vector<guild::Chunk> chunks_;
  std::vector<Index> offsets_;
};

inline double normal(guild::Random& random) {
  return std::sqrt(-2.0 * std::log(1.0 - random.uniform())) * std::cos(6.283185307179586 * random.uniform());
}

/// Fills a tensor that visit walks: matrices normal / sqrt(inputs) * gain, vectors near 1, state small.
struct FillRandom {
  guild::Random* random;
  double gain = 1.0;
  template <class T>
  void operator()(const guild::Path&, const guild::MatrixShape& shape, guild::DenseMatrix<T>& tensor) const {
    for (T& value : tensor.data.view())
      value = static_cast<T>(gain * normal(*random) / std::sqrt(static_cast<double>(shape.cols)));
  }
  template <class T>
  void operator()(const guild::Path&, const guild::StackShape& shape, guild::DenseStack<T>& tensor) const {
    for (T& value : tensor.data.view())
      value = static_cast<T>(gain * normal(*random) / std::sqrt(static_cast<double>(shape.cols)));
  }
  template <class T>
  void operator()(const guild::Path&, const guild::VectorShape& shape, guild::DenseVector<T>& tensor) const {
    if (shape.role == guild::TensorRole::table) {  // of four experts
      for (Index i = 0; i < shape.size; ++i) tensor.data[i] = static_cast<T>((i + i / 5) % 4);
      return;
    }
    const bool state = shape.role == guild::TensorRole::state;
    for (T& value : tensor.data.view()) value = static_cast<T>((state ? 0.0 : 1.0) + 0.2 * normal(*random));
  }
};

/// One quantity that a loss depends on, with the gradient that backward gave for it.
struct Differentiated {
  std::string name;
  double* value;
  const double* gradient;
  Index count;
};

/// Collects the trained tensors of weights and gradients, side by side.
struct CollectDifferentiated {
  std::vector<Differentiated>* list;
  template <class Shape>
  void operator()(const guild::Path& path, const Shape& shape, guild::DenseMatrix<double>& weight,
                  guild::DenseMatrix<double>& gradient) const {
    if (shape.role == guild::TensorRole::parameter)
      list->push_back({path.str(), weight.data.data(), gradient.data.data(), weight.data.size()});
  }
  /// Every expert is looked at by itself.
  void operator()(const guild::Path& path, const guild::StackShape& shape, guild::DenseStack<double>& weight,
                  guild::DenseStack<double>& gradient) const {
    for (Index e = 0; e < shape.count; ++e)
      guild::with_matrix_path(path, e, [&](const guild::Path& matrix) {
        list->push_back(
            {matrix.str(), weight.matrices()[e].data, gradient.matrices()[e].data, shape.rows * shape.cols});
      });
  }
  template <class Shape>
  void operator()(const guild::Path& path, const Shape& shape, guild::DenseVector<double>& weight,
                  guild::DenseVector<double>& gradient) const {
    if (shape.role == guild::TensorRole::parameter)
      list->push_back({path.str(), weight.data.data(), gradient.data.data(), weight.data.size()});
  }
};

struct GradientCheckOptions {
  double step = 1e-6;
  double absolute = 1e-7;
  double relative = 1e-5;
  Index most = 400;  ///< elements of a tensor that are looked at, evenly spread
};

/// Compares each gradient with (loss(value + step) - loss(value - step)) / (2 step).
template <class Loss>
void expect_gradients(const std::vector<Differentiated>& list, const Loss& loss, GradientCheckOptions options = {}) {
  for (const Differentiated& one : list) {
    ASSERT_GT(one.count, 0) << one.name;
    const Index stride = (one.count + options.most - 1) / options.most;
    int wrong = 0;
    double largest = 0.0;
    for (Index i = 0; i < one.count && wrong < 3; i += stride) {
      const double before = one.value[i];
      one.value[i] = before + options.step;
      const double above = loss();
      one.value[i] = before - options.step;
      const double below = loss();
      one.value[i] = before;
      const double numeric = (above - below) / (2.0 * options.step);
      largest = std::max(largest, std::abs(numeric));
      if (!(std::abs(numeric - one.gradient[i]) <= options.absolute + options.relative * std::abs(numeric))) {
        ++wrong;
        ADD_FAILURE() << one.name << "[" << i << "]: backward gives " << one.gradient[i] << ", differences give "
                      << numeric;
      }
    }
    // An expert that serves nobody has no gradient, which the comparison above has seen.
    const bool may_be_unused = one.name.find("experts.") != std::string::npos;
    EXPECT_TRUE(may_be_unused || largest > 0.0) << one.name << ": the loss does not depend on it; nothing was checked";
  }
}

/// The generic check. `Case` names a module and how it is called:
///   using Module; static constexpr Index inputs, outputs;  // columns of x and y
///   template <class Real> using Saved;
///   static void forward(pass, weights, x, y, saved);
///   static void backward(pass, weights, x, saved, dy, dx, gradients);
/// The loss is the sum of y times fixed random numbers; dx is checked too where `inputs` > 0.
template <class Case>
void gradient_check(const std::vector<Index>& lengths, std::uint64_t seed, GradientCheckOptions options = {}) {
  using Module = typename Case::Module;
  using Weights = typename Module::template Weights<guild::Dense<double>>;
  guild::Cpu device({.threads = 1});
  guild::Random random(seed);
  RaggedPass ragged(device, lengths, seed, Case::vocab);
  const Index tokens = ragged.tokens();

  Weights weights, gradients;
  guild::allocate<Module>(weights);
  guild::allocate<Module>(gradients);
  Module::visit(FillRandom{&random}, guild::Path{}, weights);
  guild::Buffer<double> x(tokens * Case::inputs), dx(tokens * Case::inputs), y(tokens * Case::outputs),
      dy(tokens * Case::outputs);
  for (double& value : x.view()) value = normal(random);
  for (double& value : dy.view()) value = normal(random);
  for (double& value : dx.view()) value = 1e30;  // backward overwrites it

  guild::Arena arena;
  const auto loss = [&] {
    guild::Arena::Frame memory(arena);
    const auto pass = ragged.pass.with(memory);
    typename Case::template Saved<double> saved;
    Case::forward(pass, weights, x.view(tokens, Case::inputs), y.view(tokens, Case::outputs), saved);
    double sum = 0.0;
    for (Index i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum + Case::extra_loss(pass, weights, saved);
  };
  {
    guild::Arena::Frame memory(arena);
    const auto pass = ragged.pass.with(memory);
    typename Case::template Saved<double> saved;
    Case::forward(pass, weights, x.view(tokens, Case::inputs), y.view(tokens, Case::outputs), saved);
    Case::backward(pass, weights, x.view(tokens, Case::inputs), saved, dy.view(tokens, Case::outputs),
                   dx.view(tokens, Case::inputs), gradients);
  }
  std::vector<Differentiated> list;
  Module::visit(CollectDifferentiated{&list}, guild::Path{}, weights, gradients);
  if (Case::inputs > 0) list.push_back({"x", x.data(), dx.data(), x.size()});
  expect_gradients(list, loss, options);
}

}  // namespace guild_test
