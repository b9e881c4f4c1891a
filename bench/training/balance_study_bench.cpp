// What keeping experts in balance costs and brings: a small byte model trained with each policy on code, arithmetic and
// prose. One command from the root of guild, resumed arm by arm; ends with a table of the log.
//   balance_study_bench [--arms none,auxiliary,...] [--seeds 1,2,3] [--steps N] [--windows N] [--held_out N]
//                       [--threads N] [--lr X] [--out FILE]
// Arms, with their published numbers: `none`; `auxiliary` (Switch's loss, 0.01); `bias` (DeepSeek-V3's selection bias,
// 1e-3 a step); `noisy` (noisy top-k with importance and load, 0.1 each), `noisy_weak` (0.01 each); `buffering` (busy
// experts rest); `capacity` (auxiliary, and no expert serves more than 1.25 of its share in training); `switch`
// (Switch's router: one expert, at half the operations of the others, capacity 1.25, 2 at evaluation). Expert choice is
// left out: it cannot be causal. All arms of a seed see the same batches and begin with the same weights (the noisy
// router's own, as published, with zeros). Of held-out text are: bits a byte; load, the busiest expert's over the mean,
// of the mean layer; dead, how many of all layers' experts have less than a hundredth of the mean load; and how much
// changes when one of a token's experts is left out, of the mean token and choice, relative to what all its experts
// give (`spread`), and to the layer's output (`of_layer`). `trained_load` is of the last quarter of training, where
// `dropped` is the share of choices without room. bench/reference/plot_balance.py draws the log.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/io/json.hpp>
#include <guild/models/spec.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/capped.hpp>
#include <guild/modules/expert_buffering.hpp>
#include <guild/modules/noisy_top_k_router.hpp>
#include <guild/modules/switch_router.hpp>
#include <guild/ops/common/rows/fill.hpp>
#include <guild/training/initialize.hpp>
#include <guild/training/trainer.hpp>

#include "../../examples/domains.hpp"
#include "runs.hpp"

namespace {

using namespace guild;
using namespace runs;

constexpr std::size_t length = 64;

/// Which choice of a token is left out in which layer of the running program; `all`: each of them.
struct LeftOut {
  static constexpr Index all = -1;
  int layer = -1;
  Index choice = all;
};
LeftOut left_out;

/// A router whose tokens do without what is left out; the weights of their other experts stay as they are.
template <class RouterType>
struct LeavingOut : RouterType {
  template <class Device, class Weights, class Real, class Saved>
  static void forward(const Pass<Device>& pass, const Weights& weights, DeviceView<const Real, 2> x,
                      const Routing<Real>& routing, Saved* keep) {
    RouterType::forward(pass, weights, x, routing, keep);
    if (pass.layer != left_out.layer) return;
    const bool all = left_out.choice == LeftOut::all;
    const auto out = routing.weights.middle_cols(all ? 0 : left_out.choice, all ? routing.weights.cols : 1);
    for_each_row(pass.device, out.rows, out.cols, FillRow<Real>{out, Real(0)});
  }
};

struct Base : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 256, .hidden = 64, .layers = 4, .context = 64};
  static constexpr MlaConfig attention = {
      .heads = 4, .query_rank = 48, .latent_rank = 32, .nope_dim = 16, .rope_dim = 8, .value_dim = 16};
  static constexpr DenseConfig dense = {.hidden = 128, .layers = 1};
  static constexpr TopKConfig routing = {
      .experts = 16, .top_k = 2, .scoring = Scoring::softmax, .selection = Selection::greedy};
  static constexpr ExpertConfig experts = {.hidden = 32, .shared = 0};
};
struct Biased : Base {  // biases are 0 unless they are moved
  static constexpr TopKConfig routing = {.experts = 16, .top_k = 2, .scoring = Scoring::softmax};
  template <class S>
  using Router = LeavingOut<TopKRouter<S>>;
};
struct Buffered : Base {
  template <class S>
  using Router = LeavingOut<ExpertBuffering<TopKRouter<S>>>;
};
struct Noisy : Base {
  template <class S>
  using Router = LeavingOut<NoisyTopKRouter<S>>;
};
struct Limited : Base {
  static constexpr Capacity capacity = {.factor = 1.25};
  template <class S>
  using Router = LeavingOut<Capped<TopKRouter<S>, S::capacity>>;
};
struct Switch : Base {
  static constexpr TopKConfig routing = {
      .experts = 16, .top_k = 1, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = false};
  static constexpr Capacity capacity = {.factor = 1.25, .inference_factor = 2.0, .rounding = CapacityRounding::down};
  template <class S>
  using Router = LeavingOut<SwitchRouter<S>>;
};

struct Policy {
  BalanceOptions balance{};
  double bias_rate = 0;
};

struct Setting {
  const domains::Encoded& texts;
  const std::vector<domains::Domain>& domains;
  const Options& options;
  std::uint64_t seed = 1;
};

/// The output of one layer, and what routers did in a pass.
struct Watch : Observer {
  int layer = -1;
  std::vector<float> output{};
  RoutingStatistics routing{Base::config.layers, Base::routing.experts};
  void on_layer(int at, View<const float, 2> x) override {
    if (at != layer) return;
    output.clear();
    for (Index t = 0; t < x.rows; ++t) output.insert(output.end(), x.row(t).begin(), x.row(t).end());
  }
};

template <class Model>
using Dense32 = typename Model::template Weights<Dense<float>>;

template <class Spec>
void measure(Cpu& device, const Dense32<Transformer<Spec>>& weights, const TrainingBatch& batch, Line& line) {
  using Model = Transformer<Spec>;
  constexpr std::size_t hidden = Base::config.hidden;
  constexpr Index choices_of_token = Spec::routing.top_k;
  constexpr double layers = Base::config.layers - Base::dense.layers;
  Buffer<float> states(batch.size() * Base::config.hidden);
  const auto outputs = [&](int layer, LeftOut out) {
    Watch watch;
    watch.layer = layer;
    left_out = out;
    Model::forward(Pass{.device = device, .batch = batch.batch(), .observer = &watch, .counts = watch.routing.view()},
                   weights, {}, states.view(batch.size(), Base::config.hidden));
    left_out = {};
    return watch;
  };
  double load = 0, dead = 0, spread = 0, of_layer = 0;
  for (int layer = Base::dense.layers; layer < Base::config.layers; ++layer) {
    const Watch whole = outputs(layer, {});
    load += whole.routing.max_over_mean(layer) / layers;
    dead += static_cast<double>(whole.routing.dead_experts(layer).size());
    const std::vector<float> none = outputs(layer, {layer, LeftOut::all}).output;
    for (Index choice = 0; choice < choices_of_token; ++choice) {
      const std::vector<float> without = outputs(layer, {layer, choice}).output;
      double of_experts = 0, of_all = 0, tokens = 0;
      for (std::size_t t = 0; t < without.size(); t += hidden) {
        double change = 0, experts = 0, all = 0;
        for (std::size_t i = t; i < t + hidden; ++i) {
          change += std::pow(double(whole.output[i]) - double(without[i]), 2);
          experts += std::pow(double(whole.output[i]) - double(none[i]), 2);
          all += std::pow(double(whole.output[i]), 2);
        }
        if (experts == 0) continue;  // all its choices were dropped
        tokens += 1, of_experts += std::sqrt(change / experts), of_all += std::sqrt(change / all);
      }
      spread += of_experts / tokens / layers / double(choices_of_token);
      of_layer += of_all / tokens / layers / double(choices_of_token);
    }
  }
  line.add("load", load, 3);
  line.add("dead", dead, 0);
  line.add("spread", spread);
  line.add("of_layer", of_layer);
}

/// Weights that begin as those of the first arm, as far as they have the same tensors: numbers of a seed depend on a
/// tensor's place among all.
template <class Model>
Dense32<Model> first_weights(Cpu& device, std::uint64_t seed) {
  using First = Transformer<Biased>;
  Dense32<First> first;
  Dense32<Model> weights;
  initialize<First>(device, first, {.seed = seed, .deviation = 0.05});
  initialize<Model>(device, weights, {.seed = seed, .deviation = 0.05});
  std::map<std::string, const float*> known;
  for_each_tensor<First>([&](const Path& path, const TensorShape&, TensorRole,
                             const Buffer<float>& data) { known[path.str()] = data.data(); },
                         first);
  constexpr bool own_router = std::is_same_v<Model, Transformer<Noisy>>;
  for_each_tensor<Model>(
      [&](const Path& path, const TensorShape&, TensorRole, Buffer<float>& data) {
        const auto found = known.find(path.str());
        if (found == known.end() || (own_router && passes_through(path, "router"))) return;
        std::copy_n(found->second, data.size(), data.data());
      },
      weights);
  return weights;
}

template <class Spec>
void train(Log& log, const char* arm, const Setting& setting, const Policy& policy) {
  using Model = Transformer<Spec>;
  const Options& options = setting.options;
  const Index steps = options.integer("steps");
  Line line(arm, setting.seed, steps);
  if (log.has(line.begin())) return;
  const double begin = processor_seconds();
  Cpu device({.threads = static_cast<int>(options.integer("threads"))});
  const double lr = options.number("lr");
  Trainer<Model> trainer(device, first_weights<Model>(device, setting.seed),
                         {.optimizer = AdamW{.lr = lr},
                          .schedule = Schedule::warmup_cosine(std::min<Index>(20, steps - 1), steps, 0.1),
                          .bias_rate = policy.bias_rate,
                          .objective = {.balance = policy.balance},
                          .noise = {.on = true, .seed = setting.seed}});
  Random random(setting.seed, 5);
  double load = 0, dropped = 0, choices = 0, seen = 0;
  for (Index step = 0; step < steps; ++step) {
    const StepReport report = trainer.step(
        domains::draw(setting.texts.learned, random, static_cast<std::size_t>(options.integer("windows")), length));
    if (step % 50 == 0 || step + 1 == steps)
      std::fprintf(stderr, "%s seed %d step %d of %d: loss %.3f, %.0f s\n", arm, static_cast<int>(setting.seed),
                   static_cast<int>(step), static_cast<int>(steps), report.losses.loss(), processor_seconds() - begin);
    if (step < steps * 3 / 4) continue;
    for (int layer = Base::dense.layers; layer < Base::config.layers; ++layer) {
      load += trainer.routing().max_over_mean(layer), seen += 1;
      dropped += trainer.routing().dropped(layer);
      choices += static_cast<double>(report.tokens * Spec::routing.top_k);
    }
  }
  TrainingBatch all;
  double bits = 0;
  for (std::size_t d = 0; d < setting.domains.size(); ++d) {
    TrainingBatch batch;
    const auto windows = static_cast<std::size_t>(options.integer("held_out"));
    for (std::size_t i = 0; i < windows; ++i) {
      const TrainingBatch window = domains::window(setting.texts.held_out[d], i, windows, length);
      batch.append(window.tokens, window.targets);
      if (i % 4 == 0) all.append(window.tokens, window.targets);
    }
    const double of_domain = trainer.evaluate(batch).loss() / std::log(2.0);
    line.add(setting.domains[d].name, of_domain);
    bits += of_domain / static_cast<double>(setting.domains.size());
  }
  line.add("bits", bits);
  measure<Spec>(trainer.device(), trainer.weights(), all, line);
  line.add("trained_load", load / seen, 3);
  line.add("dropped", dropped / choices);
  line.add("seconds", processor_seconds() - begin, 1);
  log.add(line.text());
}

const Arm<Setting> arms[] = {
    {"none", [](Log& l, const char* name, const Setting& s) { train<Biased>(l, name, s, {}); }},
    {"auxiliary",
     [](Log& l, const char* name, const Setting& s) { train<Biased>(l, name, s, {.balance = {.auxiliary = 0.01}}); }},
    {"bias", [](Log& l, const char* name, const Setting& s) { train<Biased>(l, name, s, {.bias_rate = 1e-3}); }},
    {"noisy", [](Log& l, const char* name,
                 const Setting& s) { train<Noisy>(l, name, s, {.balance = {.importance = 0.1, .load = 0.1}}); }},
    {"noisy_weak", [](Log& l, const char* name,
                      const Setting& s) { train<Noisy>(l, name, s, {.balance = {.importance = 0.01, .load = 0.01}}); }},
    {"buffering", [](Log& l, const char* name, const Setting& s) { train<Buffered>(l, name, s, {}); }},
    {"capacity",
     [](Log& l, const char* name, const Setting& s) { train<Limited>(l, name, s, {.balance = {.auxiliary = 0.01}}); }},
    {"switch",
     [](Log& l, const char* name, const Setting& s) { train<Switch>(l, name, s, {.balance = {.auxiliary = 0.01}}); }},
};

/// Means over the seeds of what the log has with so many steps; `over none`: of bits, paired by seed, with the standard
/// error of the mean.
void print_table(const Log& log, Index steps) {
  const char* const columns[] = {"bits", "load", "trained_load", "dead", "dropped", "spread", "of_layer"};
  std::map<std::string, std::map<std::int64_t, std::map<std::string, double>>> logged;
  for (const std::string& text : log.lines()) {
    const Json line = Json::parse(text, {.path = "the log"});
    if (line["steps"].integer() != steps) continue;
    auto& run = logged[std::string(line["arm"].string())][line["seed"].integer()];
    for (const char* column : columns) run[column] = line[column].number();
  }
  std::printf("%-10s %5s %9s %15s", "arm", "seeds", "bits", "over none");
  for (const char* column : columns)
    if (column != columns[0]) std::printf(" %12s", column);
  std::printf("\n");
  for (const Arm<Setting>& arm : arms) {
    if (!logged.contains(arm.name)) continue;
    const auto& seeds = logged[arm.name];
    std::map<std::string, double> mean;
    std::vector<double> over;
    for (const auto& [seed, run] : seeds) {
      for (const auto& [column, value] : run) mean[column] += value / static_cast<double>(seeds.size());
      if (logged["none"].contains(seed)) over.push_back(run.at("bits") - logged["none"][seed]["bits"]);
    }
    double difference = 0, square = 0;
    const auto pairs = static_cast<double>(over.size());
    for (const double value : over) difference += value / pairs;
    for (const double value : over) square += std::pow(value - difference, 2);
    const double error = pairs > 1 ? std::sqrt(square / (pairs - 1) / pairs) : std::nan("");
    std::printf("%-10s %5d %9.4f %+7.4f ±%6.4f", arm.name, static_cast<int>(seeds.size()), mean["bits"], difference,
                error);
    for (const char* column : columns)
      if (column != columns[0]) std::printf(" %12.4f", mean[column]);
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options({{"arms", "none,auxiliary,bias,noisy,noisy_weak,buffering,capacity,switch"},
                           {"seeds", "1,2,3"},
                           {"steps", "200"},
                           {"windows", "9"},
                           {"held_out", "32"},
                           {"threads", "1"},
                           {"lr", "0.003"},
                           {"out", "balance_study.jsonl"}},
                          argc, argv);
    Log log(options["out"]);
    auto all = domains::of_repository(".", 200000);
    all.pop_back();  // the tale is too short for a part to be held out
    const domains::Encoded texts(all, [](std::string_view text) {
      domains::Tokens bytes;
      for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
      return bytes;
    });
    for (const std::string& seed : options.list("seeds"))
      for (const std::string& chosen : options.list("arms"))
        for (const Arm<Setting>& arm : arms)
          if (chosen == arm.name)
            arm.run(log, arm.name, {texts, all, options, static_cast<std::uint64_t>(std::atoll(seed.c_str()))});
    print_table(log, options.integer("steps"));
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
