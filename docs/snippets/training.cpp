#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include <guild/guild.hpp>

// [begin]
struct TinySpec : guild::SpecDefaults {  // a model is a type
  static constexpr guild::TrunkConfig config = {
      .vocab = guild::MiniR1Spec::config.vocab, .hidden = 64, .layers = 3, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 32, .latent_rank = 32, .nope_dim = 16, .rope_dim = 16, .value_dim = 32};
  static constexpr guild::DenseConfig dense = {.hidden = 128, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 32, .shared = 1};
};
using Model = guild::Transformer<TinySpec>;

void train(const std::string& run, guild::Index steps) {
  const std::string tokenizer = "checkpoints/mini-r1", state = run + "/state";
  const auto text = guild::TokenStream::read(guild::Tokenizer::read(tokenizer), "docs/design.md", {.length = 64});
  guild::DataLoader loader(text.train_part(0.1), {.tokens_per_batch = 256, .length = 64, .seed = 1});

  Model::Weights<guild::Dense<float>> weights;
  guild::initialize<Model>(weights, {.seed = 1});  // or guild::load_dense<Model>(folder), to train a published model
  guild::Trainer<Model> trainer(guild::Cpu{}, std::move(weights),
                                {.optimizer = guild::AdamW{.lr = 3e-3},
                                 .schedule = guild::Schedule::warmup_cosine(10, steps),
                                 .average = 0.99});
  guild::recover_folder(state);
  if (std::filesystem::exists(state))  // this run was stopped: it goes on, bit by bit
    loader.seek(guild::data_position(guild::Json::parse(guild::resume_training(state, trainer).at("data"), {})));

  guild::TrainingLog log(run + "/log.jsonl", trainer.steps());
  guild::TrainingBatch batch;
  while (trainer.steps() < steps && loader.next(batch)) {
    const guild::StepReport report = trainer.step(batch);
    log.write(report, trainer.routing());
    if (report.step % 10 == 0)
      guild::save_training(state, trainer,
                           {.companions = tokenizer, .texts = {{"data", guild::to_json(loader.position())}}});
  }
  guild::LossReport validation;
  auto held_out = guild::DataLoader::once(text.validation_part(0.1), loader.options());
  while (held_out.next(batch)) validation += trainer.evaluate(trainer.average(), std::span(&batch, 1));
  std::printf("%.3f nats a token of text that was never shown\n", validation.loss());
  guild::save_model<Model>(run + "/model", trainer.average(), {.companions = tokenizer});
}
// [end]

int main() {
  std::string pattern = (std::filesystem::temp_directory_path() / "guild-training-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) return 1;
  train(pattern, 10);
  train(pattern, 20);  // goes on
  const bool good = guild::load<Model>(guild::Cpu{}, pattern + "/model").tokenizer().size() > 0;
  std::filesystem::remove_all(pattern);
  return good ? 0 : 1;
}
