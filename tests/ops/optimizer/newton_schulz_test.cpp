// Orthogonalisation against the plain iteration in double, and what is known of its result.
#include <guild/cpu.hpp>
#include <guild/ops/optimizer/newton_schulz.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <guild/device/cpu.hpp>
#include <random>
#include <vector>

namespace newton_schulz_test {
using guild::Index;

struct Matrix {
  Index rows, cols;
  std::vector<double> v;
  Matrix(Index r, Index c) : rows(r), cols(c), v(static_cast<std::size_t>(r * c)) {}
  double& at(Index r, Index c) { return v[static_cast<std::size_t>(r * cols + c)]; }
  double at(Index r, Index c) const { return v[static_cast<std::size_t>(r * cols + c)]; }
};
Matrix transposed(const Matrix& a) {
  Matrix t(a.cols, a.rows);
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.cols; ++c) t.at(c, r) = a.at(r, c);
  return t;
}
Matrix product(const Matrix& a, const Matrix& b) {
  Matrix y(a.rows, b.cols);
  for (Index i = 0; i < a.rows; ++i)
    for (Index k = 0; k < a.cols; ++k)
      for (Index j = 0; j < b.cols; ++j) y.at(i, j) += a.at(i, k) * b.at(k, j);
  return y;
}
Matrix naive(Matrix x, int iterations) {
  const bool tall = x.rows > x.cols;
  if (tall) x = transposed(x);
  double squares = 0.0;
  for (const double e : x.v) squares += e * e;
  for (double& e : x.v) e /= std::sqrt(squares) + 1e-7;
  for (int i = 0; i < iterations; ++i) {
    const Matrix a = product(x, transposed(x)), aa = product(a, a);
    Matrix b = a;
    for (std::size_t k = 0; k < b.v.size(); ++k) b.v[k] = -4.7750 * a.v[k] + 2.0315 * aa.v[k];
    const Matrix bx = product(b, x);
    for (std::size_t k = 0; k < x.v.size(); ++k) x.v[k] = 3.4445 * x.v[k] + bx.v[k];
  }
  return tall ? transposed(x) : x;
}

Matrix random_matrix(Index rows, Index cols, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0.0, 3.0);
  Matrix m(rows, cols);
  for (double& e : m.v) e = static_cast<double>(static_cast<float>(normal(generator)));
  return m;
}
std::vector<float> floats(const Matrix& m) { return {m.v.begin(), m.v.end()}; }

constexpr Index shapes[][2] = {{1, 1},   {1, 7},   {7, 1},   {5, 5},    {8, 9},   {9, 8},
                               {33, 64}, {64, 33}, {70, 70}, {130, 66}, {65, 200}};

std::vector<std::vector<float>> orthogonalized(guild::Cpu& device, int iterations) {
  std::vector<std::vector<float>> matrices;
  std::vector<guild::OrthogonalizeJob> jobs;
  for (const auto& shape : shapes) matrices.push_back(floats(random_matrix(shape[0], shape[1], 1)));
  for (std::size_t i = 0; i < matrices.size(); ++i) jobs.push_back({matrices[i].data(), shapes[i][0], shapes[i][1]});
  guild::orthogonalize(device, std::span<const guild::OrthogonalizeJob>(jobs), iterations);
  return matrices;
}

TEST(NewtonSchulz, EqualsThePlainIterationInDouble) {
  guild::Cpu device({.threads = 2});
  for (const int iterations : {1, 2, 5, 6}) {
    const auto found = orthogonalized(device, iterations);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const Matrix expected = naive(random_matrix(shapes[i][0], shapes[i][1], 1), iterations);
      for (std::size_t k = 0; k < expected.v.size(); ++k)
        ASSERT_NEAR(double(found[i][k]), expected.v[k], 1e-4) << shapes[i][0] << " x " << shapes[i][1];
    }
  }
}

TEST(NewtonSchulz, SingularValuesComeNearOne) {
  guild::Cpu device({.threads = 1});
  const auto found = orthogonalized(device, 5);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Index rows = shapes[i][0], cols = shapes[i][1], n = std::min(rows, cols);
    double squares = 0.0;  // of all singular values
    for (const float e : found[i]) squares += double(e) * double(e);
    if (rows != cols) {  // square ones may have singular values near zero
      EXPECT_GT(squares, 0.46 * static_cast<double>(n));
    }
    EXPECT_LT(squares, 1.5 * static_cast<double>(n));
  }
}

TEST(NewtonSchulz, HasTheSameBitsForAnyNumberOfThreadsAndAnyCompany) {
  guild::Cpu one({.threads = 1}), three({.threads = 3});
  const auto expected = orthogonalized(one, 5);
  EXPECT_EQ(orthogonalized(three, 5), expected);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    std::vector<float> alone = floats(random_matrix(shapes[i][0], shapes[i][1], 1));
    const guild::OrthogonalizeJob job(alone.data(), shapes[i][0], shapes[i][1]);
    guild::orthogonalize(three, std::span<const guild::OrthogonalizeJob>(&job, 1), 5);
    EXPECT_EQ(alone, expected[i]);
  }
}

TEST(NewtonSchulz, EveryKernelVariantAgrees) {
  guild::Cpu reference({.threads = 1, .isa = guild::Isa::baseline});
  const auto expected = orthogonalized(reference, 5);
  for (const guild::Isa isa : {guild::Isa::avx2, guild::Isa::avx512, guild::Isa::avx512_bf16}) {
    if (!guild::runs_here(isa)) continue;
    guild::Cpu device({.threads = 1, .isa = isa});
    const auto found = orthogonalized(device, 5);
    for (std::size_t i = 0; i < found.size(); ++i)
      for (std::size_t k = 0; k < found[i].size(); ++k) ASSERT_NEAR(found[i][k], expected[i][k], 1e-4f);
  }
}

TEST(NewtonSchulz, ZeroStaysZeroAndNothingIsNoWork) {
  guild::Cpu device({.threads = 1});
  std::vector<float> zero(12);
  const guild::OrthogonalizeJob jobs[] = {{zero.data(), 3, 4}, {nullptr, 0, 4}};
  guild::orthogonalize(device, std::span<const guild::OrthogonalizeJob>(jobs), 5);
  for (const float e : zero) EXPECT_EQ(e, 0.0f);
  guild::orthogonalize(device, std::span<const guild::OrthogonalizeJob>(), 5);
}

TEST(NewtonSchulz, RefusesGapsAndNoIterations) {
  guild::Cpu device({.threads = 1});
  std::vector<float> memory(20);
  const guild::OrthogonalizeJob gaps(memory.data(), 4, 4, 5), good(memory.data(), 4, 4), missing(nullptr, 4, 4);
  const auto run = [&](const guild::OrthogonalizeJob& job, int iterations) {
    guild::orthogonalize(device, std::span<const guild::OrthogonalizeJob>(&job, 1), iterations);
  };
  EXPECT_THROW(run(gaps, 5), guild::Error);
  EXPECT_THROW(run(missing, 5), guild::Error);
  EXPECT_THROW(run(good, 0), guild::Error);
}

}  // namespace newton_schulz_test
