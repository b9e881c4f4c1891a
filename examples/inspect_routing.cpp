// What experts learn: trains a small model on code, arithmetic, prose and German, and watches its routers on text that
// it never saw. Run it at the root of guild; draws routing_layers.svg and routing_domains.svg.
#include <cstdio>
#include <fstream>

#include <CLI/CLI.hpp>
#include <guild/guild.hpp>

#include "domains.hpp"
#include "plots.hpp"
#include "specialization.hpp"

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 512, .hidden = 64, .layers = 4, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 4, .query_rank = 48, .latent_rank = 32, .nope_dim = 16, .rope_dim = 8, .value_dim = 16};
  static constexpr guild::DenseConfig dense = {.hidden = 128, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2};
  static constexpr guild::ExpertConfig experts = {.hidden = 48, .shared = 0};
};
using Model = guild::Transformer<Spec>;
using specialization::Table;
constexpr std::size_t length = 32, windows = 12;

/// Counts the experts that serve one token, wherever it stands.
struct Asking : guild::Observer {
  std::int32_t token = -1;
  domains::Tokens window{};
  Table experts = Table(Spec::config.layers, std::vector<double>(Spec::routing.experts));
  void on_routing(int layer, guild::View<const std::int32_t, 2> chosen, guild::View<const float, 2>) override {
    for (guild::Index t = 0; t < chosen.rows; ++t)
      for (const std::int32_t e : chosen.row(t))
        experts[std::size_t(layer)][std::size_t(e)] += window[std::size_t(t)] == token ? 1 : 0;
  }
};

/// What routers do in some windows of each text, one text after the other.
specialization::Samples look(guild::Trainer<Model>& trainer, const std::vector<domains::Tokens>& texts) {
  specialization::Samples samples;
  for (const domains::Tokens& text : texts)
    for (std::size_t i = 0; i < windows; ++i)
      trainer.evaluate(domains::window(text, i, windows, length), &samples.emplace_back());
  return samples;
}

int main(int argc, char** argv) {
  std::string asked = " the", out = ".";
  CLI::App app{"Shows which experts of a small model serve which domain of text"};
  app.add_option("--token", asked, "a token whose experts shall be told");
  app.add_option("-o,--out", out, "a folder for the pictures");
  CLI11_PARSE(app, argc, argv);
  try {
    const auto all = domains::of_repository(".", 50000);
    const guild::Tokenizer tokenizer = domains::make_tokenizer(all, Spec::config.vocab);
    const domains::Tokens ids = tokenizer.encode(asked);
    if (ids.size() != 1) throw guild::Error(guild::ErrorCode::in_param, "is not one token here", {"--token"});
    const domains::Encoded texts(all, [&](std::string_view text) { return tokenizer.encode(text); });
    const guild::Cpu device({.threads = 2});
    Model::Weights<guild::Dense<float>> weights;
    guild::initialize<Model>(weights, {.seed = 1, .deviation = 0.05});
    guild::Trainer<Model> trainer(device, std::move(weights), {.optimizer = guild::AdamW{.lr = 3e-3}});
    const auto before = look(trainer, texts.held_out);
    guild::Random random(1, 2);
    for (int step = 0; step < 200; ++step) {
      const double loss = trainer.step(domains::draw(texts.learned, random, 32, length)).losses.loss();
      if (step % 50 == 0 || step == 199) std::printf("step %3d: loss %.3f\n", step, loss);
    }
    const auto after = look(trainer, texts.held_out);
    Asking asking;
    asking.token = ids[0];
    guild::Buffer<float> states(guild::Index{length} * Spec::config.hidden);
    for (const domains::Tokens& text : texts.learned)  // a token is too rare in what is held out
      for (std::size_t i = 0; i < 200; ++i) {
        const guild::TrainingBatch batch = domains::window(text, i, 200, length);
        asking.window = batch.tokens;
        Model::forward(guild::Pass{.device = trainer.device(), .batch = batch.batch(), .observer = &asking},
                       trainer.weights(), {}, states.view(length, Spec::config.hidden));
      }
    Table loads(Spec::config.layers), of_domains;
    std::vector<std::string> names;
    for (int l = Spec::dense.layers; l < Spec::config.layers; ++l) {
      const auto now = specialization::measure(after, l, all.size());
      std::printf("layer %d: an expert tells %.3f of 2 bits of the domain (%.3f by chance, %.3f before training)\n", l,
                  now.bits, now.chance, specialization::measure(before, l, all.size()).bits);
      std::printf("  the busiest has %.2f of the mean load, %zu are dead; \"%s\": %s\n", now.all.max_over_mean(l),
                  now.all.dead_experts(l).size(), asked.c_str(),
                  specialization::leaders(asking.experts[std::size_t(l)]).c_str());
      loads[std::size_t(l)] = specialization::shares(specialization::sum(now.loads));
      for (const auto& load : now.loads) of_domains.push_back(specialization::shares(load));
      for (const auto& domain : all) names.push_back(std::to_string(l) + " " + domain.name);
    }
    std::ofstream(out + "/routing_layers.svg") << plots::heat_map("load of experts", loads);
    std::ofstream(out + "/routing_domains.svg") << plots::heat_map("load by layer and domain", of_domains, names);
  } catch (const guild::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
