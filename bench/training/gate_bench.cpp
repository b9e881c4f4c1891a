// What gates on far keys learn, and what windows cost: small models trained on two tasks at once, short copies and long
// recall. Prints one JSON object a line; bench/reference/plot_gates.py draws them.
//   gate_bench --arms far_bias,constant [--steps N] [--threads N] [--lr X]     copies and recall by two layers
//   gate_bench --arms global,hybrid,ungated,unrotated --steps 1500 --lr 1e-3 --residual 12        the same by six
//   layers
// A sequence begins with a dictionary of pairs (key, value) and goes on with blocks: [copy] a b c d e [copy] a b c d e,
// of which the second half is learned, and [recall] key value, of which the value is. Every letter of a copy may be a
// key of the dictionary, and every key may stand in a copy before: what is near misleads recall, and what is far
// misleads copies.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/cpu.hpp>
#include <guild/models/llama.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/layer_list.hpp>
#include <guild/training/initialize.hpp>
#include <guild/training/trainer.hpp>

namespace {

using namespace guild;

constexpr int letters = 40, pairs = 12, copied = 5;
constexpr std::int32_t copy_mark = letters, recall_mark = letters + 1;
constexpr Index window = 16, length = 128;

enum class Task : std::int8_t { none, copy, recall };

/// Tokens, what follows those that are learned from, and which task each belongs to.
struct Sequence {
  std::vector<std::int32_t> tokens{}, targets{};
  std::vector<Task> tasks{};

  Sequence(Random& random, Index size) {
    std::array<std::int32_t, letters> order{};
    const auto shuffle = [&] {
      for (int i = 0; i < letters; ++i) order[static_cast<std::size_t>(i)] = i;
      for (std::size_t i = letters - 1; i > 0; --i) std::swap(order[i], order[below(random, i + 1)]);
    };
    shuffle();
    std::array<std::int32_t, pairs> keys{}, values{};
    for (std::size_t i = 0; i < pairs; ++i) {
      put(keys[i] = order[i]);
      put(values[i] = static_cast<std::int32_t>(below(random, letters)));
    }
    while (static_cast<Index>(tokens.size()) < size) {
      if (below(random, 4) == 0) {
        shuffle();
        for (int half = 0; half < 2; ++half) {
          put(copy_mark, half == 1 ? order[0] : -1, Task::copy);
          for (std::size_t i = 0; i < copied; ++i)
            put(order[i], half == 1 && i + 1 < copied ? order[i + 1] : -1, Task::copy);
        }
      } else {
        const std::size_t pair = below(random, pairs);
        put(recall_mark);
        put(keys[pair], values[pair], Task::recall);
        put(values[pair]);
      }
    }
    tokens.resize(static_cast<std::size_t>(size)), targets.resize(tokens.size()), tasks.resize(tokens.size());
  }

 private:
  static std::size_t below(Random& random, std::size_t n) {
    return std::min(n - 1, static_cast<std::size_t>(random.uniform() * static_cast<double>(n)));
  }
  void put(std::int32_t token, std::int32_t target = -1, Task task = Task::none) {
    tokens.push_back(token), targets.push_back(target), tasks.push_back(target < 0 ? Task::none : task);
  }
};

/// Two layers of grouped-query attention, both under the same gate.
struct TwoLayers : LlamaDefaults {
  static constexpr TrunkConfig config = {.vocab = letters + 2, .hidden = 64, .layers = 2, .context = 2048};
  static constexpr GqaConfig attention = {.heads = 4, .key_heads = 4, .head_dim = 16};
  static constexpr DenseConfig dense = {.hidden = 128, .layers = 2};
};
struct FarBias : TwoLayers {
  template <class S>
  using Mixer = Gated<Gqa<S>, FarBiasGate<window>>;
};
struct Branches : TwoLayers {
  template <class S>
  using Mixer = Gated<Gqa<S>, BranchGate<window>>;
};
struct Heads : TwoLayers {
  template <class S>
  using Mixer = Gated<Gqa<S>, HeadGate<window>>;
};
/// Six layers that see all, and five that see a window before one that does, with sinks and a gate.
struct Global : TwoLayers {
  static constexpr TrunkConfig config = {.vocab = letters + 2, .hidden = 64, .layers = 6, .context = 2048};
  static constexpr DenseConfig dense = {.hidden = 128, .layers = 6};
};
struct Hybrid : Global {
  static constexpr GqaConfig attention = {.heads = 4, .key_heads = 4, .head_dim = 16, .sinks = true};
  static constexpr auto kinds = every<6>(6, 0, 1);
  template <class S>
  using Near = Block<S, Local<Gqa<S>, window>, DenseFeedForward<S>>;
  template <class S>
  using Far = Block<S, Gated<Gqa<S>, FarBiasGate<window>>, DenseFeedForward<S>>;
  template <class S>
  using Layers = LayerList<S::kinds, Near<S>, typename S::template Far<S>>;
};
/// The same without the gate, and with the gate but without positions in the layer that sees all.
struct Ungated : Hybrid {
  template <class S>
  using Far = Block<S, Gqa<S>, DenseFeedForward<S>>;
};
struct Unrotated : Hybrid {
  static constexpr GqaConfig far_attention = without_position(attention);
  template <class S>
  using Far = Block<S, Gated<Gqa<S, S::far_attention>, FarBiasGate<window>>, DenseFeedForward<S>>;
};

/// Sums of a gate's values over the tokens of each task.
class Gates : public Observer {
 public:
  explicit Gates(const std::vector<Task>& tasks) : tasks_(tasks) {}
  void on_gate(int layer, View<const float, 2> values) override {
    if (static_cast<std::size_t>(layer) >= sums_.size()) sums_.resize(static_cast<std::size_t>(layer) + 1);
    auto& of_layer = sums_[static_cast<std::size_t>(layer)];
    for (auto& sums : of_layer) sums.resize(static_cast<std::size_t>(values.cols));
    for (Index t = 0; t < values.rows; ++t) {
      if (t % length < 2 * pairs + window) continue;  // the dictionary is far
      auto& sums = of_layer[static_cast<std::size_t>(tasks_[static_cast<std::size_t>(t)])];
      for (Index h = 0; h < values.cols; ++h) sums[static_cast<std::size_t>(h)] += static_cast<double>(values(t, h));
    }
  }
  void print() const {
    bool first = true;
    std::printf(", \"gates\": [");
    for (std::size_t layer = 0; layer < sums_.size(); ++layer) {
      if (sums_[layer][0].empty()) continue;
      for (const Task task : {Task::copy, Task::recall}) {
        const auto& sums = sums_[layer][static_cast<std::size_t>(task)];
        std::printf("%s{\"layer\": %zu, \"task\": \"%s\", \"mean\": [", first ? "" : ", ", layer,
                    task == Task::copy ? "copy" : "recall");
        first = false;
        for (std::size_t h = 0; h < sums.size(); ++h)
          std::printf("%s%.4f", h > 0 ? ", " : "", sums[h] / count_of(task));
        std::printf("]}");
      }
    }
    std::printf("]");
  }

 private:
  [[nodiscard]] double count_of(Task task) const {
    double count = 0;
    for (std::size_t t = 0; t < tasks_.size(); ++t)
      count += tasks_[t] == task && static_cast<Index>(t) % length >= 2 * pairs + window ? 1 : 0;
    return count;
  }
  const std::vector<Task>& tasks_;
  std::vector<std::array<std::vector<double>, 3>> sums_{};
};

struct Score {
  double loss[3] = {}, right[3] = {}, count[3] = {};
  void print(const char* name) const {
    for (const Task task : {Task::copy, Task::recall}) {
      const auto i = static_cast<std::size_t>(task);
      std::printf(", \"%s_%s_loss\": %.4f, \"%s_%s_right\": %.4f", task == Task::copy ? "copy" : "recall", name,
                  loss[i] / count[i], task == Task::copy ? "copy" : "recall", name, right[i] / count[i]);
    }
  }
};

/// Sequences of `size` tokens that were not trained on. Recall is counted where it looks back `from` tokens and more.
template <class Model, class Weights>
Score evaluate(Cpu& device, const Weights& weights, Index size, Index from, bool print_gates) {
  Random random(99, static_cast<std::uint64_t>(size));
  Score score;
  TrainingBatch batch;
  std::vector<Task> tasks;
  for (int i = 0; i < 64; ++i) {
    const Sequence one(random, size);
    batch.append(one.tokens, one.targets);
    tasks.insert(tasks.end(), one.tasks.begin(), one.tasks.end());
  }
  Buffer<float> states(batch.size() * Model::config.hidden), logits(batch.size() * Model::config.vocab);
  const DeviceView<float, 2> x{states.data(), batch.size(), Model::config.hidden};
  const DeviceView<float, 2> y{logits.data(), batch.size(), Model::config.vocab};
  Gates gates(tasks);
  Model::forward(Pass{.device = device, .batch = batch.batch(), .observer = print_gates ? &gates : nullptr}, weights,
                 {}, x);
  Model::logits(device, weights, x, y);
  for (Index t = 0; t < batch.size(); ++t) {
    const auto i = static_cast<std::size_t>(tasks[static_cast<std::size_t>(t)]);
    const std::int32_t target = batch.targets[static_cast<std::size_t>(t)];
    if (target < 0 || t % size < from) continue;
    const float* const row = logits.data() + t * Model::config.vocab;
    const float peak = *std::max_element(row, row + Model::config.vocab);
    double sum = 0;
    for (Index v = 0; v < Model::config.vocab; ++v) sum += std::exp(double(row[v] - peak));
    score.loss[i] += std::log(sum) - double(row[target] - peak);
    score.right[i] += row[target] == peak ? 1 : 0;
    score.count[i] += 1;
  }
  if (print_gates) gates.print();
  return score;
}

struct Settings {
  int steps = 3000, threads = 0, sequences = 32;
  double lr = 3e-3, deviation = 0.05;
  Index residual = 0;  ///< InitializeOptions::residual_layers
  std::uint64_t seed = 1;
};

template <class Spec>
void train(const char* name, const Settings& settings, bool constant = false) {
  using Model = Transformer<Spec>;
  Cpu device({.threads = settings.threads});
  typename Model::template Weights<Dense<float>> weights;
  initialize<Model>(device, weights,
                    {.seed = settings.seed, .deviation = settings.deviation, .residual_layers = settings.residual});
  const ParameterGroups groups = [constant](const Path& path, const TensorShape& shape) {
    ParameterGroup group = default_group(path, shape);
    if (constant && passes_through(path, "far_bias") && path.name() != "bias") group.lr_scale = 0;
    return group;
  };
  Trainer<Model> trainer(device, std::move(weights),
                         {.optimizer = AdamW{.lr = settings.lr, .beta2 = 0.98, .weight_decay = 0.01},
                          .groups = groups,
                          .schedule = Schedule::warmup_cosine(100, settings.steps, 0.05)});
  Random random(settings.seed, 5);
  TrainingBatch batch;
  for (int step = 0; step < settings.steps; ++step) {
    batch.clear();
    for (int i = 0; i < settings.sequences; ++i) {
      const Sequence one(random, length);
      batch.append(one.tokens, one.targets);
    }
    const StepReport report = trainer.step(batch);
    if (step % 250 == 0 || step + 1 == settings.steps)
      std::fprintf(stderr, "%s step %d loss %.4f\n", name, step, report.losses.loss());
  }
  std::printf("{\"arm\": \"%s\", \"steps\": %d, \"seed\": %llu", name, settings.steps,
              static_cast<unsigned long long>(settings.seed));
  evaluate<Model>(device, trainer.weights(), length, 2 * pairs + window, true).print("trained");
  evaluate<Model>(device, trainer.weights(), 4 * length, 3 * length, false).print("four_times");
  std::printf("}\n");
  std::fflush(stdout);
}

struct Arm {
  const char* name;
  void (*run)(const char*, const Settings&);
};
const Arm arms[] = {
    {"far_bias", [](const char* name, const Settings& s) { train<FarBias>(name, s); }},
    {"constant", [](const char* name, const Settings& s) { train<FarBias>(name, s, true); }},
    {"branches", [](const char* name, const Settings& s) { train<Branches>(name, s); }},
    {"heads", [](const char* name, const Settings& s) { train<Heads>(name, s); }},
    {"none", [](const char* name, const Settings& s) { train<TwoLayers>(name, s); }},
    {"global", [](const char* name, const Settings& s) { train<Global>(name, s); }},
    {"hybrid", [](const char* name, const Settings& s) { train<Hybrid>(name, s); }},
    {"ungated", [](const char* name, const Settings& s) { train<Ungated>(name, s); }},
    {"unrotated", [](const char* name, const Settings& s) { train<Unrotated>(name, s); }},
};

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  std::string chosen = "far_bias,constant";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view option = argv[i];
    if (option == "--arms") chosen = argv[i + 1];
    if (option == "--steps") settings.steps = std::atoi(argv[i + 1]);
    if (option == "--threads") settings.threads = std::atoi(argv[i + 1]);
    if (option == "--lr") settings.lr = std::atof(argv[i + 1]);
    if (option == "--residual") settings.residual = std::atoi(argv[i + 1]);
    if (option == "--deviation") settings.deviation = std::atof(argv[i + 1]);
    if (option == "--seed") settings.seed = static_cast<std::uint64_t>(std::atoll(argv[i + 1]));
  }
  try {
    const std::string list = detail::text_of({",", chosen, ","});
    for (const Arm& arm : arms)
      if (list.find(detail::text_of({",", arm.name, ","})) != std::string::npos) arm.run(arm.name, settings);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
