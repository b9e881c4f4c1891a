// What a step of training minimises, and its gradients: next tokens, the tokens after them, and balance of experts.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/modules/pass.hpp>
#include <guild/ops/combine.hpp>
#include <guild/ops/fault.hpp>
#include <guild/training/cross_entropy_head.hpp>
#include <guild/training/training_batch.hpp>

namespace guild::inline v1 {

struct ObjectiveOptions {
  AttentionMask mask = AttentionMask::causal;  ///< bidirectional: masked language models
  double z_loss = 0.0;                         ///< coefficient of the mean squared log-sum-exp of the head's logits
  double mtp_weight = 0.3;  ///< of the prediction layer's loss, where the weights have one (DeepSeek-V3: 0.3, then 0.1)
  BalanceOptions balance{};
};

/// Throws op_argument, with the option's name, unless all coefficients are usable.
inline void check(const ObjectiveOptions& options) {
  const auto require = [](double value, const char* key) {
    if (!(value >= 0.0) || !std::isfinite(value))
      throw Error(ErrorCode::op_argument,
                  "is " + std::to_string(value) + "; the coefficient must be finite and not negative, and 0 is off",
                  Where{.key = key});
  };
  require(options.z_loss, "ObjectiveOptions::z_loss");
  require(options.mtp_weight, "ObjectiveOptions::mtp_weight");
  require(options.balance.importance, "BalanceOptions::importance");
  require(options.balance.load, "BalanceOptions::load");
  require(options.balance.auxiliary, "BalanceOptions::auxiliary");
  require(options.balance.sequence, "BalanceOptions::sequence");
  require(options.balance.router_z, "BalanceOptions::router_z");
}

namespace detail {

/// Hands the weights on; throws op_argument if they have prediction layers that the objective would not train: the
/// optimizer would decay them all the same.
template <class Weights>
Weights&& require_trainable(Weights&& weights) {
  if (weights.mtp.size() > 1)
    throw Error(ErrorCode::op_argument,
                "the weights have " + std::to_string(weights.mtp.size()) +
                    " prediction layers, expected at most 1: deeper ones have no loss; resize `mtp` to 1 in a model "
                    "whose config has one, or to 0 (load without LoadOptions::mtp)",
                Where{.key = "weights.mtp"});
  return std::forward<Weights>(weights);
}

}  // namespace detail

/// Sums over what was seen; `loss()` and `second_loss()` are means over its supervised tokens.
struct LossReport {
  LossSums next;    ///< the main model's predictions
  LossSums second;  ///< the prediction layer's: the tokens after the next
  [[nodiscard]] double loss() const { return next.mean_loss(); }
  [[nodiscard]] double second_loss() const { return second.mean_loss(); }
  [[nodiscard]] double accuracy() const {
    return next.count > 0 ? static_cast<double>(next.correct) / static_cast<double>(next.count) : 0.0;
  }
  LossReport& operator+=(const LossReport& other) {
    next += other.next;
    second += other.second;
    return *this;
  }
};

/// What a step of one or several batches divides by: a mean over the whole step, however it is cut.
struct StepSize {
  Index tokens = 0;
  Index next = 0;    ///< supervised tokens
  Index second = 0;  ///< those of them that are not the first of their sequence: the prediction layer's

  /// Throws op_shape for a batch that is none.
  void add(const TrainingBatch& batch) {
    check(batch);
    tokens += batch.size();
    next += batch.supervised();
    for (const Chunk& chunk : batch.chunks)
      for (Index i = 1; i < chunk.count; ++i)
        second += batch.targets[static_cast<std::size_t>(chunk.begin + i)] >= 0 ? 1 : 0;
  }
};

/// Loss and gradients of a model. Holds the memory of activations, which is grown once and then reused.
template <class Model, class Real = float>
class Objective {
 public:
  template <class Store>
  using Weights = typename Model::template Weights<Store>;

  /// Throws op_argument for coefficients that are negative or not finite.
  explicit Objective(ObjectiveOptions options = {}) : options_(options) { check(options_); }
  [[nodiscard]] ObjectiveOptions& options() { return options_; }
  /// Bytes of activations held at most.
  [[nodiscard]] Index activation_bytes() const { return arena_.capacity(); }

  /// Adds one batch's gradients: of the mean over a step of `size`, which the batch is part of. `choices`: see Pass;
  /// prediction layers choose for themselves. `statistics` (may be null) counts routing and the balancing losses.
  /// Throws op_shape, op_argument, in_token, in_context, op_nonfinite; then gradients are partly added to and must be
  /// cleared. Weights of more than one prediction layer are refused (op_argument) before anything changes.
  template <class Device, class Store, class Gradients>
  LossReport learn(Device& device, const Weights<Store>& weights, const TrainingBatch& batch, const StepSize& size,
                   Weights<Gradients>& gradients, RoutingStatistics* statistics,
                   std::span<const View<std::int32_t, 2>> choices = {}) {
    Pass<Device> pass = pass_of(device, weights, batch);
    pass.choices = choices;
    pass.balance_scale = static_cast<double>(batch.size()) / static_cast<double>(size.tokens);
    pass.statistics = statistics;
    Arena::Frame memory(arena_);
    pass.memory = &memory;
    auto& saved = saved_;
    const auto states = memory.template take<Real>(batch.size(), Model::config.hidden);
    const auto dstates = memory.template take<Real>(batch.size(), Model::config.hidden);
    Model::forward(pass, weights, {}, states, &saved);

    LossReport report;
    const WeightView head = Model::head_of(weights).view();
    const auto dhead = Model::head_of(gradients).matrix();
    report.next = cross_entropy_head(device, head, View<const Real, 2>(states), batch.target_view(),
                                     head_options(1.0, size.next), dstates, dhead);
    if (!weights.mtp.empty() && options_.mtp_weight > 0.0) {
      auto own = memory.nested();
      const Second second = second_of(batch, own);
      const auto y = own.template take<Real>(states.rows, states.cols);
      const auto dy = own.template take<Real>(states.rows, states.cols);
      const Pass<Device> deeper = deeper_pass(pass.with(own), second);
      typename Model::Mtp::template Saved<Real> saved_mtp;
      Model::Mtp::forward(deeper, weights.mtp[0], weights.embedding.weight.view(), {}, states, y, &saved_mtp);
      report.second = cross_entropy_head(device, head, View<const Real, 2>(y), second.targets,
                                         head_options(options_.mtp_weight, size.second), dy, dhead);
      Model::Mtp::backward(deeper, weights.mtp[0], states, saved_mtp, dy, y, gradients.embedding.weight.matrix(),
                           gradients.mtp[0]);
      add(device, dstates, y);
    }
    Model::backward(pass, weights, saved, dstates, gradients);
    raise_faults(device);
    return report;
  }

  /// The losses alone.
  template <class Device, class Store>
  LossReport evaluate(Device& device, const Weights<Store>& weights, const TrainingBatch& batch) {
    const Pass<Device> pass = pass_of(device, weights, batch);
    Arena::Frame memory(arena_);
    const auto states = memory.template take<Real>(batch.size(), Model::config.hidden);
    Model::forward(pass, weights, {}, states);
    LossReport report;
    const WeightView head = Model::head_of(weights).view();
    report.next = cross_entropy_head(device, head, View<const Real, 2>(states), batch.target_view(),
                                     head_options(1.0, 1), View<Real, 2>(), View<Real, 2>());
    if (!weights.mtp.empty() && options_.mtp_weight > 0.0) {
      const Second second = second_of(batch, memory);
      const auto y = memory.template take<Real>(states.rows, states.cols);
      Model::Mtp::forward(deeper_pass(pass, second), weights.mtp[0], weights.embedding.weight.view(), {}, states, y);
      report.second = cross_entropy_head(device, head, View<const Real, 2>(y), second.targets, head_options(1.0, 1),
                                         View<Real, 2>(), View<Real, 2>());
    }
    return report;
  }

 private:
  struct Second {
    View<std::int32_t> tokens;   ///< the token after each; any for the last of a sequence
    View<std::int32_t> targets;  ///< the target of the token after each; ignored for the last of a sequence
  };

  template <class Memory>
  static Second second_of(const TrainingBatch& batch, Memory& memory) {
    const Index size = batch.size();
    const Second second{memory.template take<std::int32_t>(size), memory.template take<std::int32_t>(size)};
    for (const Chunk& chunk : batch.chunks)
      for (Index i = 0; i < chunk.count; ++i) {
        const Index row = chunk.begin + i;
        const auto next = static_cast<std::size_t>(row + 1);
        const bool last = i + 1 == chunk.count;
        second.tokens[row] = last ? 0 : batch.tokens[next];
        second.targets[row] = last ? TrainingBatch::ignored : batch.targets[next];
      }
    return second;
  }

  /// The pass of the prediction layer.
  template <class Device>
  static Pass<Device> deeper_pass(Pass<Device> pass, const Second& second) {
    pass.batch.tokens = second.tokens;
    pass.layer = Model::config.layers;
    return pass;
  }

  template <class Device, class Store>
  Pass<Device> pass_of(Device& device, const Weights<Store>& weights, const TrainingBatch& batch) {
    Pass<Device> pass{.device = device};
    detail::require_trainable(weights);
    check(options_);  // they may change from step to step
    check(batch);
    pass.batch = batch.batch();
    offsets_.clear();
    for (const Chunk& chunk : batch.chunks) {
      if (chunk.count > Model::config.context)
        throw Error(ErrorCode::in_context, "a sequence of " + std::to_string(chunk.count) +
                                               " tokens does not fit the model's context of " +
                                               std::to_string(Model::config.context) + "; cut it");
      offsets_.push_back(chunk.begin);
    }
    offsets_.push_back(batch.size());
    pass.mask = options_.mask;
    pass.balance = options_.balance;
    pass.sequence_offsets = offsets_;
    return pass;
  }

  HeadLossOptions head_options(double weight, Index count) const {
    HeadLossOptions head;
    head.scale = weight / static_cast<double>(std::max<Index>(count, 1));
    head.z_loss = options_.z_loss;
    return head;
  }

  ObjectiveOptions options_;
  Arena arena_;
  typename Model::template Saved<Real> saved_;
  std::vector<Index> offsets_;
};

}  // namespace guild::inline v1
