// One expert layer of the real DeepSeek-R1 shape (hidden 7168, 128 heads, 256 experts of 2048) in fp8 with random
// weights: the time of a decoded token against the bytes it must read. All experts need 11.5 GB; `--experts 32` keeps
// 32 distinct ones in memory and lets the others share them.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include <CLI/CLI.hpp>
#include <guild/guild.hpp>

namespace {

using Spec = guild::DeepSeekR1Spec;
using Layer = guild::DeepSeekR1Spec::ExpertLayer<guild::DeepSeekR1Spec>;
using Weights = Layer::Weights<guild::Published>;

/// A visitor that makes random fp8 matrices; experts beyond `distinct` share the memory of earlier ones.
struct Fill {
  guild::Cpu& device;
  guild::Index distinct;
  guild::Index allocated = 0;

  void operator()(const guild::Path&, guild::MatrixShape shape, guild::StoredMatrix& matrix) { matrix = make(shape); }
  void operator()(const guild::Path&, guild::StackShape shape, guild::StoredStack& stack) {
    std::vector<guild::StoredMatrix> experts;
    for (guild::Index e = 0; e < shape.count; ++e) {
      if (e < distinct) {
        experts.push_back(make(shape.matrix()));
        continue;
      }
      const guild::StoredMatrix& source = experts[static_cast<std::size_t>(e % distinct)];
      experts.push_back({source.format, shape.rows, shape.cols, source.data.part(0, source.data.size()),
                         source.scales.part(0, source.scales.size())});
    }
    stack = guild::StoredStack(std::move(experts));
  }
  void operator()(const guild::Path& path, guild::VectorShape shape, guild::StoredVector& vector) {
    vector.data = guild::Buffer<float>(shape.size);
    if (path.name() == "weight") std::fill(vector.data.view().begin(), vector.data.view().end(), 1.0f);
  }

  guild::StoredMatrix make(guild::MatrixShape shape) {
    guild::StoredMatrix m{guild::DType::f8_e4m3, shape.rows, shape.cols,
                          guild::Buffer<std::byte>::uninitialized(shape.rows * shape.cols),
                          guild::Buffer<std::byte>(4 * ((shape.rows + 127) / 128) * ((shape.cols + 127) / 128))};
    for (float& scale : m.scales_as<float>()) scale = 1e-3f;
    device.run(shape.rows, [&](guild::Index row, int) {  // magnitudes from 0.25 to 8, either sign
      guild::Random random(7, static_cast<std::uint64_t>(allocated + row));
      for (guild::Index i = 0; i < shape.cols; ++i) {
        const std::uint32_t bits = random.bits();
        m.data[row * shape.cols + i] = static_cast<std::byte>((bits & 0x80U) | (0x28U + bits % 40U));
      }
    });
    allocated += m.bytes();
    return m;
  }
};

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

int main(int argc, char** argv) {
  int experts = 256, threads = 0, tokens = 20, context = 128;
  CLI::App app("Times one expert layer of DeepSeek-R1");
  app.add_option("--experts", experts, "distinct experts in memory (44 MB each)")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("-t,--threads", threads, "threads; 0: all processors");
  app.add_option("-n,--tokens", tokens, "tokens to decode")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("-c,--context", context, "tokens already in the cache")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    guild::Cpu device({.threads = threads});
    Weights weights;
    Fill fill{device, experts};
    Layer::visit(fill, guild::Path(), weights);
    std::printf("one layer of DeepSeek-R1: %.2f GB of fp8 weights (%d distinct experts), %d threads\n",
                static_cast<double>(fill.allocated) * 1e-9, experts, device.threads());

    // A token reads attention, router and shared expert, and the weights of its top_k experts.
    constexpr double expert_bytes = 3.0 * Spec::experts.hidden * Spec::config.hidden * (1.0 + 4.0 / (128 * 128));
    const double bytes = static_cast<double>(fill.allocated) - (experts - Spec::routing.top_k) * expert_bytes;

    Layer::Cache cache;
    cache.reserve(context + tokens + 1);
    const auto cache_of = [&](int) -> Layer::Cache& { return cache; };
    const auto run = [&](guild::Index position, guild::Index rows) {
      auto scratch = device.scratch();
      const auto x = scratch.take<float>(rows, Spec::config.hidden);
      const guild::View<std::int32_t> positions = scratch.take<std::int32_t>(rows);
      guild::Random random(11, static_cast<std::uint64_t>(position));
      for (float& value : guild::View<float>(x.data, rows * x.cols)) value = static_cast<float>(random.uniform() - 0.5);
      for (guild::Index i = 0; i < rows; ++i) positions[i] = static_cast<std::int32_t>(position + i);
      const guild::Chunk chunk{0, 0, rows, position};
      const double start = seconds();
      const guild::Pass pass{.device = device, .batch = {positions, positions, {&chunk, 1}}, .layer = 3};
      Layer::forward(pass, weights, cache_of, x, x);
      return seconds() - start;
    };
    const double prefill = run(0, context);
    std::vector<double> times;
    for (int i = 0; i < tokens; ++i) times.push_back(run(context + i, 1));
    std::nth_element(times.begin(), times.begin() + tokens / 2, times.end());
    const double token = times[static_cast<std::size_t>(tokens / 2)];
    std::printf("prefill of %d tokens: %.1f ms\n", context, prefill * 1e3);
    std::printf("decode: %.2f ms a token (median of %d) for %.0f MB it must read: %.1f GB/s\n", token * 1e3, tokens,
                bytes * 1e-6, bytes / token * 1e-9);
    std::printf("61 such layers: about %.2f tokens/s\n", 1.0 / (61 * token));
  } catch (const guild::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
