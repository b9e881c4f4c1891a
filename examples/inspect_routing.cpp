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
constexpr std::size_t length = 32;

/// Counts how often each expert of each layer is chosen: in each window, and by one token wherever it stands.
struct Watch : guild::Observer {
  static constexpr std::size_t experts = Spec::routing.experts, layers = Spec::config.layers;
  std::int32_t token = -1;
  std::vector<Table> windows_of = std::vector<Table>(layers);  // [layers][windows, experts]
  Table of_token = Table(layers, std::vector<double>(experts));
  domains::Tokens window{};
  void on_routing(int layer, guild::View<const std::int32_t, 2> chosen, guild::View<const float, 2>) override {
    auto &counts = windows_of[std::size_t(layer)].emplace_back(experts), &its = of_token[std::size_t(layer)];
    for (guild::Index t = 0; t < chosen.rows; ++t)
      for (const std::int32_t e : chosen.row(t)) {
        counts[std::size_t(e)] += 1;
        if (window[std::size_t(t)] == token) its[std::size_t(e)] += 1;
      }
  }
  /// So many windows of each text, one text after the other.
  void look(guild::Trainer<Model>& trainer, const std::vector<domains::Tokens>& texts, std::size_t windows) {
    guild::Buffer<float> states(guild::Index{length} * Spec::config.hidden);
    for (const domains::Tokens& text : texts)
      for (std::size_t i = 0; i < windows; ++i) {
        const guild::TrainingBatch batch = domains::window(text, i, windows, length);
        window = batch.tokens;
        Model::forward(guild::Pass{.device = trainer.device(), .batch = batch.batch(), .observer = this},
                       trainer.weights(), {}, states.view(length, Spec::config.hidden));
      }
  }
};

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
    Watch before, after, asking;
    before.look(trainer, texts.held_out, 12);
    guild::Random random(1, 2);
    for (int step = 0; step < 200; ++step) {
      const double loss = trainer.step(domains::draw(texts.learned, random, 32, length)).losses.loss();
      if (step % 50 == 0 || step == 199) std::printf("step %3d: loss %.3f\n", step, loss);
    }
    after.look(trainer, texts.held_out, 12);
    asking.token = ids[0];
    asking.look(trainer, texts.learned, 200);  // a token is too rare in so little text
    Table loads(Watch::layers), of_domains;
    std::vector<std::string> names;
    for (std::size_t l = Spec::dense.layers; l < Watch::layers; ++l) {
      const auto now = specialization::measure(after.windows_of[l], all.size());
      const double then = specialization::measure(before.windows_of[l], all.size()).bits;
      std::printf("layer %zu: an expert tells %.3f of 2 bits of the domain (%.3f by chance, %.3f before training)\n", l,
                  now.bits, now.chance, then);
      std::printf("  \"%s\": %s\n", asked.c_str(), specialization::leaders(asking.of_token[l]).c_str());
      loads[l] = specialization::shares(specialization::sum(now.loads));
      for (std::size_t d = 0; d < all.size(); ++d) {
        of_domains.push_back(specialization::shares(now.loads[d]));
        names.push_back(std::to_string(l) + " " + all[d].name);
      }
    }
    std::ofstream(out + "/routing_layers.svg") << plots::heat_map("load of experts", loads);
    std::ofstream(out + "/routing_domains.svg") << plots::heat_map("load by layer and domain", of_domains, names);
  } catch (const guild::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
