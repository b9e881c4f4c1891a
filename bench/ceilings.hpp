// What this machine can do at best, measured when it is needed: read bandwidth and peaks of arithmetic.
// A speed means something only next to a ceiling taken at the same time: shared machines change within seconds.
#pragma once

#include <algorithm>
#include <chrono>
#include <guild/core/buffer.hpp>
#include <guild/device/cpu.hpp>
#include <guild/device/isa.hpp>
#include <vector>

namespace guild_bench {

using guild::Buffer;
using guild::Cpu;
using guild::Index;
using guild::Isa;

inline double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The median of `values` (not empty).
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Keeps a computed value alive.
template <class T>
void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

#if defined(__x86_64__)
namespace detail {

[[gnu::target("avx512f")]] inline void read_avx512(const std::byte* data, Index bytes) {
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (Index i = 0; i + 256 <= bytes; i += 256) {
    a = _mm512_xor_si512(a, _mm512_loadu_si512(data + i));
    b = _mm512_xor_si512(b, _mm512_loadu_si512(data + i + 64));
    c = _mm512_xor_si512(c, _mm512_loadu_si512(data + i + 128));
    d = _mm512_xor_si512(d, _mm512_loadu_si512(data + i + 192));
  }
  keep(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
}

[[gnu::target("avx2")]] inline void read_avx2(const std::byte* data, Index bytes) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (Index i = 0; i + 128 <= bytes; i += 128) {
    const auto* p = reinterpret_cast<const __m256i*>(data + i);
    a = _mm256_xor_si256(a, _mm256_loadu_si256(p));
    b = _mm256_xor_si256(b, _mm256_loadu_si256(p + 1));
    c = _mm256_xor_si256(c, _mm256_loadu_si256(p + 2));
    d = _mm256_xor_si256(d, _mm256_loadu_si256(p + 3));
  }
  keep(_mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
}

// Peaks: independent chains in registers, enough of them to hide the latency. Each returns its operations (mul + add =
// 2).
[[gnu::target("avx512f")]] inline double fma_avx512(Index rounds) {
  __m512 sum[12], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (auto& s : sum) s = y;
  for (Index i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) sum[k] = _mm512_fmadd_ps(sum[k], x, y);
  for (const auto& s : sum) keep(s);
  return static_cast<double>(rounds) * 12 * 16 * 2;
}

[[gnu::target("avx2,fma")]] inline double fma_avx2(Index rounds) {
  __m256 sum[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (auto& s : sum) s = y;
  for (Index i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) sum[k] = _mm256_fmadd_ps(sum[k], x, y);
  for (const auto& s : sum) keep(s);
  return static_cast<double>(rounds) * 12 * 8 * 2;
}

[[gnu::target("avx512f,avx512vnni")]] inline double int8_avx512(Index rounds) {
  __m512i sum[12], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(1);
  for (auto& s : sum) s = y;
  for (Index i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) sum[k] = _mm512_dpbusd_epi32(sum[k], x, y);
  for (const auto& s : sum) keep(s);
  return static_cast<double>(rounds) * 12 * 64 * 2;
}

[[gnu::target("avx512f,avx512bf16")]] inline double bf16_avx512(Index rounds) {
  __m512 sum[12];
  const __m512i ones = _mm512_set1_epi32(0x3f803f80);
  __m512bh x, y;
  __builtin_memcpy(&x, &ones, sizeof x);
  __builtin_memcpy(&y, &ones, sizeof y);
  for (auto& s : sum) s = _mm512_setzero_ps();
  for (Index i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) sum[k] = _mm512_dpbf16_ps(sum[k], x, y);
  for (const auto& s : sum) keep(s);
  return static_cast<double>(rounds) * 12 * 32 * 2;
}

}  // namespace detail
#endif

inline double fma_portable(Index rounds) {
  float sum[32];
  for (float& s : sum) s = 0.001f;
  for (Index i = 0; i < rounds; ++i) {
    for (float& s : sum) s = s * 0.999f + 0.001f;
    keep(sum);
  }
  return static_cast<double>(rounds) * 32 * 2;
}

/// Memory for the bandwidth probe: more than any cache holds, written once so that it is really there.
class BandwidthProbe {
 public:
  explicit BandwidthProbe(Cpu& device, Index bytes = Index{1} << 30) : data_(Buffer<std::byte>::uninitialized(bytes)) {
    device.run(chunks(), [&](Index i, int) { std::memset(data_.data() + i * chunk, 1, chunk); });
  }

  /// GB/s that the device's threads read together, each taking the next chunk when it has done one. Median of
  /// `repeats`.
  double operator()(Cpu& device, int repeats = 3) const {
    std::vector<double> rates;
    for (int r = 0; r < repeats; ++r) {
      const double start = seconds();
      device.run(chunks(), [&](Index i, int) { read(data_.data() + i * chunk); });
      rates.push_back(static_cast<double>(data_.size()) / (seconds() - start) * 1e-9);
    }
    return median(rates);
  }

 private:
  static constexpr Index chunk = 1 << 20;
  [[nodiscard]] Index chunks() const { return data_.size() / chunk; }
  static void read(const std::byte* data) {
#if defined(__x86_64__)
    if (guild::best_isa() >= Isa::avx512) return detail::read_avx512(data, chunk);
    if (guild::best_isa() == Isa::avx2) return detail::read_avx2(data, chunk);
#endif
    std::uint64_t sum = 0;
    for (Index i = 0; i < chunk; i += 8) {
      std::uint64_t word;
      std::memcpy(&word, data + i, 8);
      sum += word;
    }
    keep(sum);
  }

  Buffer<std::byte> data_;
};

enum class Peak { fp32, bf16_dot, int8_dot };

/// 10^9 operations per second of all threads together in registers alone; 0 where the machine lacks the instruction.
inline double peak_gops(Cpu& device, Peak peak, int repeats = 3) {
  double (*kernel)(Index) = peak == Peak::fp32 ? fma_portable : nullptr;
#if defined(__x86_64__)
  const Isa isa = guild::best_isa();
  if (peak == Peak::fp32 && isa >= Isa::avx512)
    kernel = detail::fma_avx512;
  else if (peak == Peak::fp32 && isa == Isa::avx2)
    kernel = detail::fma_avx2;
  if (peak == Peak::bf16_dot && isa == Isa::avx512_bf16) kernel = detail::bf16_avx512;
  if (peak == Peak::int8_dot && isa >= Isa::avx512 && __builtin_cpu_supports("avx512vnni"))
    kernel = detail::int8_avx512;
#endif
  if (kernel == nullptr) return 0.0;
  constexpr Index rounds = 20000;  // about 0.1 ms
  const Index chunks = 64 * device.threads();
  std::vector<double> rates;
  for (int r = 0; r < repeats; ++r) {
    const double start = seconds();
    device.run(chunks, [&](Index, int) { keep(kernel(rounds)); });
    rates.push_back(static_cast<double>(chunks) * kernel(1) * rounds / (seconds() - start) * 1e-9);
  }
  return median(rates);
}

}  // namespace guild_bench
