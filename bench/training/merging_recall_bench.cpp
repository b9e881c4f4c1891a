// What merging keeps of single tokens: small models that copy, find needles and recall digits, whose sources lie in
// merged groups. One command, resumed arm by arm; bench/reference/plot_merging.py draws what it logs.
//   merging_recall_bench [--arms dense,default,...] [--seeds 1,2,3] [--steps N] [--burst N] [--out FILE] [--threads N]
//                        [--lr X] [--threshold X] [--anneal A-B] [--merge_weight X] [--tag NAME]
// Four layers of latent attention: the first and the last see a window of 8 tokens, the two between see all, and run
// on slots, half as many as tokens. Nothing that is asked for lies within the windows, so all of it comes through
// slots. A sequence begins with pairs (name, value) and numbers, [number] name d d d d, and goes on with [copy] a b ...
// [copy] a b ..., of which the second half is learned, [recall] name value, and [number] name d d d d.
#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

#include <guild/models/spec.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/stack.hpp>

#include "merging_runs.hpp"

namespace {

using namespace guild;
using namespace merging_runs;

constexpr int letters = 24, named = 12, pairs = 4, numbers = 2, copied = 10;
constexpr std::int32_t name = letters, digit = name + named, copy_mark = digit + 10, recall_mark = copy_mark + 1,
                       number_mark = copy_mark + 2;
constexpr Index window = 8, length = 96;
enum class Task : std::int8_t { copy, needle, digits, none };
constexpr const char* task_names[] = {"copy", "needle", "digits"};

/// Tokens, what follows those that are learned from, and where the answer stood before.
struct Sequence {
  std::vector<std::int32_t> tokens{}, targets{}, sources{};
  std::vector<Task> tasks{};

  explicit Sequence(Random& random) {
    std::array<std::int32_t, named> names{};
    std::array<std::int32_t, letters> order{};
    const auto shuffle = [&random](auto& list, std::int32_t first) {
      for (std::size_t i = 0; i < list.size(); ++i) list[i] = first + static_cast<std::int32_t>(i);
      for (std::size_t i = list.size() - 1; i > 0; --i) std::swap(list[i], list[below(random, i + 1)]);
    };
    shuffle(names, name);
    std::array<Index, pairs> values{};
    std::array<Index, numbers> firsts{};
    for (std::size_t i = 0; i < pairs; ++i) {
      put(names[i]);
      values[i] = put(static_cast<std::int32_t>(below(random, letters)));
    }
    for (std::size_t i = 0; i < numbers; ++i) {
      put(number_mark), put(names[pairs + i]);
      firsts[i] = put(digit + static_cast<std::int32_t>(below(random, 10)));
      for (int d = 1; d < 4; ++d) put(digit + static_cast<std::int32_t>(below(random, 10)));
    }
    while (static_cast<Index>(tokens.size()) < length) {
      const std::size_t kind = below(random, 4);
      if (kind == 0) {
        shuffle(order, 0);
        const Index first = put(copy_mark) + 1;
        for (std::size_t i = 0; i < copied; ++i) put(order[i]);
        put(copy_mark, Task::copy, first);
        for (std::size_t i = 0; i < copied; ++i)
          put(order[i], i + 1 < copied ? Task::copy : Task::none, first + 1 + static_cast<Index>(i));
      } else if (kind == 1) {
        const std::size_t number = below(random, numbers);
        put(number_mark);
        put(names[pairs + number], Task::digits, firsts[number]);
        for (Index d = 0; d < 4; ++d)
          put(tokens[static_cast<std::size_t>(firsts[number] + d)], d < 3 ? Task::digits : Task::none,
              firsts[number] + d + 1);
      } else {
        const std::size_t pair = below(random, pairs);
        put(recall_mark);
        put(names[pair], Task::needle, values[pair]);
        put(tokens[static_cast<std::size_t>(values[pair])]);
      }
    }
    tokens.resize(length), targets.resize(length), sources.resize(length), tasks.resize(length);
  }

 private:
  static std::size_t below(Random& random, std::size_t n) {
    return std::min(n - 1, static_cast<std::size_t>(random.uniform() * static_cast<double>(n)));
  }
  /// Adds a token, after which that at `source` is to be said. Its position.
  Index put(std::int32_t token, Task task = Task::none, Index source = 0) {
    tokens.push_back(token), tasks.push_back(task), sources.push_back(static_cast<std::int32_t>(source));
    targets.push_back(task == Task::none ? -1 : tokens[static_cast<std::size_t>(source)]);
    return static_cast<Index>(tokens.size()) - 1;
  }
};

struct Base : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = number_mark + 1, .hidden = 64, .layers = 4, .context = 128};
  static constexpr MlaConfig attention = {
      .heads = 4, .query_rank = 48, .latent_rank = 32, .nope_dim = 16, .rope_dim = 8, .value_dim = 16};
  static constexpr DenseConfig dense = {.hidden = 128, .layers = 4};
};
template <class Mixer, int Count>
using Layers_ = Segment<Block<Base, Mixer, DenseFeedForward<Base>>, Count>;
using Outer = Layers_<Local<Mla<Base>, window>, 1>;
struct DenseModel : Base {
  template <class>
  using Layers = Stack<Outer, Layers_<Mla<Base>, 2>, Outer>;
};
template <class Policy, class Inflation>
struct Merged : Base {
  using Span = MergeSpan<Layers_<OnSlots<Mla<Base>, Policy>, 2>, SoftTokenMerging<Base, Policy>, Inflation>;
  template <class>
  using Layers = Stack<Outer, Span, Outer>;
};

/// Decodes sequences that were not trained on, side by side, and counts what is said right.
template <class Model, class Weights>
void evaluate(Cpu& device, const Weights& weights, Line& line) {
  constexpr bool merges = !std::is_base_of_v<DenseModel, typename Model::Spec>;
  constexpr Index count = 96;
  Random random(99, 7);
  std::vector<Sequence> sequences;
  for (Index i = 0; i < count; ++i) sequences.emplace_back(random);
  std::vector<typename Model::Cache> memory(count);
  std::vector<typename Model::Cache*> caches;
  for (auto& cache : memory) caches.push_back(&cache);
  Buffer<float> states(count * Model::config.hidden), logits(count * Model::config.vocab);
  double right[4] = {}, inside[4] = {}, of[4] = {}, of_inside[4] = {}, loss = 0, asking = 0, asked = 0;
  std::vector<std::vector<Index>> slots(count);  // of each token: groups closed before it
  std::vector<std::vector<int>> said(count);
  for (Index t = 0; t < length; ++t) {
    std::vector<std::int32_t> tokens, positions(count, static_cast<std::int32_t>(t));
    std::vector<Chunk> chunks;
    std::vector<Index> before;
    for (Index i = 0; i < count; ++i) {
      tokens.push_back(sequences[static_cast<std::size_t>(i)].tokens[static_cast<std::size_t>(t)]);
      chunks.push_back({static_cast<int>(i), i, 1, t});
      if constexpr (merges)
        before.push_back(std::get<1>(memory[static_cast<std::size_t>(i)].layers.parts).inner.length());
    }
    const Batch batch{{tokens.data(), count}, {positions.data(), count}, chunks};
    const auto x = states.view(count, Model::config.hidden);
    const auto y = logits.view(count, Model::config.vocab);
    Model::forward(Pass{.device = device, .batch = batch}, weights, caches, x);
    Model::logits(device, weights, x, y);
    for (Index i = 0; i < count; ++i) {
      const auto n = static_cast<std::size_t>(i);
      const Sequence& sequence = sequences[n];
      if constexpr (merges)
        slots[n].push_back(before[n]);
      else
        slots[n].push_back(t);
      const std::int32_t target = sequence.targets[static_cast<std::size_t>(t)];
      said[n].push_back(-1);
      if (target < 0) continue;
      const float* const row = y.row(i).data;
      const float peak = *std::max_element(row, row + Model::config.vocab);
      double sum = 0;
      for (Index v = 0; v < Model::config.vocab; ++v) sum += std::exp(double(row[v] - peak));
      loss += std::log(sum) - double(row[target] - peak);
      said[n].back() = row[target] == peak ? 1 : 0;
      if constexpr (merges) asked += std::get<1>(memory[n].layers.parts).inner.length() > before[n] ? 1 : 0;
      asking += 1;
    }
  }
  double closed = 0;
  for (std::size_t n = 0; n < sequences.size(); ++n) {
    if constexpr (merges) closed += static_cast<double>(std::get<1>(memory[n].layers.parts).inner.length());
    for (std::size_t t = 0; t < static_cast<std::size_t>(length); ++t) {
      if (said[n][t] < 0) continue;
      const auto source = static_cast<std::size_t>(sequences[n].sources[t]);
      const bool alone =
          (source == 0 || slots[n][source - 1] < slots[n][source]) && slots[n][source] < slots[n][source + 1];
      for (const auto task : {static_cast<std::size_t>(sequences[n].tasks[t]), std::size_t{3}}) {
        right[task] += said[n][t], of[task] += 1;
        if (!alone) inside[task] += said[n][t], of_inside[task] += 1;
      }
    }
  }
  line.add("loss", loss / asking);
  line.add("right", right[3] / of[3]);
  for (std::size_t task = 0; task < 3; ++task) line.add(task_names[task], right[task] / of[task]);
  if constexpr (merges) {
    line.add("inside", inside[3] / of_inside[3]);
    for (std::size_t task = 0; task < 3; ++task)
      line.add(detail::text_of({task_names[task], "_inside"}), inside[task] / std::max(1.0, of_inside[task]));
    line.add("sources_inside", of_inside[3] / of[3]);
    line.add("slots_per_token", closed / static_cast<double>(count * length));
    line.add("asking_tokens_that_close", asked / asking);
  }
}

struct Setting {
  Index steps = 0, sequences = 16;
  double lr = 3e-3, merge_weight = 0;
  std::string anneal = "0-0";
  int threads = 1;
  std::uint64_t seed = 1;
};

template <class Spec>
void train(Log& log, const char* arm, const Setting& setting) {
  using Model = Transformer<Spec>;
  Line line(arm, setting.seed, setting.steps);
  if (log.has(line.begin())) return;
  const double begin = processor_seconds();
  Cpu device({.threads = setting.threads});
  typename Model::template Weights<Dense<float>> weights;
  initialize<Model>(device, weights, {.seed = setting.seed, .deviation = 0.05});
  Trainer<Model> trainer(device, std::move(weights),
                         training(setting.lr, 0.01, 50, setting.steps, setting.merge_weight));
  Random random(setting.seed, 5);
  TrainingBatch batch;
  const Annealing annealing(setting.anneal, setting.steps);
  for (Index step = 0; step < setting.steps; ++step) {
    trainer.objective().merge_strength = annealing.strength(step);
    batch.clear();
    for (Index i = 0; i < setting.sequences; ++i) {
      const Sequence one(random);
      batch.append(one.tokens, one.targets);
    }
    const StepReport report = trainer.step(batch);
    if (step % 100 == 0 || step + 1 == setting.steps)
      std::fprintf(stderr, "%s seed %d step %d loss %.4f right %.4f share %.3f, %.0f s\n", arm,
                   static_cast<int>(setting.seed), static_cast<int>(step), report.losses.loss(),
                   report.losses.accuracy(), report.losses.spans[0].share(), processor_seconds() - begin);
  }
  evaluate<Model>(device, trainer.weights(), line);
  line.add("seconds", processor_seconds() - begin, 0);
  log.add(line.text());
}

template <class Policy, class Inflation>
void merged(Log& log, const char* arm, const Setting& setting) {
  train<Merged<Policy, Inflation>>(log, arm, setting);
}
template <class Policy>
using Inflate = TokenInflation<Base, Policy>;
/// Names and digits: what answers are asked with, and what numbers are made of.
template <std::int32_t... I>
auto protect(std::integer_sequence<std::int32_t, I...>) -> ProtectTokens<(name + I)...>;
struct Protected : RunMerging {
  using Protect = decltype(protect(std::make_integer_sequence<std::int32_t, copy_mark - name>{}));
};

const Arm<Setting> arms[] = {
    {"dense", [](Log& log, const char* n, const Setting& s) { train<DenseModel>(log, n, s); }},
    {"repeat", merged<RunMerging, RepeatSlots<Base>>},
    {"residual", merged<RunMerging, Inflate<Inflated<0, 0>>>},
    {"default", merged<RunMerging, Inflate<Inflated<32, 0>>>},
    {"details", merged<RunMerging, Inflate<Inflated<32, 32>>>},
    {"protect", merged<Protected, Inflate<Inflated<32, 0>>>},
    {"mean", merged<PoolBy<MassMean>, Inflate<Inflated<32, 0>>>},
    {"sigmoid", merged<NoveltyBy<LearnedSigmoid<0>>, Inflate<Inflated<32, 0>>>},
    {"full", merged<NoveltyBy<FullRankCosine>, Inflate<Inflated<32, 0>>>},
    {"unsmoothed", merged<RunMerging, Inflate<Inflated<32, 0, false>>>},
    {"select", merged<PoolBy<SelectClosing>, Inflate<Inflated<32, 0>>>},
    {"hourglass", merged<HourglassMerging<2>, Inflate<HourglassInflation>>},
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options({{"arms", "dense,repeat,residual,default,details,protect"},
                           {"seeds", "1"},
                           {"steps", "1000"},
                           {"lr", "0.003"},
                           {"threshold", "0.5"},
                           {"merge_weight", "0"},
                           {"burst", "16"},
                           {"anneal", "0-0"},
                           {"threads", "1"},
                           {"tag", ""},
                           {"out", "merging_recall.jsonl"}},
                          argc, argv);
    Log log(options["out"]);
    RunBucket::burst = options.integer("burst");
    RunMerging::threshold = static_cast<float>(options.number("threshold"));
    for (const std::string& seed : options.list("seeds"))
      for (const std::string& chosen : options.list("arms"))
        for (const Arm<Setting>& arm : arms)
          if (chosen == arm.name)
            arm.run(log, detail::text_of({arm.name, options["tag"]}).c_str(),
                    {.steps = options.integer("steps"),
                     .lr = options.number("lr"),
                     .merge_weight = options.number("merge_weight"),
                     .anneal = options["anneal"],
                     .threads = static_cast<int>(options.integer("threads")),
                     .seed = static_cast<std::uint64_t>(std::atoll(seed.c_str()))});
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
