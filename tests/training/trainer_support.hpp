// A small model of every part, batches for it, and all that a trainer holds, to be compared bit by bit.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/models/transformer.hpp>
#include <guild/training/initialize.hpp>
#include <guild/training/trainer.hpp>

namespace guild_test {

using guild::Index;

struct KeptSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 17, .hidden = 8, .layers = 3, .mtp_layers = 1, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 4, .latent_rank = 4, .nope_dim = 2, .rope_dim = 2, .value_dim = 3};
  static constexpr guild::DenseConfig dense = {.hidden = 6, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 6, .top_k = 2, .groups = 3, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 4, .shared = 1};
};
struct RecomputedSpec : KeptSpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
using Kept = guild::Transformer<KeptSpec>;
using Recomputed = guild::Transformer<RecomputedSpec>;

/// Whether a model is trained with its prediction layer.
enum class Second { without, with };

template <class Model>
typename Model::template Weights<guild::Dense<float>> first_weights(std::uint64_t seed, Second second,
                                                                    double deviation = 0.2) {
  typename Model::template Weights<guild::Dense<float>> weights;
  weights.mtp.resize(second == Second::with ? 1 : 0);
  guild::initialize<Model>(weights, {.seed = seed, .deviation = deviation});
  return weights;
}

/// Sequences of these lengths with a target for about three of four tokens.
inline guild::TrainingBatch batch_of(const std::vector<Index>& lengths, std::uint64_t seed,
                                     std::int32_t vocab = KeptSpec::config.vocab) {
  guild::Random random(seed, 5);
  guild::TrainingBatch batch;
  for (const Index length : lengths) {
    std::vector<std::int32_t> tokens, targets;
    for (Index i = 0; i < length; ++i) {
      tokens.push_back(static_cast<std::int32_t>(random.uniform() * vocab));
      targets.push_back(random.uniform() < 0.75 ? static_cast<std::int32_t>(random.uniform() * vocab) : -1);
    }
    batch.append(tokens, targets);
  }
  return batch;
}

/// All balancing losses and the z-loss.
inline guild::ObjectiveOptions all_terms() {
  guild::ObjectiveOptions options;
  options.z_loss = 0.01;
  options.balance = {
      .importance = 0.01, .load = 0.01, .auxiliary = 0.01, .sequence = 0.01, .router_z = 0.01, .entropy = 0.01};
  return options;
}

/// The elements of all tensors that are trained or saved, in the order of visit.
template <class Model, class Weights>
std::vector<float> values_of(const Weights& weights) {
  std::vector<float> all;
  guild::for_each_tensor<Model>(
      [&](const guild::Path&, const guild::TensorShape&, guild::TensorRole role, const auto& data) {
        if (role == guild::TensorRole::shared) return;
        for (Index i = 0; i < data.size(); ++i) all.push_back(static_cast<float>(data[i]));
      },
      weights);
  return all;
}
inline bool equal_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

/// All that goes on from step to step: weights, selection biases, moments, average, counters.
struct State {
  std::vector<float> weights, moments, average;
  Index steps = 0, skipped = 0, optimizer_steps = 0;
};
template <class Trainer>
State state_of(Trainer& trainer) {
  using Model = typename Trainer::ModelType;
  State state;
  state.weights = values_of<Model>(trainer.weights());
  trainer.optimizer().visit_state([&](const std::string&, const guild::TensorShape&, guild::View<float> values) {
    state.moments.insert(state.moments.end(), values.begin(), values.end());
  });
  if (trainer.options().average > 0.0) state.average = values_of<Model>(trainer.average());
  state.steps = trainer.steps();
  state.skipped = trainer.skipped_steps();
  state.optimizer_steps = trainer.optimizer().steps();
  return state;
}
/// What differs between two states, "" if nothing.
inline std::string difference(const State& a, const State& b) {
  std::string text;
  if (!equal_bits(a.weights, b.weights)) text += " weights";
  if (!equal_bits(a.moments, b.moments)) text += " moments";
  if (!equal_bits(a.average, b.average)) text += " average";
  if (a.steps != b.steps) text += " steps";
  if (a.skipped != b.skipped) text += " skipped";
  if (a.optimizer_steps != b.optimizer_steps) text += " optimizer_steps";
  return text;
}

/// The numbers of a report that must be equal in equal steps: all but time and memory.
inline std::vector<double> numbers_of(const guild::StepReport& report) {
  const auto& next = report.losses.next;
  const auto& second = report.losses.second;
  const auto& balance = report.balance;
  return {static_cast<double>(report.step),
          report.outcome == guild::StepOutcome::applied ? 1.0 : 0.0,
          next.loss,
          next.z,
          static_cast<double>(next.count),
          static_cast<double>(next.correct),
          second.loss,
          second.z,
          static_cast<double>(second.count),
          static_cast<double>(second.correct),
          balance.importance,
          balance.load,
          balance.auxiliary,
          balance.sequence,
          balance.router_z,
          balance.entropy,
          report.rate,
          report.gradient_norm,
          report.busiest,
          static_cast<double>(report.idle_experts),
          static_cast<double>(report.tokens),
          static_cast<double>(report.skipped_steps)};
}
inline bool equal_numbers(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

/// Calls f(path, role, data) for one tensor after the other of a trainer's weights.
template <class Model, class Weights, class F>
void for_each_named(Weights& weights, F&& f) {
  guild::for_each_tensor<Model>([&](const guild::Path& path, const guild::TensorShape&, guild::TensorRole role,
                                    guild::Buffer<float>& data) { f(path.str(), role, data); },
                                weights);
}

}  // namespace guild_test
