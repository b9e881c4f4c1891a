#include <guild/cpu.hpp>
#include <guild/modules/moe.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace moe_test {

using guild::Index;
using namespace guild_test;

template <int Shared>
struct MoeSpec : SmallSpec {
  static constexpr guild::ExpertConfig experts =
      with(SmallSpec::experts, [](guild::ExpertConfig& c) { c.shared = Shared; });
};
struct SoftmaxSpec : SmallSpec {
  static constexpr guild::TopKConfig routing = with(SmallSpec::routing, [](guild::TopKConfig& c) {
    c.scoring = guild::Scoring::softmax;
    c.selection = guild::Selection::greedy;
    c.groups = c.top_groups = 1;
    c.normalize = false;
  });
};

/// Keeps what the router chose.
struct Routing final : guild::Observer {
  std::vector<std::int32_t>* experts;
  std::vector<float>* weights;
  Routing(std::vector<std::int32_t>& to_experts, std::vector<float>& to_weights)
      : experts(&to_experts), weights(&to_weights) {}
  void on_routing(int layer, guild::View<const std::int32_t, 2> e, guild::View<const float, 2> w) override {
    EXPECT_EQ(layer, 5);
    experts->assign(e.data, e.data + e.rows * e.cols);
    weights->assign(w.data, w.data + w.rows * w.cols);
  }
};

using Weights = guild::StoredMatrix;

void add_mlp(const Weights& gate, const Weights& up, const Weights& down, guild::View<const float> x, double weight,
             std::vector<double>& y) {
  const auto dot = [&](const Weights& matrix, Index r) {
    double sum = 0.0;
    for (Index c = 0; c < matrix.cols; ++c)
      sum += static_cast<double>(matrix.view().at(r, c)) * static_cast<double>(x[c]);
    return sum;
  };
  for (Index h = 0; h < gate.rows; ++h) {
    const double g = dot(gate, h), a = g / (1.0 + std::exp(-g)) * dot(up, h);
    for (Index i = 0; i < down.rows; ++i)
      y[static_cast<std::size_t>(i)] += weight * a * static_cast<double>(down.view().at(i, h));
  }
}

template <class S>
struct Fixture {
  using Moe = guild::Moe<S>;
  guild::Cpu device{{.threads = 2}};
  typename Moe::template Weights<guild::Published> weights;
  std::vector<std::int32_t> experts{};
  std::vector<float> shares{};

  explicit Fixture(guild::DType type = guild::DType::f32) : weights(random_weights<Moe>(type)) {}

  Matrix run(const Matrix& x) {
    Matrix y(x.rows, x.cols);
    Routing routing(experts, shares);
    Moe::forward(guild::Pass{.device = device, .layer = 5, .observer = &routing}, weights, x.view(), y.view());
    return y;
  }
  /// In double, from the choice that the router reported.
  Matrix naive(const Matrix& x) const {
    Matrix y(x.rows, x.cols);
    constexpr std::size_t top_k = S::routing.top_k;
    for (Index t = 0; t < x.rows; ++t) {
      std::vector<double> sum(static_cast<std::size_t>(x.cols));
      for (std::size_t k = 0; k < top_k; ++k) {
        const auto slot = static_cast<std::size_t>(t) * top_k + k;
        const auto expert = static_cast<std::size_t>(experts[slot]);
        add_mlp(weights.experts.gate.pieces[expert], weights.experts.up.pieces[expert],
                weights.experts.down.pieces[expert], x.view().row(t), static_cast<double>(shares[slot]), sum);
      }
      if (Moe::has_shared)
        add_mlp(weights.shared.gate.weight, weights.shared.up.weight, weights.shared.down.weight, x.view().row(t), 1.0,
                sum);
      for (Index i = 0; i < x.cols; ++i) y.view()(t, i) = static_cast<float>(sum[static_cast<std::size_t>(i)]);
    }
    return y;
  }
};

Matrix random_rows(Index rows, std::uint64_t seed = 3) {
  Matrix x(rows, SmallSpec::config.hidden);
  const auto values = random_values(rows * x.cols, seed);
  std::copy(values.view().begin(), values.view().end(), x.values.begin());
  return x;
}

template <class S>
void expect_equal_to_naive(guild::DType type, double tolerance) {
  Fixture<S> moe(type);
  for (const Index rows : {1, 2, 7, 16, 17, 90}) {
    const Matrix x = random_rows(rows);
    const Matrix y = moe.run(x);
    EXPECT_LE(relative_error(y, moe.naive(x)), tolerance) << rows << " rows";
  }
}

TEST(Moe, EqualsASumOverExpertsInDouble) { expect_equal_to_naive<MoeSpec<1>>(guild::DType::f32, 1e-6); }
TEST(Moe, RunsWithoutSharedExperts) { expect_equal_to_naive<MoeSpec<0>>(guild::DType::f32, 1e-6); }
TEST(Moe, RunsTwoSharedExpertsAsOneNetwork) { expect_equal_to_naive<MoeSpec<2>>(guild::DType::f32, 1e-6); }
TEST(Moe, RunsSoftmaxRouting) { expect_equal_to_naive<SoftmaxSpec>(guild::DType::f32, 1e-6); }
TEST(Moe, MultipliesStoredWeightsAsTheyAre) {
  // Sums are in float, so only their rounding differs from double: the weights are not rounded again.
  for (const auto type : {guild::DType::bf16, guild::DType::f16, guild::DType::f8_e4m3})
    expect_equal_to_naive<MoeSpec<1>>(type, 1e-6);
}

/// Makes the router choose experts by a column of x alone: choice of expert e = x[0] * values[e].
template <class S>
void route_by_first_input(Fixture<S>& moe, const std::vector<float>& values) {
  auto& matrix = moe.weights.router.weight;
  for (Index e = 0; e < matrix.rows; ++e) {
    for (Index c = 0; c < matrix.cols; ++c) {
      const float value = c == 0 ? values[static_cast<std::size_t>(e)] : 0.0f;
      std::memcpy(matrix.data.data() + (e * matrix.cols + c) * 4, &value, 4);
    }
    moe.weights.router.selection_bias.data[e] = 0.0f;
  }
}

TEST(Moe, ServesAllRowsByTheSameExpertsAndLeavesTheOthersAlone) {
  Fixture<MoeSpec<1>> moe;
  route_by_first_input(moe, {0, 0, 1, 2, 0, 0, 3, -1});
  // Nothing of an expert that is not chosen may be read.
  for (const std::size_t e : {0U, 1U, 4U, 5U, 7U}) {
    auto& experts = moe.weights.experts;
    for (Weights* matrix : {&experts.gate.pieces[e], &experts.up.pieces[e], &experts.down.pieces[e]})
      std::memset(matrix->data.data(), 0xff, static_cast<std::size_t>(matrix->data.size()));  // NaN
  }
  for (const Index rows : {1, 40}) {
    Matrix x = random_rows(rows);
    for (Index t = 0; t < rows; ++t) x.view()(t, 0) = 1.0f;
    const Matrix y = moe.run(x);
    for (Index t = 0; t < rows; ++t) {
      EXPECT_EQ(moe.experts[static_cast<std::size_t>(3 * t)], 6);
      EXPECT_EQ(moe.experts[static_cast<std::size_t>(3 * t + 1)], 3);
      EXPECT_EQ(moe.experts[static_cast<std::size_t>(3 * t + 2)], 2);
    }
    EXPECT_LE(relative_error(y, moe.naive(x)), 1e-6);
  }
}

TEST(Moe, TiesGoToTheLowerExpertAndTheLowerGroup) {
  Fixture<MoeSpec<1>> moe;
  route_by_first_input(moe, std::vector<float>(8, 0.0f));
  const Matrix y = moe.run(random_rows(2));
  EXPECT_EQ(moe.experts, (std::vector<std::int32_t>{0, 1, 2, 0, 1, 2}));
  for (const float share : moe.shares) EXPECT_NEAR(share, 2.5 / 3, 1e-6);
  (void)y;
}

TEST(Moe, ATokensResultDoesNotDependOnItsBatchUpToRounding) {
  Fixture<MoeSpec<1>> moe;
  const Matrix x = random_rows(60);
  const Matrix together = moe.run(x);
  for (Index t = 0; t < x.rows; t += 7)
    EXPECT_LE(relative_error(moe.run(x.middle_rows(t, 1)), together.middle_rows(t, 1)), 1e-6);
}

TEST(Moe, RefusesARouterThatIsNotFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Fixture<MoeSpec<1>> moe;
    std::memcpy(moe.weights.router.weight.data.data() + 4 * 50, &bad, 4);
    try {
      (void)moe.run(random_rows(3));
      ADD_FAILURE() << "no error";
    } catch (const guild::Error& error) { EXPECT_EQ(error.code(), guild::ErrorCode::op_nonfinite) << error.what(); }
  }
}

TEST(Moe, SortsRowsByExpertAndKeepsTheirOrder) {
  guild::Cpu device({.threads = 1});
  const std::int32_t chosen[] = {7, 0, 3, 0, 3, 7, 3, 7, 1};  // experts 2, 4, 5, 6 have no rows
  std::int32_t offsets[9], token[9], slots[9];
  guild::assign_experts(device, {chosen, 3, 3}, {{offsets, 9}, {token, 9}, {slots, 3, 3}});
  const std::int32_t expected_offsets[] = {0, 2, 3, 3, 6, 6, 6, 6, 9}, expected_token[] = {0, 1, 2, 0, 1, 2, 0, 1, 2};
  for (int i = 0; i < 9; ++i) {
    EXPECT_EQ(offsets[i], expected_offsets[i]) << i;
    EXPECT_EQ(token[i], expected_token[i]) << i;
    EXPECT_EQ(token[slots[i]], i / 3) << i;  // each slot belongs to its token ...
    EXPECT_TRUE(slots[i] >= offsets[chosen[i]] && slots[i] < offsets[chosen[i] + 1]) << i;  // ... and to its expert
  }
}

}  // namespace moe_test
