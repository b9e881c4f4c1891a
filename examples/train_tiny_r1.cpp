// Trains the miniature R1 from nothing: a tokenizer, pre-training on text, then the cold start of R1: fine-tuning on
// worked <think> solutions. Writes a folder that `chat` and any other reader of Hugging Face folders loads.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <guild/guild.hpp>

#include "arithmetic.hpp"
#include "plots.hpp"
#include "r1_layout.hpp"

namespace {

struct Settings {
  std::string out = "tiny-r1", text = "/usr/share/common-licenses/GPL-3";
  guild::Index steps = 5200, pretraining = 780, batch_tokens = 6144, save_every = 500;
  int threads = 0;
  std::uint64_t seed = 1;
  bool small = false, resume = false;
};

/// A model for a minute or two.
struct SmallSpec : guild::MiniR1Spec {
  static constexpr guild::TrunkConfig config = {
      .vocab = 384, .hidden = 96, .layers = 2, .mtp_layers = 1, .context = 2048};
  static constexpr guild::MlaConfig attention = {.heads = 3,
                                                 .query_rank = 48,
                                                 .latent_rank = 32,
                                                 .nope_dim = 32,
                                                 .rope_dim = 16,
                                                 .value_dim = 32,
                                                 .rope = guild::MiniR1Spec::attention.rope};
  static constexpr guild::DenseConfig dense = {.hidden = 192};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 48};
};

std::vector<guild::Message> small_conversation(guild::Random& random) {
  arithmetic::Dice dice(random);
  arithmetic::Problem p = arithmetic::small_problem(dice);
  while (arithmetic::held_out(p.key)) p = arithmetic::small_problem(dice);
  return {{"user", p.question}, {"assistant", arithmetic::worked(p)}};
}

/// How many of the problems the saved model answers as it should, thinking first.
template <class Model>
std::size_t right_answers(const guild::Cpu& device, const Settings& settings, std::size_t count) {
  const auto model = guild::load<Model>(device, settings.out);
  std::size_t right = 0;
  for (const auto& problem : arithmetic::held_out_problems(7, count, settings.small)) {
    std::string answer;
    for (const auto& piece : guild::generate(model, problem.question, {.temperature = 0.0f, .max_tokens = 200}))
      if (piece.kind == guild::ThinkPiece::Kind::answer) answer += piece.text;
    const std::size_t begin = answer.find_first_not_of(" \n");
    right += begin != std::string::npos && answer.substr(begin) == problem.answer;
  }
  return right;
}

template <class Spec>
int run(const Settings& settings) {
  using Model = guild::Transformer<Spec>;
  const guild::Cpu device({.threads = settings.threads});
  const std::string work = settings.out + ".training", state = work + "/state", tokenizer = work + "/tokenizer";
  std::filesystem::create_directories(tokenizer);

  std::vector<std::string> texts;
  if (!settings.small && std::filesystem::exists(settings.text))
    texts.push_back(guild::read_text(settings.text, 1 << 26));
  guild::Random random(settings.seed, 1);
  for (int i = 0; i < 4000; ++i)
    for (const auto& message : settings.small ? small_conversation(random) : arithmetic::conversation(random))
      texts.push_back(message.content);
  const auto encoded = r1_layout::make_tokenizer(tokenizer, Spec::config.vocab, texts);

  guild::GeneratedDataset documents(settings.seed, [&](guild::Index, guild::Random& r, guild::Sample& out) {
    guild::next_token_sample(encoded.encode(arithmetic::document(r) + "<｜end▁of▁sentence｜>"), out);
  });
  guild::GeneratedChats chats(
      settings.seed,
      [&](guild::Index, guild::Random& r) {
        return settings.small ? small_conversation(r) : arithmetic::conversation(r);
      },
      guild::ChatEncoder::read(tokenizer, {.assistant = guild::AssistantText::as_generated}));
  guild::Mixture mixture{.sources = {{.data = documents, .name = "text"}, {.data = chats, .name = "worked solutions"}}};
  const double share = static_cast<double>(settings.pretraining) / static_cast<double>(settings.steps);
  mixture.curriculum = {.stages = {{0.0, {1, 0}}, {share, {1, 0}}, {share, {0, 1}}, {1.0, {0, 1}}},
                        .length = settings.steps};
  guild::DataLoader loader(mixture, {.tokens_per_batch = settings.batch_tokens, .length = 512, .seed = settings.seed});

  typename Model::template Weights<guild::Dense<float>> weights;
  weights.mtp.resize(static_cast<std::size_t>(Spec::config.mtp_layers));
  guild::initialize<Model>(weights, {.seed = settings.seed, .deviation = 0.05});
  guild::Trainer<Model> trainer(
      device, std::move(weights),
      {.optimizer =
           guild::Muon{.lr = 4e-3, .weight_decay = 0.02, .rest = {.lr = 3e-3, .beta2 = 0.98, .weight_decay = 0}},
       .schedule = guild::Schedule::warmup_cosine(60, settings.steps, 0.01),
       .bias_rate = 2e-3,
       .average = 0.995});
  if (settings.resume)
    loader.seek(guild::data_position(guild::Json::parse(guild::resume_training(state, trainer).at("data"), {})));

  guild::TrainingLog log(work + "/log.jsonl", trainer.steps());
  guild::TrainingBatch batch;
  double seconds = 0.0;
  const guild::Index begin = trainer.steps();
  while (trainer.steps() < settings.steps) {
    loader.next(batch);
    // Most of the way the prediction layer waits: it learns fast once the states that it reads are good.
    trainer.objective().mtp_weight = trainer.steps() < settings.steps * 7 / 10 ? 0.0 : 0.3;
    const guild::StepReport report = trainer.step(batch);
    log.write(report, trainer.routing());
    seconds += report.seconds;
    const double each = seconds / static_cast<double>(report.step - begin);
    std::printf(
        "\r%s ",
        guild::progress_line(report, settings.steps, each * static_cast<double>(settings.steps - report.step)).c_str());
    std::fflush(stdout);
    if (report.step % settings.save_every == 0 || report.step == settings.steps)
      guild::save_training(state, trainer,
                           {.companions = tokenizer, .texts = {{"data", guild::to_json(loader.position())}}});
  }
  guild::save_model<Model>(settings.out, trainer.average(),
                           {.companions = tokenizer, .config = {.bos = 0, .eos = {1}}});
  plots::write_all(work + "/log.jsonl", work);
  const std::size_t problems = settings.small ? 100 : 600, right = right_answers<Model>(device, settings, problems);
  std::printf("\n%zu of %zu held-out problems are right; the model is in %s, its log and plots in %s\n", right,
              problems, settings.out.c_str(), work.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app{"Trains the miniature R1 from nothing"};
  app.add_option("-o,--out", settings.out, "the model's folder; FOLDER.training holds state, log and plots");
  app.add_option("--text", settings.text, "a text file whose words the tokenizer learns too");
  app.add_option("--steps", settings.steps, "steps in all");
  app.add_option("--pretraining", settings.pretraining, "the first steps, on plain text");
  app.add_option("--batch-tokens", settings.batch_tokens, "tokens of a step, at most");
  app.add_option("--save-every", settings.save_every, "steps from one saved state to the next");
  app.add_option("-t,--threads", settings.threads, "0: all processors");
  app.add_option("--seed", settings.seed, "of everything");
  app.add_flag("--small", settings.small, "a smaller model and small sums: a minute or two");
  app.add_flag("--resume", settings.resume, "go on from the saved state");
  CLI11_PARSE(app, argc, argv);
  try {
    if (settings.small && app.count("--steps") == 0) settings.steps = 500;
    if (settings.small && app.count("--batch-tokens") == 0) settings.batch_tokens = 1024;
    if (app.count("--pretraining") == 0) settings.pretraining = settings.small ? 0 : settings.steps * 15 / 100;
    return settings.small ? run<SmallSpec>(settings) : run<guild::MiniR1Spec>(settings);
  } catch (const guild::Error& error) {
    std::fprintf(stderr, "\ntrain_tiny_r1: %s\n", error.what());
    return 1;
  }
}
