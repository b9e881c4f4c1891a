// Trains a small mixture-of-experts model on the bytes of any text, and says how well it foretells the last tenth of
// it. With the corpus and the first weights of tests/oracle/char_reference.py it repeats that PyTorch run, batch by
// batch.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <guild/guild.hpp>

namespace {

struct ByteSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 256, .hidden = 128, .layers = 4, .context = 128};
  static constexpr guild::MlaConfig attention = {
      .heads = 4, .query_rank = 64, .latent_rank = 64, .nope_dim = 16, .rope_dim = 16, .value_dim = 32};
  static constexpr guild::DenseConfig dense = {.hidden = 256, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 64, .shared = 1};
};
using Model = guild::Transformer<ByteSpec>;

constexpr std::size_t length = 128, rows = 32;

/// Number n of the generator of that name: where the windows of a step begin.
std::uint64_t splitmix64(std::uint64_t n) {
  std::uint64_t z = (n + 1) * 0x9E3779B97F4A7C15U;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
  z = (z ^ z >> 27) * 0x94D049BB133111EBU;
  return z ^ z >> 31;
}

/// `length` bytes as tokens, each with the byte after it as target.
void append(guild::TrainingBatch& batch, std::string_view text, std::size_t begin) {
  std::vector<std::int32_t> tokens, targets;
  for (std::size_t i = begin; i < begin + length; ++i) {
    tokens.push_back(static_cast<unsigned char>(text[i]));
    targets.push_back(static_cast<unsigned char>(text[i + 1]));
  }
  batch.append(tokens, targets);
}

}  // namespace

int main(int argc, char** argv) {
  std::string path, begin, out;
  guild::Index steps = 1500;
  int threads = 0;
  CLI::App app{"Trains a small byte model on a text"};
  app.add_option("text", path, "a file of at least 10 kB")->required();
  app.add_option("--begin", begin, "a folder with the first weights; none: random ones");
  app.add_option("-o,--out", out, "a folder for the trained model");
  app.add_option("--steps", steps, "of 32 windows of 128 bytes");
  app.add_option("-t,--threads", threads, "0: all processors");
  CLI11_PARSE(app, argc, argv);
  try {
    const std::string text = guild::read_text(path, std::size_t{1} << 30);
    if (text.size() < 10000) throw guild::Error(guild::ErrorCode::in_param, "is too short to learn from", {path});
    const std::string_view training(text.data(), text.size() / 10 * 9),
        validation = std::string_view(text).substr(training.size());

    const guild::Cpu device({.threads = threads});
    Model::Weights<guild::Dense<float>> weights;
    if (begin.empty())
      guild::initialize<Model>(weights, {.seed = 1, .deviation = 0.05});
    else
      weights = guild::load_dense<Model>(begin);
    guild::Trainer<Model> trainer(
        device, std::move(weights),
        {.optimizer = guild::AdamW{.lr = 2e-3}, .schedule = guild::Schedule::warmup_cosine(100, steps, 0.1)});

    guild::TrainingBatch batch;
    double busiest = 0.0;
    for (guild::Index step = 0; step < steps; ++step) {
      batch.clear();
      for (std::size_t row = 0; row < rows; ++row)
        append(batch, training, splitmix64(static_cast<std::uint64_t>(step) * rows + row) % (training.size() - length));
      const guild::StepReport report = trainer.step(batch);
      if (step >= 100) busiest = std::max(busiest, report.busiest);
      if (report.step % 50 == 0)
        std::printf("%s\n",
                    guild::progress_line(report, steps, report.seconds * static_cast<double>(steps - step)).c_str());
    }

    guild::LossReport seen;
    for (std::size_t at = 0; at + length < validation.size();) {
      batch.clear();
      for (std::size_t row = 0; row < rows && at + length < validation.size(); ++row, at += length)
        append(batch, validation, at);
      seen += trainer.evaluate(batch);
    }
    std::printf("validation loss %.5f over %lld bytes; busiest expert after step 100: %.2f of the mean\n", seen.loss(),
                static_cast<long long>(seen.next.count), busiest);
    if (!out.empty()) guild::save_model<Model>(out, trainer.weights());
    return 0;
  } catch (const guild::Error& error) {
    std::fprintf(stderr, "train_text: %s\n", error.what());
    return 1;
  }
}
