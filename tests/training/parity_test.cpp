// Losses, every parameter's gradient and twenty optimizer steps against PyTorch (tests/fixtures/training/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/cpu.hpp>
#include <guild/io/json.hpp>
#include <guild/io/safetensors.hpp>
#include <guild/models/transformer.hpp>
#include <guild/training/trainer.hpp>

namespace parity_test {

using guild::Dense;
using guild::Index;

struct R1Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 61, .hidden = 36, .layers = 3, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 3, .query_rank = 14, .latent_rank = 16, .nope_dim = 8, .rope_dim = 6, .value_dim = 10};
  static constexpr guild::DenseConfig dense = {.hidden = 44, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 3, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 12, .shared = 1};
};
struct MtpSpec : R1Spec {
  static constexpr guild::TrunkConfig config = {.vocab = 61, .hidden = 36, .layers = 2, .mtp_layers = 1, .context = 64};
};
struct NoQueryRankSpec : R1Spec {
  static constexpr guild::TrunkConfig config = {
      .vocab = 61, .hidden = 36, .layers = 3, .context = 64, .norm = {.epsilon = 1e-5}};
  static constexpr guild::MlaConfig attention = {
      .heads = 3,
      .query_rank = 0,
      .latent_rank = 16,
      .nope_dim = 8,
      .rope_dim = 6,
      .value_dim = 10,
      .rope = {.factor = 4.0, .mscale = 1.0, .mscale_all_dim = 1.0, .original_context = 16}};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2, .groups = 2, .top_groups = 1, .scale = 1.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 12, .shared = 2};
};
struct DenseTiedSpec : R1Spec {
  static constexpr guild::TrunkConfig config = {
      .vocab = 61, .hidden = 36, .layers = 3, .context = 64, .tied_embeddings = true};
  static constexpr guild::MlaConfig attention = {
      .heads = 3, .query_rank = 0, .latent_rank = 16, .nope_dim = 8, .rope_dim = 6, .value_dim = 10};
  static constexpr guild::DenseConfig dense = {.hidden = 44, .layers = 3};
};

/// A safetensors file by names.
class Tensors {
 public:
  explicit Tensors(const std::string& path)
      : file_(guild::File::open(path)), tensors_(guild::read_safetensors_header(file_).tensors) {}

  template <class T>
  [[nodiscard]] std::vector<T> read(const std::string& name) const {
    const auto found = std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.name == name; });
    if (found == tensors_.end() || found->dtype != guild::dtype_of<T>) {
      ADD_FAILURE() << name << " is not in the file with this type";
      return {};
    }
    std::vector<T> values(static_cast<std::size_t>(found->bytes) / sizeof(T));
    file_.read_at(found->begin, values.data(), static_cast<std::size_t>(found->bytes));
    return values;
  }
  [[nodiscard]] guild::TrainingBatch batch(const std::string& prefix = {}) const {
    const auto tokens = read<std::int32_t>(prefix + "tokens"), targets = read<std::int32_t>(prefix + "targets");
    guild::TrainingBatch batch;
    std::size_t begin = 0;
    for (const std::int32_t length : read<std::int32_t>(prefix + "lengths")) {
      const auto count = static_cast<std::size_t>(length);
      batch.append(std::span(tokens).subspan(begin, count), std::span(targets).subspan(begin, count));
      begin += count;
    }
    return batch;
  }

 private:
  guild::File file_;
  std::vector<guild::TensorInfo> tensors_;
};

std::string folder_of(const std::string& name) { return GUILD_SOURCE_DIR "/tests/fixtures/training/" + name; }

template <class Model>
auto load(const std::string& name) {
  guild::LoadOptions options;
  options.mtp = Model::config.mtp_layers > 0;
  return guild::load_dense<Model>(folder_of(name), options);
}

/// Compares the loss and every gradient, in units of the tensor's largest one.
template <class S>
void expect_equal_gradients(const std::string& name, const std::string& objective_name,
                            guild::ObjectiveOptions options = {}) {
  using Model = guild::Transformer<S>;
  const Tensors expected(folder_of(name) + "/expected_" + objective_name + ".safetensors");
  const Tensors gradients_expected(folder_of(name) + "/gradients_" + objective_name + ".safetensors");
  const guild::TrainingBatch batch = expected.batch();
  guild::Cpu device({.threads = 2});
  const auto weights = load<Model>(name);
  typename Model::template Weights<Dense<float>> gradients;
  gradients.mtp.resize(weights.mtp.size());
  guild::allocate_trained<Model>(gradients);
  guild::Objective<Model> objective(options);
  guild::StepSize size;
  size.add(batch);
  const guild::LossReport report = objective.learn(device, weights, batch, size, gradients, {});

  EXPECT_NEAR(report.loss(), expected.read<double>("main_loss").at(0), 1e-5);
  if (!weights.mtp.empty() && options.mtp_weight > 0.0) {
    EXPECT_NEAR(report.second_loss(), expected.read<double>("second_loss").at(0), 1e-5);
  }
  int compared = 0;
  guild::for_each_parameter<Model>(
      [&](const guild::Path& path, const guild::TensorShape&, const guild::Buffer<float>& found) {
        const std::string published = guild::published_name<guild::DeepSeekNames>(path);
        if (options.mtp_weight == 0.0 && published.find("layers." + std::to_string(S::config.layers)) == 6) return;
        const auto wanted = gradients_expected.read<float>(published);
        ASSERT_EQ(static_cast<Index>(wanted.size()), found.size()) << published;
        double largest = 0.0, difference = 0.0;
        for (Index i = 0; i < found.size(); ++i) {
          const double value = wanted[static_cast<std::size_t>(i)];
          largest = std::max(largest, std::abs(value));
          difference = std::max(difference, std::abs(value - static_cast<double>(found[i])));
        }
        EXPECT_GT(largest, 0.0) << published;
        EXPECT_LE(difference, 1e-4 * largest) << published;
        ++compared;
      },
      gradients);
  EXPECT_GT(compared, 10);
}

TEST(TrainingParity, LossAndGradientsOfR1EqualPyTorch) { expect_equal_gradients<R1Spec>("r1", "causal"); }
TEST(TrainingParity, LossAndGradientsWithoutQueryCompressionEqualPyTorch) {
  expect_equal_gradients<NoQueryRankSpec>("r1_no_q_lora", "causal");
}
TEST(TrainingParity, LossAndGradientsOfADenseTiedModelEqualPyTorch) {
  expect_equal_gradients<DenseTiedSpec>("dense_tied", "causal");
}
TEST(TrainingParity, LossAndGradientsOfAMaskedLanguageModelEqualPyTorch) {
  expect_equal_gradients<NoQueryRankSpec>("r1_no_q_lora", "masked", {.mask = guild::AttentionMask::bidirectional});
}
TEST(TrainingParity, LossAndGradientsWithMultiTokenPredictionEqualPyTorch) {
  expect_equal_gradients<MtpSpec>("r1_mtp", "mtp", {.mtp_weight = 0.3});
}
TEST(TrainingParity, APredictionLayerThatIsNotTrainedChangesNothing) {
  expect_equal_gradients<MtpSpec>("r1_mtp", "causal", {.mtp_weight = 0.0});
}

void expect_equal_steps(const std::string& variant) {
  using Model = guild::Transformer<R1Spec>;
  const std::string path = folder_of("r1_steps/expected.json");
  const std::string text = guild::read_text(path, 1 << 24);
  const guild::Json json = guild::Json::parse(text, {.path = path});
  const guild::Json expected = json[variant], settings = json["settings"];
  const auto warm_up = settings["warm_up"].integer();
  std::vector<guild::SchedulePiece> pieces;
  guild::TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = settings["rate"].number(),
                                   .beta1 = settings["beta1"].number(),
                                   .beta2 = settings["beta2"].number(),
                                   .epsilon = settings["epsilon"].number(),
                                   .weight_decay = settings["decay"].number()};
  options.clip = expected["clip"].number();
  options.bias_rate = expected["gamma"].number();
  options.schedule = guild::Schedule::warmup_stable_decay(warm_up, 1000, 0);
  guild::Trainer<Model> trainer(guild::Cpu({.threads = 2}), load<Model>("r1_steps"), options);
  const Tensors batches(folder_of("r1_steps/batches.safetensors"));

  std::vector<double> losses, norms;
  std::vector<std::vector<std::vector<double>>> loads;
  expected["loss"].for_each_element([&](const guild::Json& value) { losses.push_back(value.number()); });
  expected["gradient_norm"].for_each_element([&](const guild::Json& value) { norms.push_back(value.number()); });
  expected["loads"].for_each_element([&](const guild::Json& step) {
    loads.emplace_back();
    step.for_each_element([&](const guild::Json& layer) {
      loads.back().emplace_back();
      layer.for_each_element([&](const guild::Json& load) { loads.back().back().push_back(load.number()); });
    });
  });
  ASSERT_EQ(losses.size(), 20U);
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const auto report = trainer.step(batches.batch("step." + std::to_string(i) + "."));
    EXPECT_NEAR(report.losses.loss(), losses[i], 1e-4 * losses[i]) << "step " << i;
    EXPECT_NEAR(report.gradient_norm, norms[i], 1e-3 * norms[i]) << "step " << i;
    for (std::size_t layer = 0; layer < loads[i].size(); ++layer)
      for (std::size_t e = 0; e < loads[i][layer].size(); ++e)
        EXPECT_EQ(trainer.routing().load(static_cast<int>(layer) + 1)[static_cast<Index>(e)], loads[i][layer][e])
            << "step " << i << " layer " << layer + 1 << " expert " << e;
  }
}
TEST(TrainingParity, TwentyStepsOfAdamWEqualPyTorch) { expect_equal_steps("plain"); }
TEST(TrainingParity, TwentyStepsWithBalancingBySelectionBiasEqualPyTorch) { expect_equal_steps("balanced"); }

}  // namespace parity_test
