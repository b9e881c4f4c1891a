// compile only
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/guild.hpp>

struct BaseSpec : guild::MiniR1Spec {};

// [begin]
struct ThriftySpec : BaseSpec {  // computes activations a second time instead of keeping them
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
using Model = guild::Transformer<ThriftySpec>;

void fine_tune(const std::string& folder, std::vector<guild::TrainingBatch>& batches) {
  guild::TrainerOptions options;
  options.optimizer = guild::Muon{.lr = 2e-3, .rest = {.lr = 1e-3}};  // `rest`: vectors, embedding, head and routers
  options.groups = [](const guild::Path& path, const guild::TensorShape& shape) {
    guild::ParameterGroup group = guild::default_group(path, shape);
    if (guild::passes_through(path, "embedding")) group.lr_scale = 0;  // stays as it is
    return group;
  };
  using guild::Course;
  options.schedule = guild::Schedule::piecewise({{.steps = 100, .course = Course::linear, .from = 0, .to = 1},
                                                 {.steps = 800},
                                                 {.steps = 400, .course = Course::cosine, .from = 1, .to = 0.1}});
  options.objective.balance.sequence = 1e-4;
  // Products in bf16, masters and moments in float.
  guild::Trainer<Model, guild::Cpu, guild::bf16> trainer(guild::Cpu{}, guild::load_dense<Model>(folder), options);
  trainer.step(std::span<const guild::TrainingBatch>(batches));  // one step on all of them

  trainer.objective().mask = guild::AttentionMask::bidirectional;  // a masked language model
  guild::mask_tokens(batches[0], {.mask_token = 2, .vocab = Model::config.vocab}, /*seed=*/1, /*draw=*/0);
  trainer.step(batches[0]);
}
// [end]

int main() {
  std::vector<guild::TrainingBatch> batches(2);
  fine_tune("checkpoints/mini-r1", batches);
}
