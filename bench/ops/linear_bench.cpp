// Linear layers against the ceilings of the machine, measured in the same run. A plain table: what counts is the share
// of the ceiling, probed right before and right after each row, because shared machines change within seconds.
//   linear_bench [threads] [filter]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <guild/cpu.hpp>
#include <guild/ops/linear/gated.hpp>
#include <guild/ops/linear/linear.hpp>
#include <string>
#include <vector>

#if __has_include(<Eigen/Dense>)
#include <Eigen/Dense>
#define GUILD_BENCH_EIGEN 1
#endif

#include "../ceilings.hpp"

namespace {

using namespace guild;
using namespace guild_bench;

struct Matrix {
  Buffer<std::byte> data;
  Buffer<float> scale;
  WeightView view;
  Matrix(DType type, Index rows, Index cols) {
    // Values matter little for speed, but must be ordinary numbers: bytes 0x30..0x3f give magnitudes around one.
    data = Buffer<std::byte>::uninitialized(rows * cols * bits(type) / 8);
    for (Index i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(0x30 + (i * 7 + i / 61) % 16);
    view = {type, data.data(), rows, cols, nullptr, 0, 0};
    if (type != DType::f8_e4m3) return;
    const Index across = (cols + scale_block - 1) / scale_block;
    scale = Buffer<float>::uninitialized((rows / scale_block + 1) * across);
    for (float& s : scale.view()) s = 0.001f;
    view.scales = scale.data();
    view.scale_pitch = across;
  }
};

/// In a Buffer, as all of the library: large ones lie on huge pages.
Buffer<float> numbers(Index count) {
  Buffer<float> x(count);
  for (Index i = 0; i < count; ++i) x[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) * 0.01f;
  return x;
}

/// Seconds of one call: the median of calls that fill about a second.
double time_of(const std::function<void()>& call) {
  call();
  std::vector<double> times;
  const double begin = seconds();
  while (times.size() < 5 || (seconds() - begin < 0.7 && times.size() < 500)) {
    const double start = seconds();
    call();
    times.push_back(seconds() - start);
  }
  return median(times);
}

struct Bench {
  Cpu device;
  BandwidthProbe bandwidth{device};
  std::string filter;

  /// Reading bound: GB/s of weights against the bandwidth probed before and after.
  void decode(const std::string& what, double bytes, const std::function<void()>& call) {
    if (what.find(filter) == std::string::npos) return;
    const double before = bandwidth(device), time = time_of(call), after = bandwidth(device);
    const double rate = bytes / time * 1e-9, ceiling = (before + after) / 2;
    std::printf("%-46s %9.1f us %7.1f GB/s  %5.1f %% of %.1f / %.1f GB/s\n", what.c_str(), time * 1e6, rate,
                100 * rate / ceiling, before, after);
    std::fflush(stdout);
  }
  /// Arithmetic bound: GFLOP/s against the peak of float multiply-adds probed before and after.
  void prefill(const std::string& what, double flops, const std::function<void()>& call) {
    if (what.find(filter) == std::string::npos) return;
    const double before = peak_gops(device, Peak::fp32), time = time_of(call), after = peak_gops(device, Peak::fp32);
    const double rate = flops / time * 1e-9, ceiling = (before + after) / 2;
    std::printf("%-46s %9.1f us %7.1f GFLOP/s  %5.1f %% of %.0f / %.0f GFLOP/s\n", what.c_str(), time * 1e6, rate,
                100 * rate / ceiling, before, after);
    std::fflush(stdout);
  }
};

std::string label(const char* what, DType type, Index m, Index n, Index k) {
  return std::string(what) + " " + std::string(name(type)) + " m" + std::to_string(m) + " n" + std::to_string(n) +
         " k" + std::to_string(k);
}

void dense(Bench& bench, DType type, Index m, Index n, Index k) {
  const Matrix w(type, n, k);
  const Buffer<float> x = numbers(m * k);
  Buffer<float> y(m * n);
  const auto call = [&] {
    linear(bench.device, w.view, View<const float, 2>(x.data(), m, k), View<float, 2>(y.data(), m, n));
  };
  if (m <= 16) bench.decode(label("linear", type, m, n, k), static_cast<double>(w.data.size()), call);
  if (m >= 4) bench.prefill(label("linear", type, m, n, k), 2.0 * static_cast<double>(m * n * k), call);
}

void transposed(Bench& bench, DType type, Index m, Index heads, Index rows, Index cols) {
  const Matrix w(type, heads * rows, cols);
  const Buffer<float> x = numbers(m * rows);
  Buffer<float> y(heads * m * cols);
  std::vector<LinearJob> jobs;
  for (Index h = 0; h < heads; ++h)
    jobs.push_back({w.view.middle_rows(h * rows, rows),
                    {x.data(), m, rows},
                    {y.data() + h * m * cols, m, cols},
                    nullptr,
                    Product::x_w});
  const auto call = [&] { linear(bench.device, jobs); };
  const std::string what = label("x W, each of many heads", type, m, cols, rows);
  if (m <= 16) bench.decode(what, static_cast<double>(w.data.size()), call);
  if (m >= 4) bench.prefill(what, 2.0 * static_cast<double>(m * heads * rows * cols), call);
}

/// `experts` jobs of m tokens each in one call.
void grouped(Bench& bench, DType type, Index experts, Index m, Index n, Index k, bool gated) {
  const Matrix w(type, experts * n * (gated ? 2 : 1), k);
  const Buffer<float> x = numbers(512 * k);
  Buffer<float> y(experts * m * n);
  std::vector<std::int32_t> gather;
  for (Index i = 0; i < experts * m; ++i) gather.push_back(static_cast<std::int32_t>(i * 97 % 512));
  std::vector<LinearJob> jobs;
  std::vector<GatedJob> gated_jobs;
  for (Index e = 0; e < experts; ++e) {
    const View<float, 2> out(y.data() + e * m * n, m, n);
    const View<const float, 2> in(x.data(), 512, k);
    if (gated)
      gated_jobs.push_back(
          {w.view.middle_rows(2 * e * n, n), w.view.middle_rows((2 * e + 1) * n, n), in, out, gather.data() + e * m});
    else
      jobs.push_back({w.view.middle_rows(e * n, n), in, out, gather.data() + e * m});
  }
  const auto call = [&] {
    if (gated)
      gated_linear(bench.device, gated_jobs);
    else
      linear(bench.device, jobs);
  };
  const std::string what = label(
      (gated ? "gated x" + std::to_string(experts) : "grouped x" + std::to_string(experts)).c_str(), type, m, n, k);
  if (m <= 16) bench.decode(what, static_cast<double>(w.data.size()), call);
  if (m >= 4) bench.prefill(what, 2.0 * static_cast<double>(experts * m * n * k * (gated ? 2 : 1)), call);
}

/// The three products of a trained layer, y = x W^T, dx = dy W and dw += dy^T x: `jobs` of m rows each in one call.
/// With more than one job, the rows are gathered from those of half as many jobs (each token goes to two experts).
void training(Bench& bench, DType type, Index jobs, Index m, Index n, Index k) {
  const Matrix w(type, jobs * n, k);
  const Index rows = jobs > 1 ? jobs * m / 2 : m;
  const Buffer<float> x = numbers(rows * k), dy = numbers(jobs * m * n);
  Buffer<float> y(jobs * m * n), dx(jobs * m * k);
  Buffer<float> dw(jobs * n * k);
  std::vector<std::int32_t> gather;
  for (Index i = 0; jobs > 1 && i < jobs * m; ++i) gather.push_back(static_cast<std::int32_t>(i * 3 % rows));
  std::vector<LinearJob> forward, backward;
  std::vector<WeightGradientJob<float>> gradient;
  for (Index j = 0; j < jobs; ++j) {
    const WeightView weight = w.view.middle_rows(j * n, n);
    const std::int32_t* at = jobs > 1 ? gather.data() + j * m : nullptr;
    const View<const float, 2> in(x.data(), rows, k), out_gradient(dy.data() + j * m * n, m, n);
    forward.push_back({weight, in, {y.data() + j * m * n, m, n}, at});
    backward.push_back({weight, out_gradient, {dx.data() + j * m * k, m, k}, nullptr, Product::x_w});
    gradient.push_back({m, out_gradient, in, {dw.data() + j * n * k, n, k}, nullptr, at});
  }
  const double flops = 2.0 * static_cast<double>(jobs * m * n * k);
  const std::string group = jobs > 1 ? " x" + std::to_string(jobs) : "";
  bench.prefill(label(("train y = x W^T" + group).c_str(), type, m, n, k), flops,
                [&] { linear(bench.device, forward); });
  bench.prefill(label(("train dx = dy W" + group).c_str(), type, m, n, k), flops,
                [&] { linear(bench.device, backward); });
  if (type == DType::f32)
    bench.prefill(label(("train dw += dy^T x" + group).c_str(), type, m, n, k), flops,
                  [&] { weight_gradient(bench.device, gradient); });
}

#if defined(GUILD_BENCH_EIGEN)
void eigen(Bench& bench, Index m, Index n, Index k) {
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Rows w = Rows::Constant(n, k, 0.5f), x = Rows::Constant(m, k, 0.25f);
  Rows y(m, n);
  bench.prefill(label("Eigen, one thread,", DType::f32, m, n, k), 2.0 * static_cast<double>(m * n * k),
                [&] { y.noalias() = x * w.transpose(); });
}
#endif

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  Bench bench{.device = Cpu{{.threads = threads, .isa = best_isa()}}, .filter = {}};
  bench.filter = argc > 2 ? argv[2] : "";
  std::printf(
      "%s, %d threads; peaks in registers: fp32 %.0f GFLOP/s, bf16 dot %.0f, int8 dot %.0f Gop/s (0: not on this "
      "machine)\n",
      std::string(name(best_isa())).c_str(), bench.device.threads(), peak_gops(bench.device, Peak::fp32),
      peak_gops(bench.device, Peak::bf16_dot), peak_gops(bench.device, Peak::int8_dot));
  for (const DType type : {DType::bf16, DType::f8_e4m3, DType::f16, DType::f32}) {
    for (const Index m : {1, 2, 3}) dense(bench, type, m, 65536, 2048);
    grouped(bench, type, 24, 1, 1408, 2048, true);
    transposed(bench, type, 1, 512, 128, 512);
  }
  for (const DType type : {DType::bf16, DType::f8_e4m3, DType::f32}) {
    for (const Index m : {4, 8, 16}) dense(bench, type, m, 65536, 2048);
    for (const Index m : {17, 32, 48, 512}) dense(bench, type, m, 4096, 2048);
    grouped(bench, type, 16, 48, 1408, 2048, true);
    grouped(bench, type, 16, 48, 2048, 1408, false);
    transposed(bench, type, 64, 128, 128, 512);
  }
  // Training: the miniature (hidden 144, experts of 72, dense 400, vocabulary 1536), then a model of 25 M parameters.
  for (const DType type : {DType::f32, DType::bf16}) {
    training(bench, type, 16, 1500, 72, 144);
    training(bench, type, 16, 1500, 144, 72);
    training(bench, type, 1, 6000, 144, 144);
    training(bench, type, 1, 6000, 400, 144);
    training(bench, type, 1, 6000, 1536, 144);
    training(bench, type, 16, 512, 256, 384);
    training(bench, type, 1, 4096, 384, 384);
    training(bench, type, 1, 4096, 512, 384);
    training(bench, type, 1, 4096, 384, 1024);
    training(bench, type, 1, 4096, 8192, 384);
  }
#if defined(GUILD_BENCH_EIGEN)
  // Eigen uses what the compiler was told of: with plain flags that is SSE2. Build with -march=native for its best.
  std::printf("Eigen was compiled for %s\n", Eigen::SimdInstructionSetsInUse());
  eigen(bench, 512, 4096, 2048);
  eigen(bench, 48, 1408, 2048);
#endif
}
