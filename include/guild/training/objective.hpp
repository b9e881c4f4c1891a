// What a step of training minimises, and its gradients: next tokens, the tokens after them, and balance of experts.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/buffer.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/arena.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/balance_support.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/takes_slots.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/common/fault.hpp>
#include <guild/ops/head/cross_entropy_head.hpp>
#include <guild/training/objective_options.hpp>
#include <guild/training/span_counts.hpp>
#include <guild/training/training_batch.hpp>

namespace guild {
inline namespace v1 {

/// Prediction layers that can be trained, one after the other: layer d guesses the token d + 2 places ahead.
inline constexpr std::size_t most_prediction_layers = 4;

namespace detail {

/// Hands the weights on; throws op_argument if they have more prediction layers than the objective counts.
template <class Weights>
Weights&& require_trainable(Weights&& weights) {
  if (weights.mtp.size() > most_prediction_layers)
    refuse(ErrorCode::op_argument,
           {"the weights have ", weights.mtp.size(), " prediction layers, expected at most ", most_prediction_layers,
            "; resize `mtp`, or load without LoadOptions::mtp"},
           "weights.mtp");
  return std::forward<Weights>(weights);
}

}  // namespace detail

/// Sums over what was seen; `loss()` and `second_loss()` are means over its supervised tokens.
struct LossReport {
  LossSums next;    ///< the main model's predictions
  LossSums second;  ///< the first prediction layer's: the tokens after the next
  std::array<LossSums, most_prediction_layers - 1> later{};  ///< further prediction layers'
  double index = 0.0;    ///< the objective of sparse attention's indices, of the mean token, summed over layers
  double merging = 0.0;  ///< ratio losses of spans of merged tokens, summed over spans; of learning alone
  SpanCounts spans{};    ///< what each of them merged; of learning alone
  [[nodiscard]] double loss() const { return next.mean_loss(); }
  [[nodiscard]] double second_loss() const { return second.mean_loss(); }
  /// Of prediction layer `depth`, from 0.
  [[nodiscard]] LossSums& ahead(std::size_t depth) { return depth == 0 ? second : later[depth - 1]; }
  [[nodiscard]] double accuracy() const {
    return next.count > 0 ? static_cast<double>(next.correct) / static_cast<double>(next.count) : 0.0;
  }
  LossReport& operator+=(const LossReport& other) {
    next += other.next;
    second += other.second;
    for (std::size_t i = 0; i < later.size(); ++i) later[i] += other.later[i];
    index += other.index;
    merging += other.merging;
    spans += other.spans;
    return *this;
  }
};

/// What a step of one or several batches divides by: a mean over the whole step, however it is cut.
struct StepSize {
  Index tokens = 0;
  Index next = 0;    ///< supervised tokens
  Index second = 0;  ///< those of them that are not the first of their sequence: the first prediction layer's
  std::array<Index, most_prediction_layers - 1> later{};  ///< and not the second, third...: further prediction layers'

  /// Of prediction layer `depth`, from 0.
  [[nodiscard]] Index ahead(std::size_t depth) const { return depth == 0 ? second : later[depth - 1]; }
  /// Throws op_shape for a batch that is none.
  void add(const TrainingBatch& batch) {
    check(batch);
    tokens += batch.size();
    next += batch.supervised();
    for (const Chunk& chunk : batch.chunks)
      for (Index i = 1; i < chunk.count; ++i) {
        if (batch.targets[static_cast<std::size_t>(chunk.begin + i)] < 0) continue;
        ++second;
        for (std::size_t depth = 1; depth < most_prediction_layers; ++depth)
          later[depth - 1] += i > static_cast<Index>(depth) ? 1 : 0;
      }
  }
};

/// Loss and gradients of a model on devices with this memory. Holds that of activations, which is grown once and then
/// reused.
template <class Model, class Real = float, class Memory = HostMemory>
class Objective {
  using ActivationArena = BasicArena<typename Memory::template Buffer<std::byte>>;
  using Frame = typename ActivationArena::Frame;

 public:
  template <class Store>
  using Weights = typename Model::template Weights<Store>;

  /// Throws op_argument for coefficients that are negative or not finite.
  explicit Objective(ObjectiveOptions options = {}) : options_(options) { check(options_); }
  [[nodiscard]] ObjectiveOptions& options() { return options_; }
  /// Bytes of activations held at most.
  [[nodiscard]] Index activation_bytes() const { return arena_.capacity(); }

  /// Adds one batch's gradients: of the mean over a step of `size`, which the batch is part of. `choices`: see Pass;
  /// prediction layers choose for themselves. Routing and the balancing losses are counted in `counts`; `noise`: of
  /// this batch.
  /// Throws op_shape, op_argument, in_token, in_context, op_nonfinite; then gradients are partly added to and must be
  /// cleared. Weights of more than `most_prediction_layers` are refused (op_argument) before anything changes.
  template <class Device, class Store, class Gradients>
  LossReport learn(Device& device, const Weights<Store>& weights, const TrainingBatch& batch, const StepSize& size,
                   Weights<Gradients>& gradients, const RoutingCounts& counts = {},
                   std::span<const DeviceView<std::int32_t, 2>> choices = {}, const Noise& noise = {}) {
    detail::require_balance<typename Model::Layers>(options_.balance);
    Frame memory(arena_);
    Pass<Device> pass = pass_of(device, weights, batch, memory, counts);
    pass.choices = choices;
    pass.noise = noise;
    pass.balance_scale = static_cast<double>(batch.size()) / static_cast<double>(size.tokens);
    pass.memory = &memory;
    add_objectives(pass, weights.mtp.size(), memory);
    auto& saved = saved_;
    const auto states = memory.template take<Real>(batch.size(), Model::config.hidden);
    const auto dstates = memory.template take<Real>(batch.size(), Model::config.hidden);
    Model::forward(pass, weights, {}, states, &saved);

    LossReport report;
    const auto targets = upload(device, std::span<const std::int32_t>(batch.targets), memory);
    const WeightView head = Model::head_of(weights).view();
    const auto dhead = Model::head_of(gradients).matrix();
    report.next = cross_entropy_head(device, head, DeviceView<const Real, 2>(states), targets,
                                     head_options(1.0, size.next), dstates, dhead);
    ahead_.resize(options_.mtp_weight > 0.0 ? weights.mtp.size() : 0);
    if (!ahead_.empty()) {
      auto own = memory.nested();
      const Pass<Device> keeping = pass.with(own);
      const double weight = options_.mtp_weight / static_cast<double>(ahead_.size());
      DeviceView<const Real, 2> x = states;
      for (std::size_t depth = 0; depth < ahead_.size(); ++depth) {
        Ahead& ahead = ahead_[depth];
        ahead.tokens = shifted(device, batch, depth, own);
        ahead.x = x;
        ahead.y = own.template take<Real>(states.rows, states.cols);
        ahead.dy = own.template take<Real>(states.rows, states.cols);
        Model::Mtp::forward(deeper_pass(keeping, ahead.tokens, depth), weights.mtp[depth],
                            weights.embedding.weight.view(), {}, x, ahead.y, &ahead.saved);
        x = ahead.y;
        report.ahead(depth) = cross_entropy_head(device, head, x, ahead.tokens.targets,
                                                 head_options(weight, size.ahead(depth)), ahead.dy, dhead);
      }
      for (std::size_t depth = ahead_.size(); depth-- > 0;) {
        Ahead& ahead = ahead_[depth];
        const DeviceView<Real, 2> dx = ahead.y;  // no longer needed
        Model::Mtp::backward(deeper_pass(keeping, ahead.tokens, depth), weights.mtp[depth], ahead.x, ahead.saved,
                             ahead.dy, dx, gradients.embedding.weight.matrix(), gradients.mtp[depth]);
        add(device, depth > 0 ? ahead_[depth - 1].dy : dstates, dx);
      }
    }
    Model::backward(pass, weights, saved, dstates, gradients);
    raise_faults(device);
    if (pass.indexing.weight > 0.0) {
      const Download losses(device, pass.indexing.loss_l);
      for (const double loss : losses.view()) report.index += loss;
    }
    if constexpr (detail::merges_tokens<typename Model::Layers>) {
      const Download merged(device, pass.merging.terms_l);
      for (Index layer = 0; layer < merged.view().size; ++layer) {
        report.merging += merged.view()[layer].loss;
        report.spans.add(static_cast<int>(layer), merged.view()[layer]);
      }
    }
    return report;
  }

  /// The losses alone. Routing is counted in `counts`.
  template <class Device, class Store>
  LossReport evaluate(Device& device, const Weights<Store>& weights, const TrainingBatch& batch,
                      const RoutingCounts& counts = {}) {
    Frame memory(arena_);
    const Pass<Device> pass = pass_of(device, weights, batch, memory, counts);
    const auto states = memory.template take<Real>(batch.size(), Model::config.hidden);
    Model::forward(pass, weights, {}, states);
    LossReport report;
    const auto targets = upload(device, std::span<const std::int32_t>(batch.targets), memory);
    const WeightView head = Model::head_of(weights).view();
    report.next = cross_entropy_head(device, head, DeviceView<const Real, 2>(states), targets, head_options(1.0, 1),
                                     DeviceView<Real, 2>(), DeviceView<Real, 2>());
    DeviceView<const Real, 2> x = states;
    ahead_.resize(options_.mtp_weight > 0.0 ? weights.mtp.size() : 0);
    for (std::size_t depth = 0; depth < ahead_.size(); ++depth) {
      const Shifted tokens = shifted(device, batch, depth, memory);
      const auto y = memory.template take<Real>(states.rows, states.cols);
      Model::Mtp::forward(deeper_pass(pass, tokens, depth), weights.mtp[depth], weights.embedding.weight.view(), {}, x,
                          y);
      x = y;
      report.ahead(depth) = cross_entropy_head(device, head, x, tokens.targets, head_options(1.0, 1),
                                               DeviceView<Real, 2>(), DeviceView<Real, 2>());
    }
    return report;
  }

 private:
  struct Shifted {
    DeviceView<const std::int32_t> tokens;   ///< the token some places after each; any where the sequence has ended
    DeviceView<const std::int32_t> targets;  ///< that token's target; ignored there
  };
  /// A prediction layer on its way: x goes in, y comes out and is the next one's x.
  struct Ahead {
    Shifted tokens;
    DeviceView<const Real, 2> x;
    DeviceView<Real, 2> y, dy;
    std::vector<std::int32_t> token_ids, target_ids;  ///< on the host
    typename Model::Mtp::template Saved<Real> saved;
  };

  /// What prediction layer `depth` reads and guesses.
  template <class Device>
  Shifted shifted(Device& device, const TrainingBatch& batch, std::size_t depth, Frame& memory) {
    const Index places = static_cast<Index>(depth) + 1;
    Ahead& ahead = ahead_[depth];
    ahead.token_ids.clear();
    ahead.target_ids.clear();
    for (const Chunk& chunk : batch.chunks)
      for (Index i = 0; i < chunk.count; ++i) {
        const auto there = static_cast<std::size_t>(chunk.begin + i + places);
        const bool ended = i + places >= chunk.count;
        ahead.token_ids.push_back(ended ? 0 : batch.tokens[there]);
        ahead.target_ids.push_back(ended ? TrainingBatch::ignored : batch.targets[there]);
      }
    return {upload(device, std::span<const std::int32_t>(ahead.token_ids), memory),
            upload(device, std::span<const std::int32_t>(ahead.target_ids), memory)};
  }

  /// The pass of prediction layer `depth`.
  template <class Device>
  static Pass<Device> deeper_pass(Pass<Device> pass, const Shifted& tokens, std::size_t depth) {
    pass.batch.tokens = tokens.tokens;
    pass.layer = Model::config.layers + static_cast<int>(depth);
    return pass;
  }

  template <class Device, class Store>
  Pass<Device> pass_of(Device& device, const Weights<Store>& weights, const TrainingBatch& batch, Frame& memory,
                       const RoutingCounts& counts) {
    Pass<Device> pass{.device = device, .counts = counts};
    detail::require_trainable(weights);
    check(options_);  // they may change from step to step
    check(batch);
    pass.batch = {upload(device, std::span<const std::int32_t>(batch.tokens), memory),
                  upload(device, std::span<const std::int32_t>(batch.positions), memory), batch.chunks};
    offsets_.clear();
    for (const Chunk& chunk : batch.chunks) {
      if (chunk.count > Model::config.context)
        detail::refuse(ErrorCode::in_context,
                       {"a sequence of ", chunk.count, " tokens does not fit the model's context of ",
                        Model::config.context, "; cut it"});
      offsets_.push_back(chunk.begin);
    }
    offsets_.push_back(batch.size());
    pass.mask = options_.mask.value_or(Model::mask);
    pass.indexing.sight = options_.index_sight;
    pass.merging.strength = options_.merge_strength;
    pass.balance = options_.balance;
    pass.sequence_offsets = offsets_;
    return pass;
  }

  /// Lets a pass train indices and what merging measures, and count their objectives from 0.
  template <class Device>
  void add_objectives(Pass<Device>& pass, std::size_t prediction_layers, Frame& memory) {
    const Index layers = Model::config.layers + static_cast<Index>(prediction_layers);
    if constexpr (detail::merges_tokens<typename Model::Layers>) {
      pass.merging.weight = options_.merge_weight;
      pass.merging.terms_l = zeros<MergeTerms>(pass.device, layers, memory);
    }
    pass.indexing.weight = options_.index_weight;
    if (options_.index_weight > 0.0) pass.indexing.loss_l = zeros<double>(pass.device, layers, memory);
  }

  HeadLossOptions head_options(double weight, Index count) const {
    HeadLossOptions head;
    head.scale = weight / static_cast<double>(std::max<Index>(count, 1));
    head.z_loss = options_.z_loss;
    return head;
  }

  ObjectiveOptions options_;
  ActivationArena arena_;
  typename Model::template Saved<Real> saved_;
  std::vector<Ahead> ahead_;
  std::vector<Index> offsets_;
};

}  // namespace v1
}  // namespace guild
