// Experts without gates beside a shared one that has a gate of the token, against sums in double.
#include <guild/cpu.hpp>
#include <guild/modules/moe.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace ungated_expert_pool_test {

using guild::Index;
using namespace guild_test;

struct Spec : SmallSpec {
  static constexpr guild::ExpertConfig experts = with(SmallSpec::experts, [](guild::ExpertConfig& c) {
    c.shared = 1, c.shared_hidden = c.hidden + 3, c.shared_gate = true;
    c.activation = {.kind = guild::Activation::relu_squared, .gated = false};
  });
};
using Moe = guild::Moe<Spec>;

struct Chosen final : guild::Observer {
  std::vector<std::int32_t> experts{};
  std::vector<float> weights{};
  void on_routing(int, guild::View<const std::int32_t, 2> e, guild::View<const float, 2> w) override {
    experts.assign(e.data, e.data + e.rows * e.cols);
    weights.assign(w.data, w.data + w.rows * w.cols);
  }
};

double dot(const guild::StoredMatrix& matrix, Index row, guild::View<const float> x) {
  double sum = 0.0;
  for (Index c = 0; c < matrix.cols; ++c)
    sum += static_cast<double>(matrix.view().at(row, c)) * static_cast<double>(x[c]);
  return sum;
}
void add_network(const guild::StoredMatrix& up, const guild::StoredMatrix& down, guild::View<const float> x,
                 double weight, std::vector<double>& y) {
  for (Index h = 0; h < up.rows; ++h) {
    const double above = std::max(dot(up, h, x), 0.0);
    for (Index i = 0; i < down.rows; ++i)
      y[static_cast<std::size_t>(i)] += weight * above * above * static_cast<double>(down.view().at(i, h));
  }
}

TEST(UngatedExpertPool, EqualsASumOverExpertsInDoubleWhateverTheThreads) {
  const auto weights = random_weights<Moe>(guild::DType::f32);
  constexpr std::size_t top_k = Spec::routing.top_k;
  for (const Index rows : {1, 17}) {
    Matrix x(rows, Spec::config.hidden), first;
    const auto values = random_values(rows * x.cols, 3);
    std::copy(values.view().begin(), values.view().end(), x.values.begin());
    for (const int threads : {1, 3}) {
      guild::Cpu device({.threads = threads});
      Chosen chosen;
      Matrix y(rows, x.cols), naive(rows, x.cols);
      Moe::forward(guild::Pass{.device = device, .observer = &chosen}, weights, x.view(), y.view());
      for (Index t = 0; t < rows; ++t) {
        std::vector<double> sum(static_cast<std::size_t>(x.cols));
        const auto row = x.view().row(t);
        for (std::size_t k = 0; k < top_k; ++k) {
          const auto slot = static_cast<std::size_t>(t) * top_k + k;
          const auto e = static_cast<std::size_t>(chosen.experts[slot]);
          add_network(weights.experts.up.pieces[e], weights.experts.down.pieces[e], row,
                      static_cast<double>(chosen.weights[slot]), sum);
        }
        const double gate = 1.0 / (1.0 + std::exp(-dot(weights.shared.token_gate.weight, 0, row)));
        add_network(weights.shared.up.weight, weights.shared.down.weight, row, gate, sum);
        for (Index i = 0; i < x.cols; ++i) naive.view()(t, i) = static_cast<float>(sum[static_cast<std::size_t>(i)]);
      }
      EXPECT_LE(relative_error(y, naive), 1e-6) << rows << " rows";
      if (threads == 1) first = y;
      EXPECT_EQ(y.values, first.values) << threads << " threads";
    }
  }
}

}  // namespace ungated_expert_pool_test
