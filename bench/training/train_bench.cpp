// Training steps of two models: time, memory and share of the machine's float peak, each row in a process of its own.
//   train_bench [--threads N] [--steps N] [--rows NAME,NAME...]
//   train_bench --pair "python3 bench/reference/train_reference.py" [--rounds N]
//   train_bench --noise N --threads 1
// The models, tokens and batches are those of bench/reference/train_reference.py: `mini`, 48 sequences of 128 tokens,
// and `moe25`, 24.1 million parameters, 8 sequences of 512. With --pair (or GUILD_BENCH_PAIR in the environment) rows
// of that script run in turns with ours, with the same number of threads, and the ratios of medians are printed.
// --noise: N steps of `moe25` as it is and with NoisyTopKRouter, in turns in one process, and the ratio of their
// processor times.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/model_size.hpp>
#include <guild/cpu.hpp>
#include <guild/io/json.hpp>
#include <guild/models/mini_r1.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/noisy_top_k_router.hpp>
#include <guild/training/initialize.hpp>
#include <guild/training/trainer.hpp>

#include "../ceilings.hpp"
#include "runs.hpp"

namespace {

using namespace guild;
using namespace guild_bench;

struct Moe25Spec : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 8192, .hidden = 384, .layers = 8, .context = 2048};
  static constexpr MlaConfig attention = {
      .heads = 6, .query_rank = 0, .latent_rank = 128, .nope_dim = 32, .rope_dim = 32, .value_dim = 64};
  static constexpr DenseConfig dense = {.hidden = 1024, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 16, .top_k = 4, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 96, .shared = 1};
};
struct Moe25RecomputedSpec : Moe25Spec {
  template <class LayerStack>
  using Activations = Recompute<LayerStack>;
};
struct Moe25NoisySpec : Moe25Spec {
  static constexpr TopKConfig routing = {
      .experts = 16, .top_k = 4, .scoring = Scoring::softmax, .selection = Selection::greedy, .scale = 2.5};
  template <class S>
  using Router = NoisyTopKRouter<S>;
};

struct Settings {
  int threads = 0;
  int steps = 10;
  int rounds = 3;
};

constexpr int warm_up = 2;  // steps that are not counted: memory is taken for the first time

/// The reference's token i of a run: splitmix64(i) % vocab.
std::int32_t token(std::uint64_t i, std::int64_t vocab) {
  std::uint64_t z = (i + 1) * 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return static_cast<std::int32_t>((z ^ (z >> 31)) % static_cast<std::uint64_t>(vocab));
}

void fill(TrainingBatch& batch, int step, int sequences, int length, std::int64_t vocab) {
  batch.clear();
  std::vector<std::int32_t> whole(static_cast<std::size_t>(length) + 1);
  for (int b = 0; b < sequences; ++b) {
    for (std::size_t i = 0; i < whole.size(); ++i)
      whole[i] = token(
          (static_cast<std::uint64_t>(step) * static_cast<std::uint64_t>(sequences) + static_cast<std::uint64_t>(b)) *
                  whole.size() +
              i,
          vocab);
    batch.append(std::span(whole).first(whole.size() - 1), std::span(whole).last(whole.size() - 1));
  }
}

/// The elements of matrices that a token is multiplied with: chosen experts only, the head once for each prediction.
template <class Model>
struct ActiveParameters {
  double count = 0;
  template <class Tensor>
  void operator()(const Path& path, const MatrixShape& shape, const Tensor&) {
    bool expert = false, embedding = false;
    for (const Path* step = &path; step != nullptr; step = step->parent()) {
      expert = expert || step->name() == "experts";
      embedding = embedding || step->name() == "embedding" || step->name() == "mtp_embedding";
    }
    if (embedding) return;  // mtp_head shares the head's values, and multiplies
    constexpr TopKConfig routing = Model::Spec::routing;
    count += (expert ? static_cast<double>(routing.top_k) / routing.experts : 1.0) *
             static_cast<double>(shape.rows * shape.cols);
  }
  template <class Tensor>
  void operator()(const Path& path, const StackShape& shape, const Tensor& stack) {
    for (Index e = 0; e < shape.count; ++e) (*this)(path, shape.matrix(), stack);
  }
  template <class Tensor>
  void operator()(const Path&, const VectorShape&, const Tensor&) {}
};

/// Multiplications and additions of a step that the model needs, whatever is computed twice: 6 for each active
/// parameter and token (forward 2, backward 4), and in each layer 6 (query + value) for each head and pair of tokens
/// that see each other.
template <class Model, class Weights>
double step_flops(const Weights& weights, int sequences, int length) {
  ActiveParameters<Model> active;
  Model::visit(active, Path(), weights);
  constexpr MlaConfig attention = Model::Spec::attention;
  const double pairs = 0.5 * sequences * length * (length + 1.0);
  const double layers = Model::config.layers + static_cast<double>(weights.mtp.size());
  return 6.0 * active.count * sequences * length +
         layers * 6.0 * attention.heads * (attention.query_dim() + attention.value_dim) * pairs;
}

template <class Model, class Compute>
void measure(const char* name, const Settings& settings, const OptimizerOptions& optimizer, int sequences, int length,
             std::size_t mtp) {
  Cpu device({.threads = settings.threads});
  typename Model::template Weights<Dense<float>> weights;
  weights.mtp.resize(mtp);
  initialize<Model>(device, weights, {.seed = 1, .deviation = 0.02});
  const double flops = step_flops<Model>(weights, sequences, length);
  Index elements = 0;
  for_each_tensor<Model>(
      [&](const Path&, const TensorShape& shape, TensorRole, const auto&) { elements += shape.size(); }, weights);
  Trainer<Model, Cpu, Compute> trainer(device, std::move(weights), {.optimizer = optimizer});
  TrainingBatch batch;
  std::vector<double> times, peaks;
  double first = 0, last = 0;
  Index memory = 0;
  for (int step = 0; step < settings.steps + warm_up; ++step) {
    fill(batch, step, sequences, length, Model::config.vocab);
    if (step >= warm_up) peaks.push_back(peak_gops(device, Peak::fp32, 1));
    const double begin = seconds();
    const StepReport report = trainer.step(batch);
    if (step >= warm_up) times.push_back(seconds() - begin);
    last = report.losses.loss();
    if (step == 0) first = last;
    memory = report.memory_bytes;
  }
  // Weights, gradients and copies; what is left are activations and scratch.
  Index fixed = elements * Index{2 * sizeof(float) + (std::is_same_v<Compute, float> ? 0 : sizeof(Compute))};
  fixed += trainer.optimizer().bytes();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double time = median(times), tokens = static_cast<double>(batch.size());
  std::printf(
      "{\"name\": \"%s\", \"threads\": %d, \"seconds\": %.5f, \"fastest\": %.5f, \"tokens_per_second\": %.0f, "
      "\"gflops\": %.2f, \"peak\": %.2f, \"rss_mib\": %ld, \"activations_mib\": %.1f, \"scratch_mib\": %.1f, "
      "\"loss\": [%.4f, %.4f]}\n",
      name, device.threads(), time, *std::min_element(times.begin(), times.end()), tokens / time, flops / time * 1e-9,
      median(peaks), usage.ru_maxrss / 1024,
      static_cast<double>(memory - fixed - trainer.device().scratch_bytes()) / (1 << 20),
      static_cast<double>(trainer.device().scratch_bytes()) / (1 << 20), first, last);
}

using Mini = Transformer<MiniR1Spec>;
using Moe25 = Transformer<Moe25Spec>;
using Moe25Recomputed = Transformer<Moe25RecomputedSpec>;

const AdamW adamw_of_reference{.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1};
const Muon muon_of_example{.lr = 4e-3, .weight_decay = 0.02, .rest = {.lr = 3e-3, .beta2 = 0.98, .weight_decay = 0}};

/// Steps of the same batches with and without noise in the routers: whoever is first takes turns too.
void with_noise(const Settings& settings, int steps) {
  const auto trainer = [&]<class Model>(std::type_identity<Model>) {
    Cpu device({.threads = settings.threads});
    typename Model::template Weights<Dense<float>> weights;
    initialize<Model>(device, weights, {.seed = 1, .deviation = 0.02});
    return Trainer<Model>(device, std::move(weights), {.optimizer = adamw_of_reference});
  };
  auto plain = trainer(std::type_identity<Moe25>());
  auto noisy = trainer(std::type_identity<Transformer<Moe25NoisySpec>>());
  TrainingBatch batch;
  const auto time = [&](auto& of) {
    const double begin = runs::processor_seconds();
    (void)of.step(batch);
    return runs::processor_seconds() - begin;
  };
  std::vector<double> of_plain, of_noisy, ratios;
  for (int step = 0; step < steps + warm_up; ++step) {
    fill(batch, step, 8, 512, Moe25::config.vocab);
    double a = step % 2 == 0 ? time(plain) : 0;
    const double b = time(noisy);
    if (step % 2 != 0) a = time(plain);
    if (step >= warm_up) of_plain.push_back(a), of_noisy.push_back(b), ratios.push_back(b / a);
  }
  std::sort(ratios.begin(), ratios.end());
  std::printf("moe25, %d steps: median %.3f s, with noisy top-k %.3f s: %.4f times (half of the turns %.4f to %.4f)\n",
              steps, median(of_plain), median(of_noisy), median(ratios), ratios[ratios.size() / 4],
              ratios[ratios.size() * 3 / 4]);
}

struct Row {
  const char* name;
  void (*run)(const char* name, const Settings&);
};
const Row all_rows[] = {
    {"mini adamw",
     [](const char* n, const Settings& s) { measure<Mini, float>(n, s, adamw_of_reference, 48, 128, 0); }},
    {"mini muon", [](const char* n, const Settings& s) { measure<Mini, float>(n, s, muon_of_example, 48, 128, 0); }},
    {"mini muon mtp",
     [](const char* n, const Settings& s) { measure<Mini, float>(n, s, muon_of_example, 48, 128, 1); }},
    {"mini adamw bf16",
     [](const char* n, const Settings& s) { measure<Mini, bf16>(n, s, adamw_of_reference, 48, 128, 0); }},
    {"moe25 adamw",
     [](const char* n, const Settings& s) { measure<Moe25, float>(n, s, adamw_of_reference, 8, 512, 0); }},
    {"moe25 adamw bf16",
     [](const char* n, const Settings& s) { measure<Moe25, bf16>(n, s, adamw_of_reference, 8, 512, 0); }},
    {"moe25 adamw recompute",
     [](const char* n, const Settings& s) { measure<Moe25Recomputed, float>(n, s, adamw_of_reference, 8, 512, 0); }},
};

/// The last line that a command prints.
std::string last_line_of(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {};
  std::string text;
  char part[4096];
  for (std::size_t got; (got = std::fread(part, 1, sizeof part, pipe)) > 0;) text.append(part, got);
  pclose(pipe);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.find_last_of('\n') + 1);
}

/// What one process measured; empty if it did not work.
struct Result {
  double seconds = 0, rate = 0, gflops = 0, peak = 0, rss = 0, activations = 0, scratch = 0, first = 0, last = 0;
  int threads = 0;
};
bool run(const std::string& command, Result& result) {
  const std::string line = last_line_of(command);
  try {
    const Json json = Json::parse(line, {});
    const auto number = [&](const char* key) {
      const auto found = json.find(key);
      return found ? found->number() : 0.0;
    };
    result = {.seconds = json["seconds"].number(),
              .rate = json["tokens_per_second"].number(),
              .gflops = number("gflops"),
              .peak = number("peak"),
              .rss = json["rss_mib"].number(),
              .activations = number("activations_mib"),
              .scratch = number("scratch_mib"),
              .first = json["loss"][0].number(),
              .last = json["loss"][1].number(),
              .threads = static_cast<int>(json["threads"].integer())};
    return true;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n  printed: %s\n  %s\n", command.c_str(), line.c_str(), error.what());
    return false;
  }
}

std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) c == '\'' ? out += "'\\''" : out += c;
  return out + "'";
}
std::string own_command(const char* row, const Settings& settings) {
  char path[4096];
  const auto size = readlink("/proc/self/exe", path, sizeof path);
  return quoted({path, static_cast<std::size_t>(std::max<long>(size, 0))}) + " --one " + quoted(row) + " --threads " +
         std::to_string(settings.threads) + " --steps " + std::to_string(settings.steps);
}

bool alone(const std::vector<std::string>& wanted, const Settings& settings) {
  std::printf(
      "A step: forward, backward, clipping, optimizer; medians of %d steps. GFLOP: 6 (active parameters) (tokens) + 6 "
      "(layers)\n(heads) (query + value dimension) (pairs of tokens that see each other); share of the fp32 peak "
      "probed "
      "before each step.\n\n",
      settings.steps);
  std::printf("%-22s %7s %9s %9s %8s %6s %9s %12s %9s %16s\n", "row", "threads", "step", "tokens/s", "GFLOP/s", "share",
              "peak RSS", "activations", "scratch", "loss");
  bool good = true;
  for (const Row& row : all_rows) {
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), row.name) == wanted.end()) continue;
    Result r;
    if (!run(own_command(row.name, settings), r)) {
      good = false;
      continue;
    }
    std::printf("%-22s %7d %6.1f ms %9.0f %8.1f %4.0f %% %5.0f MiB %8.1f MiB %5.1f MiB %8.4f %.4f\n", row.name,
                r.threads, r.seconds * 1e3, r.rate, r.gflops, 100.0 * r.gflops / r.peak, r.rss, r.activations,
                r.scratch, r.first, r.last);
    std::fflush(stdout);
  }
  return good;
}

/// Ours, theirs, ours, theirs: the machine's mood meets both.
bool paired(const std::string& script, const Settings& settings) {
  bool good = true;
  for (const std::string model : {"mini", "moe25"}) {
    const std::string ours = model + " adamw";
    for (const std::string row : {"sdpa:eager", "sdpa:grouped_mm", "sdpa:sorted"}) {
      std::vector<double> our_rates, their_rates, our_memory, their_memory, ratios;
      Result our, their;
      for (int round = 0; good && round < settings.rounds; ++round) {
        good = run(own_command(ours.c_str(), settings), our) &&
               run(script + " --model " + model + " --threads " + std::to_string(our.threads) + " --steps " +
                       std::to_string(settings.steps) + " --rows " + row,
                   their);
        if (!good) break;
        our_rates.push_back(our.rate);
        their_rates.push_back(their.rate);
        our_memory.push_back(our.rss);
        their_memory.push_back(their.rss);
        ratios.push_back(our.rate / their.rate);
      }
      if (!good) return false;
      std::printf(
          "%-5s %-16s %d threads, %d rounds: %8.0f tokens/s to %8.0f: %5.2f times (rounds from %.2f to %.2f); peak "
          "%4.0f "
          "MiB to %4.0f: %.2f; loss %.4f %.4f to %.4f %.4f\n",
          model.c_str(), row.c_str(), our.threads, settings.rounds, median(our_rates), median(their_rates),
          median(our_rates) / median(their_rates), *std::min_element(ratios.begin(), ratios.end()),
          *std::max_element(ratios.begin(), ratios.end()), median(our_memory), median(their_memory),
          median(our_memory) / median(their_memory), our.first, our.last, their.first, their.last);
      std::fflush(stdout);
    }
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  const char* environment = std::getenv("GUILD_BENCH_PAIR");
  std::string pair = environment != nullptr ? environment : "", one;
  int noise = 0;
  std::vector<std::string> rows;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i], value = argv[i + 1];
    if (option == "--threads")
      settings.threads = std::atoi(value.c_str());
    else if (option == "--steps")
      settings.steps = std::max(1, std::atoi(value.c_str()));
    else if (option == "--rounds")
      settings.rounds = std::max(1, std::atoi(value.c_str()));
    else if (option == "--noise")
      noise = std::atoi(value.c_str());
    else if (option == "--pair")
      pair = value;
    else if (option == "--one")
      one = value;
    else if (option == "--rows")
      for (std::size_t begin = 0; begin <= value.size();) {
        const std::size_t end = std::min(value.find(',', begin), value.size());
        rows.push_back(value.substr(begin, end - begin));
        begin = end + 1;
      }
  }
  if (noise > 0) {
    with_noise(settings, noise);
    return 0;
  }
  if (!one.empty()) {
    for (const Row& row : all_rows)
      if (one == row.name) row.run(row.name, settings);
    return 0;
  }
  return (pair.empty() ? alone(rows, settings) : paired(pair, settings)) ? 0 : 1;
}
