// The miniature R1 with its two inner layers on merged tokens: all tokens, and one of two. Prints what
// merging saves and costs, as the folder is and after a short training, and which tokens became one.
#include <cstdio>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <guild/guild.hpp>

#include "arithmetic.hpp"

namespace {
const std::string folder = "checkpoints/mini-r1";

template <guild::Index Num, guild::Index Den>  // at most 4 + floor(Num / Den (N - 1)) slots of N tokens
struct Keep : guild::DefaultMerging {
  using Budget = guild::TokenBucket<Num, Den, 4, 8>;
  static constexpr float threshold = Num == Den ? 0.0f : 0.15f;  // tokens of such novelty want a slot
};
template <class Kept>
struct Spec : guild::DeepSeekR1ExtendedDefaults<guild::MiniR1Spec> {
  static constexpr guild::WindowConfig windows = {.types = guild::LayerTypes("ffff")};  // all layers see all keys
  template <class S>
  using Merging = guild::SoftTokenMerging<S, Kept>;
};

std::vector<guild::TrainingBatch> held_out(const guild::ChatEncoder& encoder) {
  std::vector<guild::TrainingBatch> batches(4);
  guild::Sample sample;
  std::size_t i = 0;
  for (const auto& problem : arithmetic::held_out_problems(7, 64, false)) {
    sample.clear();
    const std::vector<guild::Message> chat = {{"user", problem.question}, {"assistant", arithmetic::worked(problem)}};
    encoder.encode(chat, sample);
    batches[i++ / 16].append(sample.tokens, sample.targets);
  }
  return batches;
}

/// Decodes a text token by token and draws brackets around tokens that share a slot of the inner layers.
template <class Model>
void draw(guild::Cpu& device, const typename Model::template Weights<guild::Dense<float>>& weights,
          const guild::Tokenizer& tokenizer, const std::string& text) {
  typename Model::Cache cache;
  typename Model::Cache* caches[] = {&cache};
  const auto& inner = std::get<1>(cache.layers.parts).inner;
  std::string line, group;
  int tokens = 0, of_group = 0;
  for (const std::int32_t id : tokenizer.encode(text)) {
    const auto position = static_cast<std::int32_t>(cache.length());
    const guild::Chunk chunk{0, 0, 1, position};
    const guild::Batch batch{{&id, 1}, {&position, 1}, {&chunk, 1}};
    guild::Buffer<float> state(Model::config.hidden);
    const guild::Index before = inner.length();
    Model::forward(guild::Pass{.device = device, .batch = batch}, weights, caches, state.view(1, state.size()));
    group += tokenizer.decode(std::vector<std::int32_t>{id});
    ++tokens, ++of_group;
    if (inner.length() == before) continue;
    line += of_group > 1 ? "[" + std::exchange(group, {}) + "]" : std::exchange(group, {});
    of_group = 0;
  }
  std::printf("  %lld slots of %d tokens: %s%s\n", static_cast<long long>(inner.length()), tokens, line.c_str(),
              group.empty() ? "" : ("[" + group).c_str());
}

template <class Kept>
void run(const char* name) {
  using Model = guild::Transformer<Spec<Kept>>;
  guild::Cpu device({.threads = 2});
  const auto encoder = guild::ChatEncoder::read(folder, {.assistant = guild::AssistantText::as_generated});
  const auto problems = held_out(encoder);
  guild::Trainer<Model> trainer(device, guild::load_dense<Model>(folder), {.optimizer = guild::AdamW{.lr = 3e-4}});
  const double before = trainer.evaluate(problems).loss();
  const guild::GeneratedChats chats(
      1, [](guild::Index, guild::Random& random) { return arithmetic::conversation(random); }, encoder);
  guild::DataLoader loader(guild::Mixture{.sources = {{.data = chats, .name = "chats"}}},
                           {.tokens_per_batch = 1024, .length = 256, .seed = 1});
  guild::TrainingBatch batch;
  for (int step = 0; step < 60; ++step) {
    loader.next(batch);
    trainer.step(batch);
  }
  std::printf("%s: %.0f KiB of caches for 2048 tokens, loss %.3f, after 60 steps %.3f\n", name,
              static_cast<double>(Model::Cache::bytes(2048)) / 1024, before, trainer.evaluate(problems).loss());
  draw<Model>(device, trainer.weights(), encoder.tokenizer(), "What is 17 * 23? First 17 * 20 = 340.");
}
}  // namespace

int main() {
  try {
    run<Keep<1, 1>>("all tokens");
    run<Keep<1, 2>>("1 of 2");
  } catch (const guild::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
