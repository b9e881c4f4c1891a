// A program of two translation units, this one compiled by the host compiler and link_cuda.cu by nvcc, which share the
// library's headers. Exits with 0, 1, or 77 when there is no GPU (that both halves link is tested all the same).
#include <cmath>
#include <cstdio>
#include <guild/device/cpu.hpp>
#include <guild/ops/norm/rms_norm.hpp>

#include "link.hpp"

namespace {
float norm_on_cpu(float value) {
  guild::Cpu device({.threads = 1});
  float x[4] = {value, value, value, value};
  const float weight[4] = {1, 1, 1, 1};
  guild::rms_norm(device, guild::View<const float>{weight, 4}, guild::View<float, 2>{x, 1, 4},
                  guild::View<float, 2>{x, 1, 4}, 0.5);
  return x[0];
}
}  // namespace

int main() {
  const float expected = norm_on_cpu(2.0f);
  if (std::abs(expected - 2.0f / std::sqrt(4.5f)) > 1e-6f) return 1;
  try {
    const float got = norm_on_cuda(2.0f);
    std::printf("CPU %.8g, CUDA %.8g\n", static_cast<double>(expected), static_cast<double>(got));
    return std::abs(got - expected) < 1e-6f ? 0 : 1;
  } catch (const guild::Error& error) {  // thrown by the other half
    if (error.code() == guild::ErrorCode::dev_unavailable) {
      std::printf("no CUDA device, skipped: %s\n", error.what());
      return 77;
    }
    std::printf("FAILED %s\n", error.what());
    return 1;
  }
}
