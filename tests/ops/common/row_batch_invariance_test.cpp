// A row of every op but products and attention has the same bits in every batch: with 1 to 70 rows in the call and on
// any number of threads.
#include <guild/ops/common/add.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/head/cross_entropy.hpp>
#include <guild/ops/head/embedding.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <guild/ops/norm/rms_norm.hpp>
#include <guild/ops/rope/rope.hpp>
#include <guild/ops/route/route.hpp>

#include "../batch_invariance.hpp"

namespace row_batch_invariance_test {
using namespace guild;
using namespace guild_test;

/// The parts side by side; double holds floats and indices as they are.
template <class... Parts>
Matrix<double> joined(const Parts&... parts) {
  const Index rows[] = {parts.rows...};
  Matrix<double> all(rows[0], (parts.cols + ...));
  Index column = 0;
  const auto append = [&](const auto& part) {
    for (Index r = 0; r < part.rows; ++r)
      for (Index c = 0; c < part.cols; ++c) all(r, column + c) = double(part(r, c));
    column += part.cols;
  };
  (append(parts), ...);
  return all;
}

template <class T>
Matrix<T> some(const Matrix<T>& from, Index first, Index count) {
  Matrix<T> part(count, from.cols);
  for (Index r = 0; r < count; ++r) std::copy_n(&from(first + r, 0), from.cols, &part(r, 0));
  return part;
}

class RowBatchInvariance : public BatchInvariance {
 protected:
  /// compute(device, first, count) -> Matrix<double>: what an op makes of rows [first, first + count) of its inputs.
  template <class Compute>
  void expect_rows_as_alone(const char* what, Compute&& compute) {
    std::vector<Matrix<double>> alone;
    for (Index r = 0; r < most; ++r) alone.push_back(compute(*one, r, Index{1}));
    for (Index n = 1; n <= most; ++n)
      for (Cpu* device : {one.get(), three.get()}) {
        const Index first = n * 13 % (most - n + 1);
        const Matrix<double> together = compute(*device, first, n);
        for (Index t = 0; t < n; ++t)
          ASSERT_TRUE(same_bits(&together(t, 0), &alone[std::size_t(first + t)](0, 0), together.cols))
              << what << ", " << n << " rows, row " << t << ", " << device->threads() << " threads";
      }
  }

  void check(Index dim) {
    std::mt19937 random(1);
    Matrix<float> a(most, dim), b(most, dim), c(most, dim), gain(1, dim), weights(most, 3);
    Matrix<std::int32_t> slots(most, 3);
    for (auto* m : {&a, &b, &c, &gain, &weights}) m->fill_normal(random, 3.0);
    for (auto& slot : slots.data) slot = static_cast<std::int32_t>(random() % most);
    std::vector<std::int32_t> ids, positions;
    for (Index t = 0; t < most; ++t) {
      ids.push_back(slots(t, 0) % static_cast<std::int32_t>(dim));
      positions.push_back(static_cast<std::int32_t>(t * 997));
    }
    const View<const float> weight(gain.data.data(), dim);

    expect_rows_as_alone("rms_norm", [&](Cpu& device, Index first, Index n) {
      Matrix<float> y(n, dim), dx(n, dim), dweight(1, dim);  // dweight is a sum over rows
      rms_norm(device, weight, a.view().middle_rows(first, n), y.view(), 1e-6);
      rms_norm_backward(device, weight, a.view().middle_rows(first, n), b.view().middle_rows(first, n), dx.view(),
                        dweight.view().row(0), 1e-6, c.view().middle_rows(first, n));
      return joined(y, dx);
    });
    for (const RopePairs pairs : {RopePairs::interleaved, RopePairs::halves})
      expect_rows_as_alone("rope", [&](Cpu& device, Index first, Index n) {
        const RopeTable table({.factor = 4, .pairs = pairs}, 10);
        const RopeHeads heads{.heads = 2, .head_stride = 12, .offset = 2};
        const View<const std::int32_t> at(positions.data() + first, n);
        Matrix<float> x = some(a, first, n), dx = some(b, first, n);
        rope(device, table, at, x.view(), heads);
        rope_backward(device, table, at, dx.view(), heads);
        return joined(x, dx);
      });
    expect_rows_as_alone("swiglu", [&](Cpu& device, Index first, Index n) {
      Matrix<float> h(n, dim), gate = some(a, first, n), up = some(b, first, n), dh = some(c, first, n);
      Matrix<float> gate_s = gate, up_s = up, dh_s = dh, dweights(n, 1);
      swiglu(device, gate.view(), up.view(), h.view());
      swiglu_backward(device, gate.view(), up.view(), dh.view(), dh.view());
      expert_swiglu_backward(device, View<const float>(a.data.data() + first, n), gate_s.view(), up_s.view(),
                             dh_s.view(), View<float>(dweights.data.data(), n));
      return joined(h, gate, up, dh, gate_s, up_s, dh_s, dweights);
    });
    expect_rows_as_alone("combine_experts, add and add_bias", [&](Cpu& device, Index first, Index n) {
      const auto slots_n = slots.view().middle_rows(first, n);
      const auto weights_n = weights.view().middle_rows(first, n);
      Matrix<float> out(n, dim), bare(n, dim), x = some(c, first, n);
      combine_experts(device, a.view(), slots_n, weights_n, b.view().middle_rows(first, n), out.view());
      combine_experts(device, a.view(), slots_n, weights_n, {}, bare.view());
      add(device, x.view(), out.view());
      add_bias(device, weight, x.view());
      return joined(out, bare, x);
    });
    for (const LossWork work : {LossWork::value, LossWork::gradient})
      expect_rows_as_alone("cross_entropy", [&](Cpu& device, Index first, Index n) {
        Matrix<float> logits = some(a, first, n);
        Matrix<double> loss(n, 1), squared(n, 1);
        Matrix<std::int32_t> correct(n, 1);
        cross_entropy(device, logits.view(), View<const std::int32_t>(ids.data() + first, n),
                      {.scale = 0.7, .z_loss = 0.01}, work,
                      {View<double>(loss.data.data(), n), View<double>(squared.data.data(), n),
                       View<std::int32_t>(correct.data.data(), n)});
        return joined(logits, loss, squared, correct);
      });
    for (const Format& format : formats) {
      const StoredWeight table(format, dim, format == mxfp4 ? 64 : dim, 2);
      expect_rows_as_alone("embed", [&](Cpu& device, Index first, Index n) {
        Matrix<float> y(n, table.view.cols);
        embed(device, table.view, View<const std::int32_t>(ids.data() + first, n), y.view());
        return joined(y);
      });
    }
    for (const auto selection : {Selection::greedy, Selection::group_limited_greedy, Selection::noaux_tc})
      for (const auto scoring : {Scoring::sigmoid, Scoring::softmax, Scoring::sqrt_softplus})
        expect_rows_as_alone("route", [&](Cpu& device, Index first, Index n) {
          const TopKConfig config{.experts = static_cast<int>(dim),
                                  .top_k = 3,
                                  .groups = 3,
                                  .top_groups = 2,
                                  .scoring = scoring,
                                  .selection = selection,
                                  .scale = 2.5};
          const auto logits = a.view().middle_rows(first, n);
          Matrix<std::int32_t> indices(n, 3);
          Matrix<float> chosen(n, 3), dlogits(n, dim);
          route(device, config, logits, weight, indices.view(), chosen.view());
          route_backward(device, config, logits, indices.view(), chosen.view(), weights.view().middle_rows(first, n),
                         dlogits.view());
          return joined(indices, chosen, dlogits);
        });
  }
};

INSTANTIATE_TEST_SUITE_P(Variants, RowBatchInvariance, all_variants(), variant_name);

TEST_P(RowBatchInvariance, NarrowRowsHaveTheSameBitsAloneAndTogether) { check(24); }
TEST_P(RowBatchInvariance, RowsOfOddWidthHaveTheSameBitsAloneAndTogether) { check(75); }
TEST_P(RowBatchInvariance, WideRowsHaveTheSameBitsAloneAndTogether) { check(600); }

}  // namespace row_batch_invariance_test
