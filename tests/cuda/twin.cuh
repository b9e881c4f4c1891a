// The same matrix in host and device memory, filled alike and compared.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <guild/cuda.cuh>
#include <random>
#include <utility>
#include <vector>

namespace guild_test {
using guild::Index;
using guild::View;

inline int failures = 0;  ///< of `Twin::compare`, and of whatever a test counts itself

template <class T>
struct Twin {  ///< the same matrix in host and device memory
  Index rows, cols, pitch;
  std::vector<T> host;
  guild::CudaBuffer<T> device;

  Twin(guild::Cuda& cuda, Index rows_, Index cols_, Index pitch_, std::vector<T> values)
      : rows(rows_),
        cols(cols_),
        pitch(pitch_),
        host(std::move(values)),
        device(guild::CudaBuffer<T>::uninitialized(static_cast<Index>(host.size()))) {
    guild::copy_to_device<T>(cuda, {host.data(), static_cast<Index>(host.size())}, device.view());
  }
  View<T, 2> on_host() { return {host.data(), rows, cols, pitch}; }
  guild::DeviceView<T, 2> on_device() { return {device.data(), rows, cols, pitch}; }
  View<T> flat_host() { return {host.data(), static_cast<Index>(host.size())}; }

  void compare(guild::Cuda& cuda, double tolerance, const char* what) {
    std::vector<T> got(host.size());
    guild::copy_to_host<T>(cuda, device.view(), {got.data(), static_cast<Index>(got.size())});
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(host[i]));
      if (!(difference <= worst)) worst = difference;  // NaN counts
    }
    const bool good = worst <= tolerance;
    if (!good) ++failures;
    std::printf("%-6s %-52s worst difference %.3g, allowed %.3g\n", good ? "ok" : "FAILED", what, worst, tolerance);
  }
};

template <class T>
Twin<T> matrix(guild::Cuda& cuda, std::mt19937& random, Index rows, Index cols, Index spare = 0) {
  std::normal_distribution<double> normal;
  std::vector<T> values(static_cast<std::size_t>(rows * (cols + spare)));
  for (auto& value : values) value = static_cast<T>(normal(random));
  return Twin<T>(cuda, rows, cols, cols + spare, std::move(values));
}

}  // namespace guild_test
