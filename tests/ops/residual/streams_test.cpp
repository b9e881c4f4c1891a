#include <guild/ops/residual/streams.hpp>

#include <gtest/gtest.h>

#include <guild/cpu.hpp>
#include <guild/ops/residual/stream_weights.hpp>

#include "../gradient_check.hpp"

namespace residual_streams_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::Update;

/// Streams of T tokens, random, with row pitches of their own.
template <class Real, int N>
struct Case {
  static constexpr Index tokens = 3, dim = 21, count = (2 + N) * N;
  guild::Cpu device{{.threads = 2}};
  Matrix<Real> x{tokens, N*dim, N*dim + 3}, out{tokens, dim, dim + 1}, weights{tokens, count, count + 2},
      y{tokens, N*dim, N*dim + 1}, row{tokens, dim, dim + 2};
  Case() {
    std::mt19937 random(N);
    for (auto* one : {&x, &out, &weights}) one->fill_normal(random);
  }
  void spread() { guild::spread_streams<N>(device, weights.view(), x.view(), out.view(), y.view()); }
  void collapse() { guild::collapse_streams<N>(device, weights.view(), x.view(), row.view()); }
};

template <int N>
void expect_formulas() {
  SCOPED_TRACE(N);
  Case<float, N> at;
  at.spread();
  at.collapse();
  for (Index t = 0; t < at.tokens; ++t)
    for (Index i = 0; i < at.dim; ++i) {
      double read = 0;
      for (Index s = 0; s < N; ++s) {
        read += double(at.weights(t, s)) * double(at.x(t, s * at.dim + i));
        double written = double(at.weights(t, N + s)) * double(at.out(t, i));
        for (Index r = 0; r < N; ++r)
          written += double(at.weights(t, 2 * N + r * N + s)) * double(at.x(t, r * at.dim + i));
        ASSERT_NEAR(at.y(t, s * at.dim + i), written, 3e-6);
      }
      ASSERT_NEAR(at.row(t, i), read, 3e-6);
    }
  EXPECT_TRUE(at.y.padding_is_untouched() && at.row.padding_is_untouched());
  guild::repeat_streams<N>(at.device, at.row.view(), at.y.view());
  for (Index t = 0; t < at.tokens; ++t)
    for (Index i = 0; i < N * at.dim; ++i) ASSERT_EQ(at.y(t, i), at.row(t, i % at.dim));
  Matrix<float> sum(at.tokens, at.dim);
  guild::sum_streams<N>(at.device, at.y.view(), sum.view());
  for (Index t = 0; t < at.tokens; ++t)
    for (Index i = 0; i < at.dim; ++i) ASSERT_NEAR(sum(t, i), float(N) * at.row(t, i), 1e-5);
}
TEST(StreamOps, FollowTheirFormulasForAnyNumberOfStreams) {
  expect_formulas<1>();
  expect_formulas<2>();
  expect_formulas<4>();
  expect_formulas<7>();
}

template <int N>
void expect_gradients() {
  SCOPED_TRACE(N);
  Case<double, N> at;
  std::mt19937 random(9);
  Matrix<double> dy(at.tokens, N * at.dim), drow(at.tokens, at.dim), dx(at.tokens, N * at.dim), dout(at.tokens, at.dim),
      dweights(at.tokens, at.count);
  dy.fill_normal(random);
  drow.fill_normal(random);
  const auto value = [&] {
    at.spread();
    at.collapse();
    return dot(at.y, dy) + dot(at.row, drow);
  };
  guild::spread_streams_backward<N>(at.device, at.weights.view(), at.x.view(), at.out.view(), dy.view(), dx.view(),
                                    dout.view(), dweights.view());
  guild::collapse_streams_backward<N>(at.device, at.weights.view(), at.x.view(), drow.view(), dx.view(),
                                      dweights.view(), Update::add);
  expect_gradient(at.x, dx, value, "x");
  expect_gradient(at.out, dout, value, "out");
  expect_gradient(at.weights, dweights, value, "weights");
}
TEST(StreamOps, HaveTheGradientsOfCentralDifferences) {
  expect_gradients<1>();
  expect_gradients<2>();
  expect_gradients<4>();
}

TEST(StreamOps, RefuseShapesThatDoNotFit) {
  Case<float, 4> at;
  Matrix<float> narrow(at.tokens, at.dim - 1), short_rows(at.tokens, 3);
  EXPECT_EQ(code_of([&] { at.spread(); }), ErrorCode::count_);
  EXPECT_EQ(
      code_of([&] { guild::spread_streams<4>(at.device, at.weights.view(), at.x.view(), narrow.view(), at.y.view()); }),
      ErrorCode::op_shape);
  EXPECT_EQ(
      code_of([&] { guild::spread_streams<4>(at.device, short_rows.view(), at.x.view(), at.out.view(), at.y.view()); }),
      ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { guild::collapse_streams<4>(at.device, short_rows.view(), at.x.view(), at.row.view()); }),
            ErrorCode::op_argument);
  EXPECT_EQ(code_of([&] { guild::repeat_streams<3>(at.device, at.row.view(), at.y.view()); }), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { guild::sum_streams<3>(at.device, at.y.view(), at.row.view()); }), ErrorCode::op_shape);
}

/// The weights of 3 streams of 5 values, for any number of Sinkhorn rounds.
struct WeightsCase {
  static constexpr int streams = 3;
  static constexpr Index tokens = 4, width = 15, count = 15;
  guild::Cpu device{{.threads = 2}};
  guild::HyperConfig config{.streams = streams, .epsilon = 1e-3};
  Matrix<double> x{tokens, width, width + 1}, weight{count, width}, bias{1, count}, scale{1, 3},
      products{tokens, count}, roots{1, tokens}, weights{tokens, count};
  explicit WeightsCase(int rounds) {
    config.sinkhorn_rounds = rounds;
    std::mt19937 random(5);
    for (auto* one : {&x, &weight, &bias, &scale}) one->fill_normal(random);
  }
  [[nodiscard]] guild::StreamProjection<double> by() {
    return {{guild::DType::f64, weight.data.data(), count, width}, bias.view().row(0), scale.view().row(0)};
  }
  [[nodiscard]] guild::StreamMix<double> mix() { return {products.view(), roots.view().row(0), weights.view()}; }
  void run() {
    guild::stream_weights<streams, guild::StreamEnd::passed_on>(device, config, 1e-6, by(), x.view(), mix());
  }
};

TEST(StreamWeights, AreNearlyDoublyStochasticAfterManyRounds) {
  WeightsCase at(200);
  at.config.epsilon = 1e-9;
  for (double& one : at.scale.data) one *= 0.2;  // for matrices far from a permutation, that rounds soon end at
  at.run();
  for (Index t = 0; t < at.tokens; ++t)
    for (Index r = 0; r < 3; ++r) {
      double of_row = 0, of_column = 0;
      for (Index s = 0; s < 3; ++s) of_row += at.weights(t, 6 + 3 * r + s), of_column += at.weights(t, 6 + 3 * s + r);
      EXPECT_NEAR(of_row, 1.0, 1e-6);
      EXPECT_NEAR(of_column, 1.0, 1e-6);
    }
}

TEST(StreamWeights, HaveTheGradientsOfTheRoundsThatWereMade) {
  for (int rounds : {1, 2, 20}) {
    SCOPED_TRACE(rounds);
    WeightsCase at(rounds);
    std::mt19937 random(6);
    Matrix<double> dweights(at.tokens, at.count), dweight(at.count, at.width), dbias(1, at.count), dscale(1, 3),
        dx(at.tokens, at.width);
    dweights.fill_normal(random);
    for (auto* one : {&dweight, &dbias, &dscale, &dx}) std::fill(one->data.begin(), one->data.end(), 0.0);
    const auto kept = dweights;
    const auto value = [&] {
      at.run();
      return dot(at.weights, kept);
    };
    at.run();
    guild::stream_weights_backward<3, guild::StreamEnd::passed_on>(at.device, at.config, at.by(), at.x.view(), at.mix(),
                                                                   dweights.view(), dweight.view(), dbias.view().row(0),
                                                                   dscale.view().row(0), dx.view());
    expect_gradient(at.x, dx, value, "x");
    expect_gradient(at.weight, dweight, value, "weight");
    expect_gradient(at.bias, dbias, value, "bias");
    expect_gradient(at.scale, dscale, value, "scale");
  }
}

TEST(StreamWeights, RefuseOtherStreamsThanTheConfigsAndShapesThatDoNotFit) {
  WeightsCase at(2);
  EXPECT_EQ(code_of([&] { at.run(); }), ErrorCode::count_);
  at.config.streams = 4;
  EXPECT_EQ(code_of([&] { at.run(); }), ErrorCode::op_argument);
  at.config.streams = 3, at.config.sinkhorn_rounds = 0;
  EXPECT_EQ(code_of([&] { at.run(); }), ErrorCode::op_argument);
  at.config.sinkhorn_rounds = 2, at.scale.cols = 2;
  EXPECT_EQ(code_of([&] { at.run(); }), ErrorCode::op_shape);
}

}  // namespace residual_streams_test
