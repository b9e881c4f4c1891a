// A row of a product has the same bits in every batch: 1 to 70 rows, beside other jobs, on any number of threads. The
// one exception: where a variant has kernels of its own for a format, products of up to dot_tokens rows are summed in
// another order than larger ones; the difference has a bound.
#include "../batch_invariance.hpp"

#include <guild/cpu.hpp>
#include <guild/ops/linear/gated.hpp>
#include <guild/ops/linear/linear.hpp>

namespace batch_invariance_test {
using namespace guild;
using namespace guild_test;

/// Of few against many rows, times epsilon * sum |x w|: measured, for terms of random signs. For any terms see
/// `roundings`.
constexpr double product_bound = 4.0;

class ProductBatchInvariance : public BatchInvariance {
 protected:
  /// run(device, rows of x, y, add) multiplies. Checks that rows have the same bits in any batch of up to dot_tokens
  /// rows and in any larger one, and that both differ by no more than allowed(r, c). Gives the largest part of what was
  /// allowed.
  template <class Run, class Allowed>
  double expect_products(Index cols, const std::vector<Index>& counts, bool adds, Run&& run, Allowed&& allowed) {
    std::mt19937 random(9);
    Matrix<float> few(most, cols), many(most, cols), before(most, cols);
    before.fill_normal(random);
    for (Index r = 0; r < most; ++r) {
      Matrix<float> alone(1, cols), nine(cpu::dot_tokens + 1, cols);
      std::vector<std::int32_t> rows;
      for (Index t = 0; t < nine.rows; ++t) rows.push_back(static_cast<std::int32_t>((r + t) % most));
      run(*one, rows, nine.view(), false);
      run(*one, std::vector<std::int32_t>(1, rows[0]), alone.view(), false);
      std::copy_n(&alone(0, 0), cols, &few(r, 0));
      std::copy_n(&nine(0, 0), cols, &many(r, 0));
    }
    for (const Index n : counts)
      for (const bool add : {false, true}) {
        if (add && !adds) continue;
        std::vector<std::int32_t> rows;
        for (Index t = 0; t < n; ++t) rows.push_back(static_cast<std::int32_t>((t * 37 + n) % most));
        Matrix<float> y = before;
        y.rows = n;
        run(n % 2 == int{add} ? *one : *three, rows, y.view(), add);
        const Matrix<float>& product = n <= cpu::dot_tokens ? few : many;
        for (Index t = 0; t < n; ++t) {
          std::vector<float> expected(static_cast<std::size_t>(cols));
          const Index row = rows[static_cast<std::size_t>(t)];
          for (Index c = 0; c < cols; ++c)
            expected[static_cast<std::size_t>(c)] = add ? before(t, c) + product(row, c) : product(row, c);
          EXPECT_TRUE(same_bits(&y(t, 0), expected.data(), cols)) << n << " rows, row " << t << (add ? ", added" : "");
          if (HasFailure()) return 0.0;
        }
      }
    double worst = 0.0;
    for (Index r = 0; r < most; ++r)
      for (Index c = 0; c < cols; ++c) {
        const double difference = std::abs(double{few(r, c)} - double{many(r, c)}), limit = allowed(r, c);
        EXPECT_LE(difference, limit) << "few against many rows, row " << r << " column " << c;
        if (HasFailure()) return 0.0;
        if (limit > 0.0) worst = std::max(worst, difference / limit);
      }
    return worst;
  }
};

INSTANTIATE_TEST_SUITE_P(Variants, ProductBatchInvariance, all_variants(), variant_name);

/// The part of sum |x w| by which few and many rows may differ: none where both are summed in one order.
double part_allowed(Isa isa, const Format& format, Product product) {
  if (isa == Isa::baseline || !cpu::has_kernels(format) || (product == Product::x_w && format.scaled())) return 0.0;
  const bool rounds = isa == Isa::avx512_bf16 && product == Product::x_wt;  // activations of many rows to bf16
  return rounds && (format == DType::bf16 || format == DType::f8_e4m3) ? 0x1p-8 : product_bound * epsilon;
}

/// sum over k of |x[r, k] w[k, c]|, for all rows and columns.
Matrix<double> magnitudes(const WeightView& w, const Matrix<float>& x, Product product) {
  const bool transposed = product == Product::x_wt;
  Matrix<double> sums(x.rows, transposed ? w.rows : w.cols);
  std::fill(sums.data.begin(), sums.data.end(), 0.0);
  std::vector<double> row(static_cast<std::size_t>(w.cols));
  for (Index r = 0; r < w.rows; ++r) {
    expand_row(w, r, 0, w.cols, row.data());
    for (Index t = 0; t < x.rows; ++t)
      for (Index c = 0; c < w.cols; ++c)
        sums(t, transposed ? r : c) += std::abs(double{x(t, transposed ? c : r)} * row[static_cast<std::size_t>(c)]);
  }
  return sums;
}

/// 1 to 16, and on to `most` in steps.
std::vector<Index> counts_by(Index step) {
  std::vector<Index> counts;
  for (Index n = 1; n <= most; n += n < 16 ? 1 : step) counts.push_back(n);
  return counts;
}

TEST_P(ProductBatchInvariance, RowsHaveTheSameBitsInAnyBatchOfFewAndInAnyOfMany) {
  double worst = 0.0;  // in epsilon * sum |x w|
  for (const Format& format : formats)
    for (const Product product : {Product::x_wt, Product::x_w})
      for (const Index rows : {129, 37, 545}) {
        const Index cols = rows == 545 ? 32 : rows == 37 ? 544 : format == mxfp4 ? 224 : 200;
        SCOPED_TRACE(describe(format) + (product == Product::x_wt ? ", x W^T, " : ", x W, ") + std::to_string(rows) +
                     " x " + std::to_string(cols));
        const StoredWeight weight(format, rows, cols, 3);
        const Index in = product == Product::x_wt ? cols : rows, out = product == Product::x_wt ? rows : cols;
        std::mt19937 random(4);
        Matrix<float> x(most, in, in + 3);
        x.fill_normal(random);
        const Matrix<double> magnitude = magnitudes(weight.view, x, product);
        const double part = part_allowed(GetParam(), format, product);
        const auto run = [&](Cpu& device, const std::vector<std::int32_t>& gather, View<float, 2> y, bool add) {
          Matrix<float> other(3, out);  // of a job beside it
          const LinearJob jobs[] = {
              {weight.view, x.view().middle_rows(5, 3), other.view(), nullptr, product},
              {weight.view, x.view(), y, gather.data(), product, add ? Update::add : Update::overwrite}};
          linear(device, std::span<const LinearJob>(jobs).subspan(add ? 0 : 1));
        };
        const double used = expect_products(out, counts_by(rows == 129 ? 1 : 18), true, run,
                                            [&](Index r, Index c) { return part * magnitude(r, c); });
        if (HasFailure()) return;
        worst = std::max(worst, used * part / epsilon);
      }
  RecordProperty("few_against_many_rows", std::to_string(worst));
}

/// A bound on the roundings that a term of either order meets, few and many rows together: a dot product adds in 8 or
/// more lanes, axpy in one chain, gemm in parts of gemm_depth; each ends in a few additions.
double roundings(Index depth, Product product) {
  const Index few = product == Product::x_wt ? depth / 8 + 8 : depth + 1;
  const Index many = std::min(depth, cpu::gemm_depth) + depth / cpu::gemm_depth + 2;
  return static_cast<double>(few + many);
}

TEST_P(ProductBatchInvariance, TermsOfOneSignDifferBetweenFewAndManyRowsByNoMoreThanTheirRoundings) {
  double worst[2] = {};  // x W^T, x W, in epsilon * sum |x w|
  for (const Product product : {Product::x_wt, Product::x_w})
    for (const Index depth : {32, 129, 256, 545, 2048}) {
      const Index out = 33;
      const bool transposed = product == Product::x_wt;
      std::mt19937 random(4);
      Matrix<float> w(transposed ? out : depth, transposed ? depth : out), x(most, depth);
      for (auto* m : {&w, &x}) {
        m->fill_normal(random);
        for (float& value : m->data) value = std::abs(value);
      }
      const WeightView weight{DType::f32, w.data.data(), w.rows, w.cols};
      const Matrix<double> magnitude = magnitudes(weight, x, product);
      const double part = GetParam() == Isa::baseline ? 0.0 : roundings(depth, product) * 0.5 * epsilon;
      const auto run = [&](Cpu& device, const std::vector<std::int32_t>& gather, View<float, 2> y, bool) {
        const LinearJob job{weight, x.view(), y, gather.data(), product};
        linear(device, std::span<const LinearJob>(&job, 1));
      };
      SCOPED_TRACE((transposed ? "x W^T, " : "x W, ") + std::to_string(depth) + " terms");
      const double used =
          expect_products(out, {2, 8, 10, 70}, false, run, [&](Index r, Index c) { return part * magnitude(r, c); });
      if (HasFailure()) return;
      double& most_used = worst[transposed ? 0 : 1];
      most_used = std::max(most_used, used * part / epsilon);
    }
  RecordProperty("few_against_many_rows_x_wt", std::to_string(worst[0]));
  RecordProperty("few_against_many_rows_x_w", std::to_string(worst[1]));
}

TEST_P(ProductBatchInvariance, GatedRowsHaveTheSameBitsInAnyBatchOfFewAndInAnyOfMany) {
  for (const Format& format : formats) {
    SCOPED_TRACE(describe(format));
    const Index rows = 67, cols = format == mxfp4 ? 288 : 290;
    const StoredWeight gate(format, rows, cols, 5), up(format, rows, cols, 6);
    std::mt19937 random(4);
    Matrix<float> x(most, cols, cols + 1), g(most, rows), u(most, rows);
    x.fill_normal(random, 0.02);
    linear(*one, gate.view, x.view(), g.view());
    linear(*one, up.view, x.view(), u.view());
    const Matrix<double> of_gate = magnitudes(gate.view, x, Product::x_wt),
                         of_up = magnitudes(up.view, x, Product::x_wt);
    const double part = part_allowed(GetParam(), format, Product::x_wt);
    const auto run = [&](Cpu& device, const std::vector<std::int32_t>& gather, View<float, 2> h, bool) {
      const GatedJob job{gate.view, up.view, x.view(), h, gather.data()};
      gated_linear(device, std::span(&job, 1));
    };
    const auto allowed = [&](Index r, Index c) {  // |silu(g)| <= |g|, |silu'(g)| < 1.1, and roundings of the gate
      if (part == 0.0) return 0.0;
      const double a = std::abs(double{g(r, c)}), b = std::abs(double{u(r, c)});
      return part * (1.1 * of_gate(r, c) * (b + part * of_up(r, c)) + a * of_up(r, c)) + 4 * epsilon * a * b;
    };
    expect_products(rows, counts_by(1), false, run, allowed);
    if (HasFailure()) return;
  }
}

TEST_P(ProductBatchInvariance, ARowDoesNotDependOnLargeJobsBesideItNorOnWhereItsJobIsCut) {
  for (const Format& format : formats) {
    const StoredWeight weight(format, 160, 544, 3), large(DType::f32, 480, 544, 4);
    std::mt19937 random(4);
    Matrix<float> x(most, 544), beside(150, 544), y(most, 160), z(150, 480);
    x.fill_normal(random);
    beside.fill_normal(random);
    linear(*one, weight.view, x.view(), y.view());
    for (Cpu* device : {one.get(), three.get()}) {
      Matrix<float> again(most, 160);
      const LinearJob jobs[] = {{large.view, beside.view(), z.view()}, {weight.view, x.view(), again.view()}};
      linear(*device, std::span<const LinearJob>(jobs));
      ASSERT_EQ(again.data, y.data) << describe(format) << ", " << device->threads() << " threads";
    }
  }
}

}  // namespace batch_invariance_test
