#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <guild/cpu.hpp>
#include <guild/ops/linear/gated.hpp>
#include <guild/ops/linear/linear.hpp>
#include <limits>
#include <random>
#include <vector>

namespace linear_test {

using namespace guild;

/// A random stored matrix, optionally cut out of a larger one so that its scale blocks begin anywhere.
struct TestWeight {
  Buffer<std::byte> data;
  Buffer<float> scale;
  WeightView view;

  TestWeight(DType type, Index rows, Index cols, unsigned seed, Index scale_row = 0) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, type == DType::f8_e4m3 ? 40.0f : 0.05f);
    const Index bytes = rows * cols * bits(type) / 8;
    data = Buffer<std::byte>(bytes + 1);
    const auto put = [&](Index i, auto value) {
      std::memcpy(data.data() + i * Index{sizeof value}, &value, sizeof value);
    };
    for (Index i = 0; i < rows * cols; ++i) {
      const float value = i % 7 == 3 ? normal(random) * 1e-4f : normal(random);  // subnormals of every format too
      switch (type) {
        case DType::bf16:
          put(i, bf16(value));
          break;
        case DType::f16:
          put(i, f16(value));
          break;
        case DType::f8_e4m3:
          put(i, fp8_e4m3(value));
          break;
        default:
          put(i, value);
      }
    }
    view = {type, data.data(), rows, cols, nullptr, 0, 0};
    if (type != DType::f8_e4m3) return;
    const Index across = (cols + scale_block - 1) / scale_block;
    scale = Buffer<float>(((scale_row + rows) / scale_block + 1) * across);
    std::uniform_real_distribution<float> uniform(0.0001f, 0.003f);
    for (float& s : scale.view()) s = uniform(random);
    view.scales = scale.data();
    view.scale_pitch = across;
    view.first_row = scale_row;
  }
};

struct TestMatrix {
  std::vector<float> values;
  View<float, 2> view;
  TestMatrix(Index rows, Index cols, unsigned seed, Index pitch) : values(static_cast<std::size_t>(rows * pitch + 1)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& v : values) v = normal(random);
    view = {values.data(), rows, cols, pitch};
  }
};

/// The weight in double, row by row in the direction in which outputs sum.
std::vector<double> expanded(const WeightView& w, Product product) {
  const Index outputs = product == Product::x_wt ? w.rows : w.cols, depth = product == Product::x_wt ? w.cols : w.rows;
  std::vector<double> values(static_cast<std::size_t>(outputs * depth));
  for (Index r = 0; r < outputs; ++r)
    for (Index k = 0; k < depth; ++k)
      values[static_cast<std::size_t>(r * depth + k)] = double{product == Product::x_wt ? w.at(r, k) : w.at(k, r)};
  return values;
}

/// Sum and sum of magnitudes of one output in double: the second scales the tolerance.
struct Oracle {
  double sum = 0.0, magnitude = 0.0;
  Oracle(const double* w, const float* x, Index depth) {
    for (Index k = 0; k < depth; ++k) {
      const double term = double{x[k]} * w[k];
      sum += term;
      magnitude += std::abs(term);
    }
  }
};
/// What the variant makes of x: the bf16 dot product takes larger jobs with bf16 or fp8 weights in bf16.
float seen(float x, Isa isa, const LinearJob& job) {
  const bool rounded = isa == Isa::avx512_bf16 && job.product == Product::x_wt && job.y.rows > cpu::dot_tokens &&
                       (job.weight.format == DType::bf16 || job.weight.format == DType::f8_e4m3);
  return rounded ? static_cast<float>(bf16(x)) : x;
}
constexpr double tolerance = 1e-6;  // a dozen float roundings of the sum of magnitudes

void expect_product(const LinearJob& job, Isa isa, const char* what) {
  const std::vector<double> weight = expanded(job.weight, job.product);
  for (Index t = 0; t < job.y.rows; ++t) {
    const float* x = job.x.data + (job.gather != nullptr ? job.gather[t] : t) * job.x.pitch;
    std::vector<float> input(x, x + job.x.cols);
    for (float& v : input) v = seen(v, isa, job);
    for (Index r = 0; r < job.y.cols; ++r) {
      const Oracle oracle(weight.data() + r * job.x.cols, input.data(), job.x.cols);
      ASSERT_NEAR(double{job.y(t, r)}, oracle.sum, oracle.magnitude * tolerance + 1e-30)
          << what << " token " << t << " output " << r;
    }
  }
}

class Linear : public testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  void SetUp() override {
    if (!runs_here(isa())) GTEST_SKIP() << "this machine has no " << name(isa());
  }
  static Isa isa() { return std::get<0>(GetParam()); }
  static DType type() { return std::get<1>(GetParam()); }
  Cpu device{{.threads = 3}};
};

INSTANTIATE_TEST_SUITE_P(Variants, Linear,
                         testing::Combine(testing::Values(Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16),
                                          testing::Values(DType::f32, DType::bf16, DType::f16, DType::f8_e4m3)),
                         [](const auto& variant) {
                           return std::string(name(std::get<0>(variant.param))) + "_" +
                                  std::string(name(std::get<1>(variant.param)));
                         });

TEST_P(Linear, EqualsADoubleOracleForAnySize) {
  const Index sizes[][2] = {{1, 1},     {3, 5},    {32, 96},   {72, 32}, {33, 127},
                            {130, 130}, {70, 200}, {257, 129}, {96, 640}};
  for (const auto& [rows, cols] : sizes) {
    for (const Index tokens : {1, 2, 3, 4, 7, 8, 9, 13, 16, 29, 48, 460}) {
      if (tokens > 48 && rows * cols > 5000) continue;  // slow, and nothing new

      const TestWeight weight(type(), rows, cols, static_cast<unsigned>(rows + cols), rows % 3 * 50);
      const TestMatrix x(tokens, cols, 7, cols + 3);
      TestMatrix y(tokens, rows, 8, rows + 5);
      const std::vector<float> before = y.values;
      const LinearJob job{weight.view, x.view, y.view};
      run_linear(device, std::span(&job, 1), isa());
      expect_product(job, isa(), "x W^T");
      for (Index t = 0; t < tokens; ++t)
        for (Index i = rows; i < rows + 5; ++i)
          ASSERT_EQ(y.values[static_cast<std::size_t>(t * (rows + 5) + i)],
                    before[static_cast<std::size_t>(t * (rows + 5) + i)])
              << "wrote beyond the columns of y";
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(Linear, EqualsADoubleOracleWithTheWeightNotTransposed) {
  const Index sizes[][2] = {{1, 1}, {5, 3}, {32, 96}, {96, 72}, {128, 512}, {130, 130}, {290, 600}};
  for (const auto& [rows, cols] : sizes) {
    for (const Index tokens : {1, 2, 3, 8, 9, 70, 231}) {
      if (tokens > 8 && tokens < 231 && rows * cols > 20000) continue;  // slow, and nothing new
      const TestWeight weight(type(), rows, cols, static_cast<unsigned>(rows + cols), cols % 3 * 100);
      const TestMatrix x(tokens, rows, 7, rows + 1);
      TestMatrix y(tokens, cols, 8, cols + 2);
      const LinearJob job{weight.view, x.view, y.view, nullptr, Product::x_w};
      run_linear(device, std::span(&job, 1), isa());
      expect_product(job, isa(), "x W");
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(Linear, AddsTheFinishedProduct) {
  const Index sizes[][2] = {{33, 127}, {130, 290}};
  for (const auto& [rows, cols] : sizes) {
    for (const Product product : {Product::x_wt, Product::x_w}) {
      for (const Index tokens : {1, 8, 9, 100, 240}) {
        const Index in = product == Product::x_wt ? cols : rows, out = product == Product::x_wt ? rows : cols;
        const TestWeight weight(type(), rows, cols, 3);
        const TestMatrix x(50, in, 7, in + 1), before(tokens, out, 8, out + 2);
        TestMatrix product_alone = before, y = before;
        product_alone.view.data = product_alone.values.data();
        y.view.data = y.values.data();
        std::vector<std::int32_t> gather;
        for (Index t = 0; t < tokens; ++t) gather.push_back(static_cast<std::int32_t>(t * 7 % 50));
        const LinearJob jobs[] = {{weight.view, x.view, product_alone.view, gather.data(), product},
                                  {weight.view, x.view, y.view, gather.data(), product, Update::add}};
        run_linear(device, jobs, isa());
        for (Index t = 0; t < tokens; ++t)
          for (Index i = 0; i < out + (t + 1 < tokens ? 2 : 0); ++i) {  // between the rows nothing changes
            const float was = before.view.data[t * (out + 2) + i];
            ASSERT_EQ(y.view.data[t * (out + 2) + i], i < out ? was + product_alone.view(t, i) : was)
                << tokens << " tokens, " << t << ", " << i;
          }
      }
    }
  }
}

TEST_P(Linear, RunsManyJobsWithGatheredRowsAndEmptyOnesInOneCall) {
  const Index cols = 160, rows = 104;
  const TestMatrix x(40, cols, 1, cols);
  const Index counts[] = {0, 1, 70, 0, 3, 18, 300, 0};
  std::vector<TestWeight> weights;
  std::vector<std::vector<std::int32_t>> gathers;
  std::vector<TestMatrix> outputs;
  std::vector<LinearJob> jobs;
  std::mt19937 random(5);
  for (unsigned i = 0; i < std::size(counts); ++i) {
    weights.emplace_back(type(), rows, cols, i, Index{i} * 31);
    gathers.emplace_back();
    for (Index t = 0; t < counts[i]; ++t) gathers.back().push_back(static_cast<std::int32_t>(random() % 40));
    outputs.emplace_back(counts[i], rows, i, rows);
  }
  for (std::size_t i = 0; i < std::size(counts); ++i)
    jobs.push_back({weights[i].view, x.view, outputs[i].view, gathers[i].data()});
  run_linear(device, jobs, isa());
  for (const LinearJob& job : jobs) expect_product(job, isa(), "grouped");
}

TEST_P(Linear, GatedEqualsSiluOfGateTimesUp) {
  for (const Index tokens : {1, 3, 6, 20, 120}) {
    const Index cols = 200, rows = 150;
    const TestWeight gate(type(), rows, cols, 1, 60), up(type(), rows, cols, 2, 0);
    const TestMatrix x(tokens, cols, 3, cols);
    TestMatrix h(tokens, rows, 4, rows + 1);
    const GatedJob job{gate.view, up.view, x.view, h.view};
    const std::vector<double> wg = expanded(gate.view, Product::x_wt), wu = expanded(up.view, Product::x_wt);
    run_gated_linear(device, std::span(&job, 1), isa());
    for (Index t = 0; t < tokens; ++t) {
      for (Index r = 0; r < rows; ++r) {
        std::vector<float> input(cols);
        for (Index c = 0; c < cols; ++c)
          input[static_cast<std::size_t>(c)] = seen(x.view(t, c), isa(), {gate.view, x.view, h.view});
        const Oracle g(wg.data() + r * cols, input.data(), cols), u(wu.data() + r * cols, input.data(), cols);
        const double silu = g.sum / (1.0 + std::exp(-g.sum));
        const double allowed = tolerance * (std::abs(silu * u.magnitude) + 1.1 * g.magnitude * std::abs(u.sum)) +
                               1e-6 * std::abs(silu * u.sum) + 1e-30;
        ASSERT_NEAR(double{h.view(t, r)}, silu * u.sum, allowed) << tokens << " tokens, token " << t << " row " << r;
      }
    }
  }
}

TEST_P(Linear, GateKeepsItsAccuracyOverTheWholeRangeOfFloat) {
  // x = 1, gate weight = z, up weight = 1: h = silu(z).
  std::vector<float> z;
  for (float v = -110.0f; v < 110.0f; v += 0.173f) z.push_back(v);
  for (const float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 3e38f, -3e38f, std::numeric_limits<float>::infinity()})
    z.push_back(v);
  z.push_back(std::numeric_limits<float>::quiet_NaN());
  std::vector<float> h = z;
  const std::vector<float> up(z.size(), 1.0f);
  cpu::linear_kernels(isa()).gate(h.data(), up.data(), static_cast<Index>(z.size()));
  for (std::size_t i = 0; i + 1 < z.size(); ++i) {
    const double expected = double{z[i]} / (1.0 + std::exp(-double{z[i]}));
    if (std::isinf(z[i]))
      ASSERT_EQ(h[i], z[i]);
    else
      ASSERT_NEAR(double{h[i]}, expected, std::abs(expected) * 3e-7 + 1e-36) << "silu(" << z[i] << ")";
  }
  EXPECT_TRUE(std::isnan(h.back()));
}

TEST_P(Linear, DoesNotDependOnThreadsNorOnOtherRows) {
  const Index cols = 270, rows = 290;
  std::vector<std::pair<Product, Index>> cases;
  for (const Index tokens : {3, 8, 40, 300})
    for (const Product product : {Product::x_wt, Product::x_w}) cases.emplace_back(product, tokens);
  const TestWeight weight(type(), rows, cols, 9);
  for (const auto& [product, tokens] : cases) {
    const Index in = product == Product::x_wt ? cols : rows, out = product == Product::x_wt ? rows : cols;
    const TestMatrix x(tokens, in, 3, in);
    TestMatrix y1(tokens, out, 4, out), y4(tokens, out, 5, out), part(tokens - 1, out, 6, out);
    Cpu one{{.threads = 1}}, four{{.threads = 4}};
    const LinearJob job1{weight.view, x.view, y1.view, nullptr, product},
        job4{weight.view, x.view, y4.view, nullptr, product};
    run_linear(one, std::span(&job1, 1), isa());
    run_linear(four, std::span(&job4, 1), isa());
    const View<const float, 2> tail = View<const float, 2>(x.view).middle_rows(1, tokens - 1);
    const LinearJob rest{weight.view, tail, part.view, nullptr, product};
    run_linear(one, std::span(&rest, 1), isa());
    for (Index t = 0; t < tokens; ++t) {
      for (Index r = 0; r < out; ++r) {
        ASSERT_EQ(y1.view(t, r), y4.view(t, r)) << "threads, " << tokens << " tokens";
        if (t > 0) { ASSERT_EQ(y1.view(t, r), part.view(t - 1, r)) << "rows, " << tokens << " tokens, token " << t; }
      }
    }
  }
}

TEST_P(Linear, AllocatesNothingOnceWarm) {
  const TestWeight weight(type(), 256, 256, 9);
  const TestMatrix x(40, 256, 3, 256);
  TestMatrix y(40, 256, 4, 256);
  const LinearJob job{weight.view, x.view, y.view};
  run_linear(device, std::span(&job, 1), isa());
  const Index held = device.scratch_bytes();
  for (int i = 0; i < 3; ++i) run_linear(device, std::span(&job, 1), isa());
  EXPECT_EQ(device.scratch_bytes(), held);
}

TEST_P(Linear, ANanWeightMakesItsOutputNan) {
  for (const Index tokens : {1, 4, 20}) {
    TestWeight weight(type(), 40, 70, 3);
    const Index bad = 17 * 70 + 69;
    switch (type()) {
      case DType::bf16:
        reinterpret_cast<bf16*>(weight.data.data())[bad].bits = 0xffc0;
        break;
      case DType::f16:
        reinterpret_cast<f16*>(weight.data.data())[bad].bits = 0x7e00;
        break;
      case DType::f8_e4m3:
        reinterpret_cast<fp8_e4m3*>(weight.data.data())[bad].bits = 0xff;
        break;
      default:
        reinterpret_cast<float*>(weight.data.data())[bad] = std::numeric_limits<float>::quiet_NaN();
    }
    const TestMatrix x(tokens, 70, 3, 70);
    TestMatrix y(tokens, 40, 4, 40);
    const LinearJob job{weight.view, x.view, y.view};
    run_linear(device, std::span(&job, 1), isa());
    for (Index t = 0; t < tokens; ++t)
      for (Index r = 0; r < 40; ++r) ASSERT_EQ(std::isnan(y.view(t, r)), r == 17) << tokens << " tokens, row " << r;
  }
}

TEST(LinearFp8, EveryCodeHasItsValueInEveryVariant) {
  for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
    if (!runs_here(isa)) continue;
    for (const Index tokens : {1, 20}) {
      Buffer<std::byte> data(256);
      for (Index i = 0; i < 256; ++i) data[i] = static_cast<std::byte>(i);
      const float scale = 0.5f;
      const WeightView weight{DType::f8_e4m3, data.data(), 256, 1, &scale, 1, 0};
      const std::vector<float> scales(2, 0.5f);
      WeightView tall = weight;
      tall.scales = scales.data();
      std::vector<float> x(static_cast<std::size_t>(tokens), 2.0f), y(static_cast<std::size_t>(tokens * 256));
      const LinearJob job{tall, {x.data(), tokens, 1}, {y.data(), tokens, 256}};
      Cpu device{{.threads = 1}};
      run_linear(device, std::span(&job, 1), isa);
      for (Index code = 0; code < 256; ++code) {
        fp8_e4m3 element;
        element.bits = static_cast<std::uint8_t>(code);
        const float expected = static_cast<float>(element), found = y[static_cast<std::size_t>(code)];
        if (std::isnan(expected))
          EXPECT_TRUE(std::isnan(found)) << code;
        else
          EXPECT_EQ(found, expected) << code;
      }
    }
  }
}

ErrorCode code_of(const LinearJob& job, std::string* message = nullptr) {
  Cpu device{{.threads = 1}};
  try {
    linear(device, std::span(&job, 1));
  } catch (const Error& error) {
    if (message != nullptr) *message = error.message();
    return error.code();
  }
  return ErrorCode::count_;
}

TEST(LinearShapes, AreCheckedBeforeAnythingIsComputed) {
  const TestWeight weight(DType::bf16, 8, 16, 1);
  const TestMatrix x(2, 16, 1, 16);
  TestMatrix y(2, 8, 2, 8);
  const LinearJob good{weight.view, x.view, y.view};
  EXPECT_EQ(code_of(good), ErrorCode::count_);
  std::string message;
  LinearJob bad = good;
  bad.x.cols = 15;
  EXPECT_EQ(code_of(bad, &message), ErrorCode::op_shape);
  EXPECT_NE(message.find("x [2, 15] times the weight [8, 16] transposed"), std::string::npos) << message;
  bad = good, bad.y.cols = 7;
  EXPECT_EQ(code_of(bad), ErrorCode::op_shape);
  bad = good, bad.y.rows = 1;
  EXPECT_EQ(code_of(bad), ErrorCode::op_shape);
  bad = good, bad.product = Product::x_w;
  EXPECT_EQ(code_of(bad), ErrorCode::op_shape);
  bad = good, bad.weight.format = DType::i8;
  EXPECT_EQ(code_of(bad), ErrorCode::op_shape);
  bad = good, bad.weight.data = nullptr;
  EXPECT_EQ(code_of(bad), ErrorCode::op_shape);
  bad = good, bad.x.pitch = 3;
  EXPECT_EQ(code_of(bad), ErrorCode::op_shape);
  const std::int32_t outside[] = {0, 2}, negative[] = {0, -1}, inside[] = {1, 1};
  bad = good, bad.gather = outside;
  EXPECT_EQ(code_of(bad, &message), ErrorCode::op_shape);
  EXPECT_NE(message.find("gather[1] is 2"), std::string::npos) << message;
  bad.gather = negative;
  EXPECT_EQ(code_of(bad), ErrorCode::op_shape);
  bad.gather = inside;
  EXPECT_EQ(code_of(bad), ErrorCode::count_);
  const TestWeight fp8(DType::f8_e4m3, 8, 16, 1);
  bad = good, bad.weight = fp8.view, bad.weight.scales = nullptr;
  EXPECT_EQ(code_of(bad), ErrorCode::op_shape);
}

TEST(LinearShapes, NothingToDoIsLegalAndAnEmptySumIsZero) {
  Cpu device{{.threads = 2}};
  linear(device, std::span<const LinearJob>());
  gated_linear(device, std::span<const GatedJob>());
  const LinearJob empty{};
  linear(device, std::span(&empty, 1));
  float y[2] = {3.0f, 4.0f};
  const WeightView none{DType::f32, nullptr, 2, 0, nullptr, 0, 0};
  linear(device, none, View<const float, 2>(nullptr, 1, 0), View<float, 2>(y, 1, 2));
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[1], 0.0f);
}

TEST(LinearShapes, TheFrontDoorRunsTheBestVariantOfTheMachine) {
  EXPECT_TRUE(runs_here(best_isa()));
  EXPECT_EQ(name(Isa::avx512_bf16), "avx512_bf16");
  Cpu device{{.threads = 2}};
  const TestWeight gate(DType::bf16, 24, 48, 1), up(DType::bf16, 24, 48, 2);
  const TestMatrix x(2, 48, 1, 48);
  TestMatrix a(2, 24, 2, 24), b(2, 24, 3, 24);
  const GatedJob job{gate.view, up.view, x.view, a.view};
  gated_linear(device, std::span(&job, 1));
  const GatedJob again{gate.view, up.view, x.view, b.view};
  run_gated_linear(device, std::span(&again, 1), best_isa());
  for (Index t = 0; t < 2; ++t)
    for (Index r = 0; r < 24; ++r) EXPECT_EQ(a.view(t, r), b.view(t, r));
}

}  // namespace linear_test
