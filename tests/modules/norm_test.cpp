#include <guild/cpu.hpp>
#include <guild/modules/norm.hpp>

#include <gtest/gtest.h>

#include <cmath>

#include <guild/core/random.hpp>
#include <guild/device/cpu.hpp>

namespace norm_test {

using namespace guild;
using Norm = RmsNorm<23>;
using Weights = Norm::Weights<Dense<double>>;

static_assert(Module<Norm> && TrainableModule<Norm>);

struct Case {
  Cpu device{{.threads = 2}};
  Random random{5};
  Buffer<double> x{7 * 23}, upstream{7 * 23}, y{7 * 23};
  Weights weights{{Buffer<double>(23)}};
  static constexpr double epsilon = 1e-3;

  Case() {
    for (auto* buffer : {&x, &upstream, &weights.weight.data})
      for (double& value : buffer->view()) value = random.uniform() * 2.0 - 1.0;
  }
  /// A scalar of the output: sum(upstream * y).
  double loss() {
    rms_norm(device, std::as_const(weights.weight).view(), std::as_const(x).view(7, 23), y.view(7, 23), epsilon);
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i) sum += upstream[i] * y[i];
    return sum;
  }
  double central_difference(double& parameter) {
    const double kept = parameter, step = 1e-6;
    parameter = kept + step;
    const double above = loss();
    parameter = kept - step;
    const double below = loss();
    parameter = kept;
    return (above - below) / (2 * step);
  }
};

TEST(RmsNorm, BackwardEqualsCentralDifferencesInDouble) {
  Case c;
  Weights gradients{{Buffer<double>(23)}};
  Buffer<double> dx(7 * 23);
  Norm::backward(c.device, c.weights, std::as_const(c.x).view(7, 23),
                 std::as_const(c.upstream).view(7, 23), dx.view(7, 23), gradients, Case::epsilon);
  for (Index i = 0; i < c.x.size(); ++i) EXPECT_NEAR(dx[i], c.central_difference(c.x[i]), 1e-8) << "x " << i;
  for (Index i = 0; i < 23; ++i)
    EXPECT_NEAR(gradients.weight.data[i], c.central_difference(c.weights.weight.data[i]), 1e-8) << "weight " << i;
}

TEST(RmsNorm, BackwardAddsToWeightGradientsAndMayOverwriteTheUpstreamGradient) {
  Case c;
  Weights once{{Buffer<double>(23)}}, twice{{Buffer<double>(23)}};
  Buffer<double> dx(7 * 23);
  const auto x = std::as_const(c.x).view(7, 23);
  const auto dy = std::as_const(c.upstream).view(7, 23);
  Norm::backward(c.device, c.weights, x, dy, dx.view(7, 23), once, Case::epsilon);
  Norm::backward(c.device, c.weights, x, dy, dx.view(7, 23), twice, Case::epsilon);
  Norm::backward(c.device, c.weights, x, dy, c.upstream.view(7, 23), twice, Case::epsilon);
  for (Index i = 0; i < 23; ++i) EXPECT_DOUBLE_EQ(twice.weight.data[i], 2 * once.weight.data[i]);
  for (Index i = 0; i < dx.size(); ++i) EXPECT_DOUBLE_EQ(c.upstream[i], dx[i]);
}

TEST(RmsNorm, VisitWalksWeightsAndGradientsSideBySide) {
  Weights weights{{Buffer<double>(23)}};
  Norm::Weights<Dense<float>> moments{{Buffer<float>(23)}};
  int calls = 0;
  Norm::visit([&](const Path& path, VectorShape shape, DenseVector<double>& a, DenseVector<float>& b) {
    EXPECT_EQ(path.str(), "norm.weight");
    EXPECT_EQ(shape.size, a.view().size);
    EXPECT_EQ(shape.size, b.view().size);
    ++calls;
  }, Path() / "norm", weights, moments);
  EXPECT_EQ(calls, 1);
}

}  // namespace norm_test
