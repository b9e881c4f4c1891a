// The pieces of an optimizer's step on the GPU against the same pieces on the CPU. Exits with 0 (all agree), 1 (some
// differ) or 77 (no GPU: nothing was tested).
#include <guild/cpu.hpp>
#include <guild/device/cpu.hpp>
#include <guild/ops/common/rows/cast.hpp>
#include <guild/ops/common/rows/normal.hpp>
#include <guild/ops/optimizer/adamw.hpp>
#include <guild/ops/optimizer/rows/newton_schulz.hpp>
#include <guild/ops/optimizer/sum_of_squares.hpp>

#include "twin.cuh"

namespace {
using guild::DeviceView;
using namespace guild_test;

template <class Device, class Job>
void run_job(Device& device, const Job& job) {
  guild::for_each_piece(device, std::span<const Job>(&job, 1));
}

void adamw(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(1);
  auto w = matrix<float>(cuda, random, 2, 6000), g = matrix<float>(cuda, random, 2, 6000),
       m = matrix<float>(cuda, random, 2, 6000);
  Twin<float> v(cuda, 2, 6000, 6000, std::vector<float>(12000, 0.25f));
  const auto step = [](auto& device, View<float, 2> w_, View<float, 2> g_, View<float, 2> m_, View<float, 2> v_) {
    std::vector<guild::AdamWJob<float>> jobs;  // two tensors, and one without elements between them
    for (Index row : {0, 1}) {
      jobs.push_back(
          {w_.row(row), g_.row(row), m_.row(row), v_.row(row), 0.5f, 0.9f, 0.95f, 1e-2f, 2.0f, 1e-8f, 1e-3f});
      jobs.push_back({});
    }
    guild::adamw(device, std::span<const guild::AdamWJob<float>>(jobs));
  };
  step(cpu, w.on_host(), g.on_host(), m.on_host(), v.on_host());
  step(cuda, w.on_device(), g.on_device(), m.on_device(), v.on_device());
  w.compare(cuda, 2e-6, "adamw: weight");
  m.compare(cuda, 2e-6, "adamw: first moment");
  v.compare(cuda, 2e-6, "adamw: second moment");
}

void muon(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(2);
  const Index rows = 67, cols = 83, size = rows * cols;
  auto w = matrix<float>(cuda, random, 1, size), g = matrix<float>(cuda, random, 1, size),
       b = matrix<float>(cuda, random, 1, size), u = matrix<float>(cuda, random, 1, size),
       y = matrix<float>(cuda, random, 1, size);
  auto gram = matrix<float>(cuda, random, 1, rows * rows), square = matrix<float>(cuda, random, 1, rows * rows);
  const auto step = [&](auto& device, auto at) {
    run_job(device, guild::MomentumJob<float>{at(g), at(b), at(u), 0.5f, 0.9f});
    run_job(device, guild::DescendJob<float>{at(w), at(u), 0.1f, 0.01f});
    run_job(device, guild::TransposeJob<float>{{at(u).data, rows, cols}, {at(y).data, cols, rows}});
    run_job(device, guild::PolynomialJob<float>{at(gram), at(square), rows, 3.0f, -4.0f, 2.0f});
  };
  step(cpu, [](auto& twin) { return twin.on_host().row(0); });
  step(cuda, [](auto& twin) { return twin.on_device().row(0); });
  b.compare(cuda, 1e-6, "momentum");
  u.compare(cuda, 2e-6, "momentum: update");
  w.compare(cuda, 2e-6, "descend");
  y.compare(cuda, 2e-6, "transpose");
  square.compare(cuda, 1e-5, "polynomial");
}

void others(guild::Cpu& cpu, guild::Cuda& cuda) {
  std::mt19937 random(3);
  const Index size = 10001;
  auto x = matrix<float>(cuda, random, 1, size), z = matrix<float>(cuda, random, 1, size);
  Twin<guild::bf16> rounded(cuda, 1, size, size, std::vector<guild::bf16>(static_cast<std::size_t>(size)));
  run_job(cpu, guild::CastJob{x.on_host().row(0), rounded.host.data(), guild::DType::bf16});
  run_job(cuda, guild::CastJob{x.on_device().row(0), rounded.device.data(), guild::DType::bf16});
  std::vector<guild::bf16> got(rounded.host.size());
  guild::copy_to_host<guild::bf16>(cuda, rounded.device.view(), {got.data(), size});
  const bool same = got == rounded.host;
  failures += same ? 0 : 1;
  std::printf("%-6s cast\n", same ? "ok" : "FAILED");

  const DeviceView<const float> on_host[] = {x.on_host().row(0), {}, z.on_host().row(0)};
  const DeviceView<const float> on_device[] = {x.on_device().row(0), {}, z.on_device().row(0)};
  const double expected = guild::sum_of_squares(cpu, std::span<const DeviceView<const float>>(on_host));
  const double found = guild::sum_of_squares(cuda, std::span<const DeviceView<const float>>(on_device));
  const bool equal = std::abs(found - expected) <= 1e-12 * expected;
  failures += equal ? 0 : 1;
  std::printf("%-6s sum_of_squares %.17g, expected %.17g\n", equal ? "ok" : "FAILED", found, expected);

  run_job(cpu, guild::NormalJob{z.on_host().row(0), 7, 3, 0.5});
  run_job(cuda, guild::NormalJob{z.on_device().row(0), 7, 3, 0.5});
  z.compare(cuda, 1e-6, "normal");
}

int run() {
  guild::Cuda cuda;
  guild::Cpu cpu({.threads = 2});
  adamw(cpu, cuda);
  muon(cpu, cuda);
  others(cpu, cuda);
  cuda.synchronize();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const guild::Error& error) {
    if (error.code() == guild::ErrorCode::dev_unavailable) {
      std::printf("no CUDA device, skipped: %s\n", error.what());
      return 77;
    }
    std::printf("FAILED %s\n", error.what());
    return 1;
  }
}
