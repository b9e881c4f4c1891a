// What merging is worth to a small language model: six layers of latent attention and experts, of which the inner four
// run on slots, trained on bytes of a text and of worked problems. One command, resumed arm by arm;
// bench/reference/fetch_text.sh gets the text, bench/reference/plot_merging.py draws what is logged.
//   bench/reference/fetch_text.sh jargon.txt
//   merging_text_bench --text jargon.txt [--arms dense,default,...] [--seeds 1,2,3] [--steps N] [--out FILE]
//                      [--ratio 1/2] [--burst N] [--threshold X] [--anneal A-B] [--merge_weight X] [--threads N] [--lr
//                      X]
//                      [--tag NAME] [--same steps|flops]
// All arms of a seed begin with the same weights, as far as they have the same tensors, and see the same batches. Bits
// a byte are of the last tenth of the text and of problems that none was trained on. --same flops: an arm goes on until
// it has used as many operations as the dense one in so many steps, if --ratio of the tokens become slots.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <guild/io/file.hpp>
#include <guild/models/spec.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/moe.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/stack.hpp>

#include "../../examples/arithmetic.hpp"
#include "merging_runs.hpp"

namespace {

using namespace guild;
using namespace merging_runs;

constexpr Index length = 256;

struct Base : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 256, .hidden = 64, .layers = 6, .context = 1024};
  static constexpr MlaConfig attention = {
      .heads = 4, .query_rank = 48, .latent_rank = 32, .nope_dim = 16, .rope_dim = 8, .value_dim = 16};
  static constexpr DenseConfig dense = {.hidden = 128, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 8, .top_k = 2, .groups = 1, .top_groups = 1, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 48, .shared = 1};
};
constexpr Index first_inner = 1, inner = 4;

using First = Segment<Block<Base, Mla<Base>, DenseFeedForward<Base>>, 1>;
using Last = Segment<Block<Base, Mla<Base>, Moe<Base>>, 1>;
struct DenseModel : Base {
  template <class>
  using Layers = Stack<First, Segment<Block<Base, Mla<Base>, Moe<Base>>, inner>, Last>;
};
template <class Policy, class Inflation>
struct Merged : Base {
  using Inner = Segment<Block<Base, OnSlots<Mla<Base>, Policy>, Moe<Base>>, inner>;
  template <class>
  using Layers = Stack<First, MergeSpan<Inner, SoftTokenMerging<Base, Policy>, Inflation>, Last>;
};

/// Windows of a text, and of problems one after the other.
class Text {
 public:
  explicit Text(const std::string& path) : text_(read_text(path, std::size_t{1} << 30)) {
    if (text_.size() < 100000) detail::refuse(ErrorCode::in_param, {path, " is too short to learn from"});
    Random random(3, 4);
    arithmetic::Dice dice(random);
    while (problems_.size() < 60000) {
      const arithmetic::Problem p = arithmetic::problem(dice);
      if (arithmetic::held_out(p.key)) problems_ += said(p);
    }
  }
  /// A window of the text, or problems.
  void learn(TrainingBatch& batch, Random& random) const {
    if (random.uniform() < 0.5) {
      const auto limit = static_cast<double>(split() - length - 1);
      append(batch, std::string_view(text_).substr(static_cast<std::size_t>(random.uniform() * limit)));
    } else {
      std::string row;
      arithmetic::Dice dice(random);
      while (row.size() <= static_cast<std::size_t>(length)) row += said(arithmetic::training_problem(dice));
      append(batch, row);
    }
  }
  /// Batches of what was held out: of the text, or of problems.
  [[nodiscard]] std::vector<TrainingBatch> held_out(bool of_text, int windows) const {
    const std::string_view all = of_text ? std::string_view(text_).substr(split()) : std::string_view(problems_);
    const std::size_t stride = (all.size() - length - 1) / static_cast<std::size_t>(windows);
    std::vector<TrainingBatch> batches(static_cast<std::size_t>(windows + 7) / 8);
    for (std::size_t i = 0; i < static_cast<std::size_t>(windows); ++i) append(batches[i / 8], all.substr(i * stride));
    return batches;
  }

 private:
  [[nodiscard]] std::size_t split() const { return text_.size() / 10 * 9; }
  static std::string said(const arithmetic::Problem& p) { return p.question + "\n" + p.work + "\n" + p.answer + "\n"; }
  static void append(TrainingBatch& batch, std::string_view text) {
    std::vector<std::int32_t> tokens, targets;
    for (std::size_t i = 0; i < static_cast<std::size_t>(length); ++i) {
      tokens.push_back(static_cast<unsigned char>(text[i]));
      targets.push_back(static_cast<unsigned char>(text[i + 1]));
    }
    batch.append(tokens, targets);
  }
  std::string text_, problems_{};
};

/// Operations of training on a token, 6 for each parameter that it uses and 6 (query + value) for each head and pair of
/// tokens, where layers of a span see `share` of the tokens.
template <class Model, class Weights>
double operations(const Weights& weights, double share) {
  constexpr Index last_inner = first_inner + inner;
  double sum = 0;
  for_each_tensor<Model>(
      [&](const Path& path, const TensorShape& shape, TensorRole, const Buffer<float>& data) {
        if (shape.dimensions < 2 || passes_through(path, "embedding")) return;
        Index layer = -1;
        for (const Path* at = &path; at != nullptr; at = at->parent())
          if (at->parent() != nullptr && at->parent()->name() == "layers") layer = at->index();
        const bool beside = passes_through(path, "merging") || passes_through(path, "inflation");
        const double used =
            passes_through(path, "experts") ? double(Base::routing.top_k) / double(Base::routing.experts) : 1;
        sum += 6.0 * used * static_cast<double>(data.size()) *
               (!beside && layer >= first_inner && layer < last_inner ? share : 1.0);
      },
      weights);
  const double pairs = 6.0 * Base::attention.heads *
                       static_cast<double>(Base::attention.query_dim() + Base::attention.value_dim) * double(length) /
                       2;
  return sum + pairs * (static_cast<double>(Base::config.layers - inner) + static_cast<double>(inner) * share * share);
}

struct Setting {
  const Text& text;
  const Options& options;
  std::uint64_t seed = 1;
};

/// Processor seconds of 1024 bytes at once and of 128 decoded behind them, and the bytes of the cache.
template <class Model, class Weights>
void measure(Cpu& device, const Weights& weights, const Text& text, Line& line) {
  std::vector<std::int32_t> tokens, positions;
  for (const TrainingBatch& batch : text.held_out(true, 8))
    tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
  for (Index i = 0; i < 1024; ++i) positions.push_back(static_cast<std::int32_t>(i));
  Buffer<float> states(1024 * Model::config.hidden), logits(Model::config.vocab);
  double prefill = 1e9, decode = 1e9;
  for (int round = 0; round < 3; ++round) {
    typename Model::Cache cache;
    cache.reserve(1024);
    typename Model::Cache* caches[] = {&cache};
    const auto feed = [&](Index begin, Index count) {
      const Chunk chunk{0, 0, count, begin};
      const Batch batch{{tokens.data() + begin, count}, {positions.data() + begin, count}, {&chunk, 1}};
      Model::forward(Pass{.device = device, .batch = batch}, weights, caches, states.view(count, Model::config.hidden));
      Model::logits(device, weights, states.view(1, Model::config.hidden), logits.view(1, Model::config.vocab));
    };
    double begin = processor_seconds();
    feed(0, 896);
    prefill = std::min(prefill, processor_seconds() - begin);
    begin = processor_seconds();
    for (Index i = 896; i < 1024; ++i) feed(i, 1);
    decode = std::min(decode, processor_seconds() - begin);
  }
  line.add("prefill_ms", prefill * 1e3, 2);
  line.add("decode_ms_per_byte", decode * 1e3 / 128, 4);
  line.add("cache_bytes_of_1024", static_cast<double>(Model::Cache::bytes(1024)), 0);
}

template <class Spec>
void train(Log& log, const char* arm, const Setting& setting) {
  using Model = Transformer<Spec>;
  const Options& options = setting.options;
  const std::string name = arm + options["tag"];
  Line line(name, setting.seed, options.integer("steps"));
  if (log.has(line.begin())) return;
  const double begin = processor_seconds();
  Cpu device({.threads = static_cast<int>(options.integer("threads"))});
  typename Model::template Weights<Dense<float>> weights;
  // What is the same in all arms begins the same: numbers depend on a tensor's place among all of them.
  Transformer<DenseModel>::Weights<Dense<float>> dense;
  initialize<Transformer<DenseModel>>(device, dense, {.seed = setting.seed, .deviation = 0.05});
  initialize<Model>(device, weights, {.seed = setting.seed + 1000, .deviation = 0.05});
  std::map<std::string, const float*> first;
  for_each_tensor<Transformer<DenseModel>>([&](const Path& path, const TensorShape&, TensorRole,
                                               const Buffer<float>& data) { first[path.str()] = data.data(); },
                                           dense);
  for_each_tensor<Model>(
      [&](const Path& path, const TensorShape&, TensorRole, Buffer<float>& data) {
        if (const auto found = first.find(path.str()); found != first.end())
          std::copy_n(found->second, data.size(), data.data());
      },
      weights);
  const double dense_operations = operations<Transformer<DenseModel>>(dense, 1.0);
  const double expected = operations<Model>(weights, RunBucket::share());
  const double factor = options["same"] == "flops" ? dense_operations / expected : 1.0;
  const auto steps = static_cast<Index>(std::lround(options.number("steps") * factor));
  Trainer<Model> trainer(device, std::move(weights),
                         training(options.number("lr"), 0.01, 50, steps, options.number("merge_weight")));
  Random random(setting.seed, 5);
  TrainingBatch batch;
  double share = 0, used = 0;
  const Annealing annealing(options["anneal"], steps);
  for (Index step = 0; step < steps; ++step) {
    trainer.objective().merge_strength = annealing.strength(step);
    batch.clear();
    for (Index i = 0; i < options.integer("sequences"); ++i) setting.text.learn(batch, random);
    const StepReport report = trainer.step(batch);
    share = report.losses.spans.size() > 0 ? report.losses.spans[0].share() : 1.0;
    used += operations<Model>(trainer.weights(), share) * static_cast<double>(report.tokens);
    if (step % 50 == 0 || step + 1 == steps)
      std::fprintf(stderr, "%s seed %d step %d of %d: %.4f bits a byte, share %.3f, %.0f s\n", name.c_str(),
                   static_cast<int>(setting.seed), static_cast<int>(step), static_cast<int>(steps),
                   report.losses.loss() / std::log(2.0), share, processor_seconds() - begin);
  }
  trainer.objective().merge_strength = 1.0;
  line.add("trained_steps", static_cast<double>(steps), 0);
  line.add("text_bpb", trainer.evaluate(setting.text.held_out(true, 256)).loss() / std::log(2.0));
  line.add("problems_bpb", trainer.evaluate(setting.text.held_out(false, 128)).loss() / std::log(2.0));
  line.add("slots_per_token", share);
  line.add("training_tflop", used * 1e-12, 3);
  measure<Model>(device, trainer.weights(), setting.text, line);
  line.add("seconds", processor_seconds() - begin, 0);
  log.add(line.text());
}

template <class Policy, class Inflation>
void merged(Log& log, const char* name, const Setting& setting) {
  train<Merged<Policy, Inflation>>(log, name, setting);
}
template <class Policy>
using Inflate = TokenInflation<Base, Policy>;

const Arm<Setting> arms[] = {
    {"dense", [](Log& log, const char* name, const Setting& s) { train<DenseModel>(log, name, s); }},
    {"default", merged<RunMerging, Inflate<Inflated<32, 0>>>},
    {"full", merged<NoveltyBy<FullRankCosine>, Inflate<Inflated<32, 0>>>},
    {"sigmoid", merged<NoveltyBy<LearnedSigmoid<0>>, Inflate<Inflated<32, 0>>>},
    {"hnet", merged<ToHalf<HNetMerging<>>, Inflate<HNetInflation>>},
    {"dynamic_pooling", merged<ToHalf<DynamicPoolingMerging<>>, Inflate<DynamicPoolingInflation>>},
    {"hourglass", merged<HourglassMerging<2>, Inflate<HourglassInflation>>},
    {"tome_window", merged<ToMeMerging<16, 8, CosineNovelty<32>>, Inflate<CopyUnmerge>>},
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options({{"arms", "dense,default,hnet,dynamic_pooling,hourglass,tome_window"},
                           {"seeds", "1,2,3"},
                           {"steps", "1000"},
                           {"sequences", "8"},
                           {"lr", "0.003"},
                           {"threshold", "0.5"},
                           {"ratio", "1/2"},
                           {"burst", "16"},
                           {"merge_weight", "0"},
                           {"anneal", "0-0"},
                           {"same", "steps"},
                           {"threads", "1"},
                           {"tag", ""},
                           {"text", "jargon.txt"},
                           {"out", "merging_text.jsonl"}},
                          argc, argv);
    Log log(options["out"]);
    RunBucket::burst = options.integer("burst");
    RunBucket::num = options.integer("ratio");
    if (const std::size_t slash = options["ratio"].find('/'); slash != std::string::npos)
      RunBucket::den = std::atoll(options["ratio"].c_str() + slash + 1);
    else
      guild::detail::refuse(guild::ErrorCode::op_argument,
                            {"--ratio is a fraction as 1/2, and not ", options["ratio"]});
    if (options.number("merge_weight") != 0 && 2 * RunBucket::num != RunBucket::den)
      guild::detail::refuse(guild::ErrorCode::op_argument, "the ratio loss of these arms aims at 1/2 alone");
    RunMerging::threshold = static_cast<float>(options.number("threshold"));
    const Text text(options["text"]);
    for (const std::string& seed : options.list("seeds"))
      for (const std::string& chosen : options.list("arms"))
        for (const Arm<Setting>& arm : arms)
          if (chosen == arm.name)
            arm.run(log, arm.name, {text, options, static_cast<std::uint64_t>(std::atoll(seed.c_str()))});
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
