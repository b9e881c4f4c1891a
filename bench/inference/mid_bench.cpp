// A whole model of 4.8 billion parameters against the ceilings of the machine, probed in the same run.
//   mid_bench [bf16|fp8|f32 ...] [--threads N] [--tokens N] [--busy]
// decode : one token at a time; bytes of active weights per second as a share of the read bandwidth probed before and
//          after. prefill: 512 tokens; operations per second as a share of the peak for the type (the bf16 dot product
//          where the machine has one, else fp32 multiply-add, which is what its bf16 kernels use).
// --busy : decode once more beside a process that keeps one core busy, alternating with it stopped.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <guild/core/model_size.hpp>
#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>

#include "../ceilings.hpp"
#include "../random_weights.hpp"

namespace {

using namespace guild;
using namespace guild_bench;

struct MidSpec : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 32000, .hidden = 2048, .layers = 9, .context = 8192};
  static constexpr MlaConfig attention = {
      .heads = 16, .query_rank = 768, .latent_rank = 512, .nope_dim = 128, .rope_dim = 64, .value_dim = 128};
  static constexpr DenseConfig dense = {.hidden = 8192, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 64, .top_k = 6, .groups = 8, .top_groups = 4, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 1408, .shared = 1};
};
using Mid = Transformer<MidSpec>;

/// Counts the bytes of weights one token is multiplied with: all of them but the embedding and the experts not chosen.
struct ActiveBytes {
  double bytes = 0;
  template <class Shape, class Tensor>
  void operator()(const Path& path, Shape, const Tensor& matrix) {  // or a stack of them
    if (path.parent()->name() == "embedding") return;
    bool expert = false;
    for (const Path* step = &path; step != nullptr; step = step->parent()) expert = expert || step->name() == "experts";
    const double share = expert ? static_cast<double>(MidSpec::routing.top_k) / MidSpec::routing.experts : 1.0;
    bytes += share * static_cast<double>(matrix.bytes());
  }
  void operator()(const Path&, VectorShape, const StoredVector&) {}
};

struct Run {
  Cpu& device;
  const Mid::Weights<Published>& weights;
  Mid::Cache cache{};
  Buffer<float> logits = Buffer<float>(MidSpec::config.vocab);

  void operator()(Index rows, bool head) {
    auto scratch = device.scratch();
    const guild::View tokens = scratch.take<std::int32_t>(rows), positions = scratch.take<std::int32_t>(rows);
    for (Index i = 0; i < rows; ++i) {
      tokens[i] = static_cast<std::int32_t>((cache.length() + i) * 7919 % MidSpec::config.vocab);
      positions[i] = static_cast<std::int32_t>(cache.length() + i);
    }
    const Chunk chunk{0, 0, rows, cache.length()};
    Mid::Cache* caches = &cache;
    const auto states = scratch.take<float>(rows, MidSpec::config.hidden);
    Mid::forward(Pass{.device = device, .batch = {tokens, positions, {&chunk, 1}}}, weights, {&caches, 1}, states);
    if (head) Mid::logits(device, weights, states.middle_rows(rows - 1, 1), logits.view(1, MidSpec::config.vocab));
  }
};

/// Another process that keeps one core busy while it is not stopped.
class BusyProcess {
 public:
  BusyProcess() : child_(fork()) {
    if (child_ == 0)
      for (volatile long n = 0;;) n = n + 1;
    stop();
  }
  BusyProcess(const BusyProcess&) = delete;
  BusyProcess& operator=(const BusyProcess&) = delete;
  ~BusyProcess() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  void stop() { kill(child_, SIGSTOP); }
  void go() { kill(child_, SIGCONT); }

 private:
  pid_t child_;
};

/// Decode beside a busy core, as a share of decode without it: medians of rounds that alternate.
void measure_busy(Run& run, DType type, int threads) {
  BusyProcess other;
  std::vector<double> ratios;
  for (int round = 0; round < 8; ++round) {
    double rate[2];
    for (const bool busy : {false, true}) {
      busy ? other.go() : other.stop();
      const double start = seconds();
      for (int i = 0; i < 16; ++i) run(1, true);
      rate[busy ? 1 : 0] = 16 / (seconds() - start);
    }
    ratios.push_back(rate[1] / rate[0]);
  }
  std::printf(
      "%-5s decode beside one busy core of %d: %3.0f %% of the speed without (without that core %.0f %% would be "
      "left)\n",
      std::string(name(type)).c_str(), threads, 100.0 * median(ratios), 100.0 * (threads - 1) / threads);
  std::fflush(stdout);
}

void measure(Cpu& device, DType type, int tokens, bool busy) {
  Mid::Weights<Published> weights;
  FillRandom fill(device, type);
  Mid::visit(fill, Path(), weights);
  ActiveBytes active;
  Mid::visit(active, Path(), weights);
  const BandwidthProbe probe(device);
  Run run{device, weights};
  run.cache.reserve(2048);

  run(16, true);  // warm-up
  for (int i = 0; i < 3; ++i) run(1, true);
  std::vector<double> times, shares;
  double before = probe(device, 1);
  for (int round = 0; round < tokens / 8; ++round) {
    std::vector<double> part;
    for (int i = 0; i < 8; ++i) {
      const double start = seconds();
      run(1, true);
      part.push_back(seconds() - start);
    }
    const double after = probe(device, 1);
    times.push_back(median(part));
    shares.push_back(active.bytes / median(part) * 1e-9 / (0.5 * (before + after)));
    before = after;
  }
  std::printf(
      "%-5s decode  batch 1     %7.2f tokens/s  %6.1f GB/s (%.0f MB active)  %3.0f %% of the read bandwidth (median of "
      "rounds)\n",
      std::string(name(type)).c_str(), 1.0 / median(times), active.bytes / median(times) * 1e-9, active.bytes * 1e-6,
      100.0 * median(shares));
  std::fflush(stdout);

  if (busy) measure_busy(run, type, device.threads());
  const double dot = peak_gops(device, Peak::bf16_dot);
  times.clear();
  shares.clear();
  constexpr Index rows = 512;
  // As in docs/performance.md: multiplications of the linear layers, without head and attention scores.
  const ParameterCount count = parameter_count(config_of<MidSpec>);
  const double operations = 2.0 * rows * (static_cast<double>(count.active) - 32000.0 * 2048.0);
  for (int round = 0; round < 5; ++round) {
    const double peak =
        type == DType::bf16 && dot > 0 ? peak_gops(device, Peak::bf16_dot, 1) : peak_gops(device, Peak::fp32, 1);
    run.cache.rewind(run.cache.mark(0));
    const double start = seconds();
    run(rows, false);
    times.push_back(seconds() - start);
    shares.push_back(operations / times.back() * 1e-9 / peak);
  }
  std::printf("%-5s prefill 512 tokens  %7.1f tokens/s  %6.1f GFLOP/s  %3.0f %% of the %s peak (median of rounds)\n",
              std::string(name(type)).c_str(), static_cast<double>(rows) / median(times),
              operations / median(times) * 1e-9, 100.0 * median(shares),
              type == DType::bf16 && dot > 0 ? "bf16" : "fp32");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<DType> types;
  int threads = 0, tokens = 64;
  bool busy = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "bf16")
      types.push_back(DType::bf16);
    else if (argument == "fp8")
      types.push_back(DType::f8_e4m3);
    else if (argument == "f32")
      types.push_back(DType::f32);
    else if (argument == "--busy")
      busy = true;
    else if (argument == "--threads" && i + 1 < argc)
      threads = std::atoi(argv[++i]);
    else if (argument == "--tokens" && i + 1 < argc)
      tokens = std::atoi(argv[++i]);
  }
  if (types.empty()) types = {DType::bf16, DType::f8_e4m3};
  Cpu device({.threads = threads, .isa = best_isa()});
  std::printf("mid: %.1f million parameters, %.1f active; %d threads\n",
              static_cast<double>(parameter_count(config_of<MidSpec>).total) * 1e-6,
              static_cast<double>(parameter_count(config_of<MidSpec>).active) * 1e-6, device.threads());
  for (const DType type : types) measure(device, type, tokens, busy);
}
