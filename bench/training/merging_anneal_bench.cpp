// What it costs to bring merging into a trained model: the shipped miniature R1, its two inner layers on slots, learns
// on while the share of slots falls from all tokens to one half. One command, resumed arm by arm, from the root of
// guild; bench/reference/plot_merging.py draws what it logs.
//   merging_anneal_bench [--arms start,dense,anneal,anneal_full,abrupt] [--seeds 1] [--steps N] [--problems N]
//                        [--out FILE] [--threads N] [--lr X] [--tokens N] [--threshold X] [--ratio N]
//                        [--merge_weight X] [--anneal A-B] [--tag NAME]
// Arms: `start` is the checkpoint as it is (at ratio 1, to the bit), `dense` learns on without merging, `anneal` comes
// to the threshold, and to N / 64 slots a token at most, between two shares of the steps, `anneal_full` does so with a
// router of full rank (FullRankCosine), `abrupt` merges from the first step. With --ratio 64 novelty alone decides, and
// the ratio loss draws it to one half. All see the same batches. The score is greedy answers, decoded from caches, to
// problems that no model was trained on.
#include <algorithm>
#include <string>
#include <vector>

#include <guild/guild.hpp>

#include "../../examples/arithmetic.hpp"
#include "merging_runs.hpp"

namespace {

using namespace guild;
using namespace merging_runs;

const std::string folder = "checkpoints/mini-r1";

template <class NoveltyType>
struct Spec : DeepSeekR1ExtendedDefaults<MiniR1Spec> {
  static constexpr WindowConfig windows = {.types = LayerTypes("ffff")};
  template <class S>
  using GlobalAttention = Mla<S>;
  template <class S>
  using Merging = SoftTokenMerging<S, NoveltyBy<NoveltyType>>;
};

struct Question {
  std::vector<std::int32_t> prompt{};
  std::string answer{};
};
std::vector<Question> questions(const ChatEncoder& encoder, std::size_t count) {
  std::vector<Question> all;
  Sample sample;
  for (const auto& problem : arithmetic::held_out_problems(7, count, false)) {
    sample.clear();
    const std::vector<Message> chat = {{"user", problem.question}, {"assistant", arithmetic::worked(problem)}};
    encoder.encode(chat, sample);
    const auto first = std::find_if(sample.targets.begin(), sample.targets.end(), [](auto id) { return id >= 0; });
    all.push_back(
        {{sample.tokens.begin(), sample.tokens.begin() + (first - sample.targets.begin()) + 1}, problem.answer});
  }
  return all;
}

/// Whether each of up to so many questions is answered right, decoded side by side.
template <class Model>
struct Answers {
  using Weights = typename Model::template Weights<Dense<float>>;
  std::vector<bool> right{};
  double slots = 0, tokens = 0;

  Answers(Cpu& device, const Weights& weights, const Tokenizer& tokenizer, const std::vector<Question>& all) {
    for (std::size_t begin = 0; begin < all.size(); begin += 64)
      add(device, weights, tokenizer, {all.data() + begin, std::min<std::size_t>(64, all.size() - begin)});
  }

 private:
  void add(Cpu& device, const Weights& weights, const Tokenizer& tokenizer, std::span<const Question> some) {
    std::vector<typename Model::Cache> memory(some.size());
    std::vector<typename Model::Cache*> caches;
    for (auto& cache : memory) caches.push_back(&cache);
    std::vector<std::vector<std::int32_t>> said(some.size());
    std::vector<bool> runs(some.size(), true);
    Buffer<float> logits(static_cast<Index>(some.size()) * Model::config.vocab);
    for (int step = 0; step < 200; ++step) {
      std::vector<std::int32_t> fed, positions;
      std::vector<Chunk> chunks;
      for (std::size_t i = 0; i < some.size(); ++i) {
        if (!runs[i]) continue;
        const std::span<const std::int32_t> next =
            step == 0 ? std::span<const std::int32_t>(some[i].prompt) : std::span(said[i]).last(1);
        const Index length = caches[i]->length();
        chunks.push_back(
            {static_cast<int>(i), static_cast<Index>(fed.size()), static_cast<Index>(next.size()), length});
        for (const std::int32_t token : next) {
          positions.push_back(static_cast<std::int32_t>(length + static_cast<Index>(fed.size()) - chunks.back().begin));
          fed.push_back(token);
        }
      }
      if (chunks.empty()) break;
      const auto rows = static_cast<Index>(fed.size()), asked = static_cast<Index>(chunks.size());
      Buffer<float> states(rows * Model::config.hidden), last(asked * Model::config.hidden);
      const Batch batch{{fed.data(), rows}, {positions.data(), rows}, chunks};
      Model::forward(Pass{.device = device, .batch = batch}, weights, caches, states.view(rows, Model::config.hidden));
      for (Index i = 0; i < asked; ++i) {
        const Chunk& chunk = chunks[static_cast<std::size_t>(i)];
        std::copy_n(states.data() + (chunk.begin + chunk.count - 1) * Model::config.hidden, Model::config.hidden,
                    last.data() + i * Model::config.hidden);
      }
      Model::logits(device, weights, last.view(asked, Model::config.hidden), logits.view(asked, Model::config.vocab));
      for (Index i = 0; i < asked; ++i) {
        const auto n = static_cast<std::size_t>(chunks[static_cast<std::size_t>(i)].sequence);
        const float* const row = logits.data() + i * Model::config.vocab;
        const auto best = static_cast<std::int32_t>(std::max_element(row, row + Model::config.vocab) - row);
        if (best == tokenizer.eos_id())
          runs[n] = false;
        else
          said[n].push_back(best);
      }
    }
    for (std::size_t i = 0; i < some.size(); ++i) {
      std::string text = tokenizer.decode(said[i]);
      const std::size_t thought = text.find("</think>");
      text = thought == std::string::npos ? std::string() : text.substr(thought + 8);
      const std::size_t begin = text.find_first_not_of(" \n");
      right.push_back(!runs[i] && begin != std::string::npos && text.substr(begin) == some[i].answer);
      slots += static_cast<double>(std::get<1>(memory[i].layers.parts).inner.length());
      tokens += static_cast<double>(memory[i].length());
    }
  }
};

template <class NoveltyType>
void train(Log& log, const std::string& arm, std::uint64_t seed, const Options& options) {
  const Index steps = arm == "start" ? 0 : options.integer("steps");
  using Model = Transformer<Spec<NoveltyType>>;
  const bool merges = arm.starts_with("anneal") || arm == "abrupt";
  Line line(arm + options["tag"], seed, steps);
  if (log.has(line.begin())) return;
  const double begin = processor_seconds();
  Cpu device({.threads = static_cast<int>(options.integer("threads"))});
  const auto encoder = ChatEncoder::read(folder, {.assistant = AssistantText::as_generated});
  Trainer<Model> trainer(
      device, load_dense<Model>(folder),
      training(options.number("lr"), 0.02, 20, steps + 1, merges ? options.number("merge_weight") : 0));
  const GeneratedChats chats(
      seed, [](Index, Random& random) { return arithmetic::conversation(random); }, encoder);
  DataLoader loader(Mixture{.sources = {{.data = chats, .name = "chats"}}},
                    {.tokens_per_batch = options.integer("tokens"), .length = 256, .seed = seed});
  RunBucket::num = merges ? options.integer("ratio") : 64, RunBucket::den = 64;
  RunMerging::threshold = merges ? static_cast<float>(options.number("threshold")) : 0.0f;
  const Annealing annealing(arm.starts_with("anneal") ? options["anneal"] : "0-0", steps);
  TrainingBatch batch;
  for (Index step = 0; step < steps; ++step) {
    trainer.objective().merge_strength = annealing.strength(step);
    loader.next(batch);
    const StepReport report = trainer.step(batch);
    if (step % 20 == 0 || step + 1 == steps)
      std::fprintf(stderr, "%s step %d loss %.4f share %.3f, %.0f s\n", arm.c_str(), static_cast<int>(step),
                   report.losses.loss(), report.losses.spans[0].share(), processor_seconds() - begin);
  }
  const double trained = processor_seconds() - begin;
  const auto all = questions(encoder, static_cast<std::size_t>(options.integer("problems")));
  const Answers<Model> answers(device, trainer.weights(), encoder.tokenizer(), all);
  const auto right = std::count(answers.right.begin(), answers.right.end(), true);
  line.add("problems", static_cast<double>(all.size()), 0);
  line.add("right", static_cast<double>(right) / static_cast<double>(all.size()));
  line.add("slots_per_token", answers.slots / answers.tokens);
  line.add("training_seconds", trained, 0);
  line.add("seconds", processor_seconds() - begin, 0);
  std::string wrong;
  for (std::size_t i = 0; i < answers.right.size(); ++i)
    if (!answers.right[i]) wrong.append(wrong.empty() ? "" : ", ").append(std::to_string(i));
  line.list("wrong", wrong);
  log.add(line.text());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options({{"arms", "start,dense,anneal,anneal_full,abrupt"},
                           {"seeds", "1"},
                           {"steps", "1600"},
                           {"problems", "5000"},
                           {"tokens", "1024"},
                           {"lr", "0.001"},
                           {"threshold", "0.5"},
                           {"ratio", "64"},
                           {"merge_weight", "0.03"},
                           {"anneal", "0.05-0.6"},
                           {"threads", "1"},
                           {"tag", ""},
                           {"out", "merging_anneal.jsonl"}},
                          argc, argv);
    Log log(options["out"]);
    for (const std::string& seed : options.list("seeds"))
      for (const std::string& arm : options.list("arms"))
        (arm == "anneal_full"
             ? train<FullRankCosine>
             : train<CosineNovelty<128>>)(log, arm, static_cast<std::uint64_t>(std::atoll(seed.c_str())), options);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
