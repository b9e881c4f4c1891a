// The training loop's body: gradients of a step's batches, clipping, the optimizer, and the balance of experts.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>

#include <guild/core/refuse.hpp>
#include <guild/device/cpu.hpp>
#include <guild/modules/routing_counter.hpp>
#include <guild/ops/route/buffering.hpp>
#include <guild/training/allocate.hpp>
#include <guild/training/compute_store.hpp>
#include <guild/training/gradient_norm.hpp>
#include <guild/training/moving_average.hpp>
#include <guild/training/objective.hpp>
#include <guild/training/optimizer.hpp>
#include <guild/training/schedule.hpp>
#include <guild/training/step_report.hpp>

namespace guild {
inline namespace v1 {

struct TrainerOptions {
  OptimizerOptions optimizer = AdamW{};
  ParameterGroups groups = default_group;
  Schedule schedule{};
  double clip = 1.0;        ///< limit of the gradient's global norm; infinity: none
  /// Of the routers' selection biases: auxiliary-loss-free balancing (arXiv 2408.15664). None: 1e-3 if there are any.
  std::optional<double> bias_rate{};
  double average = 0.0;     ///< decay of a moving average of the weights, such as 0.999; 0: none is kept
  ObjectiveOptions objective{};
  /// Of routers that have noise, and of expert dropout. Each step and each of its batches has draws of its own, which
  /// follow from this seed and the number of the step alone: a resumed run draws what an uninterrupted one does.
  Noise noise{.on = true};
};

/// Trains one model. Compute = float: products read the weights themselves; bf16: the optimizer changes float masters,
/// products read copies rounded to bf16. Used by one thread at a time; after the first step nothing is allocated as
/// long as batches do not grow.
template <class Model, class Device = Cpu, class Compute = float>
class Trainer {
 public:
  using ModelType = Model;
  using Weights = typename Model::template Weights<Dense<float>>;
  static constexpr bool mixed = !std::is_same_v<Compute, float>;

  /// Takes over the weights, all of them allocated (initialize, load_dense). Throws op_argument, op_shape, dev_memory.
  Trainer(const Device& device, Weights weights, TrainerOptions options = {})
      : device_(device.fork()),  // built in place: devices need not be movable
        options_(std::move(options)),
        weights_(detail::require_trainable(std::move(weights))),
        optimizer_(weights_, options_.optimizer, options_.groups),
        objective_(options_.objective),
        counter_(device_, layers(), Model::routed_experts),
        routing_(layers(), Model::routed_experts) {
    detail::require_option(options_.clip > 0.0, "TrainerOptions::clip", "the limit must be positive; infinity is none");
    if (options_.bias_rate) set_bias_rate(*options_.bias_rate);
    detail::require_option(detail::in_unit_interval(options_.average), "TrainerOptions::average",
                           "the decay must be in [0, 1); 0.999 is usual, 0 keeps no average");
    for_each_tensor<Model>(
        [](const Path& path, const TensorShape& shape, TensorRole role, const Buffer<float>& data) {
          if (role != TensorRole::shared) detail::require_allocated(path, shape, data, "the weight");
        },
        weights_);
    refresh();
    detail::match_layers(weights_, gradients_);
    allocate_trained<Model>(gradients_);
    if (options_.average > 0.0) round_to<Model>(device_, weights_, average_);
  }

  StepReport step(const TrainingBatch& batch) { return step(std::span<const TrainingBatch>(&batch, 1)); }

  /// One step on the mean over all batches: several are accumulated, as if they were one. Throws as Objective::learn
  /// for batches that do not fit the model; then nothing has changed but the gradients.
  StepReport step(std::span<const TrainingBatch> batches) {
    const auto begin = std::chrono::steady_clock::now();
    StepSize size;
    for (const TrainingBatch& batch : batches) size.add(batch);
    if (size.next == 0)
      detail::refuse(ErrorCode::op_argument, "no token of the step has a target; nothing can be learned from it");
    clear_gradients<Model>(device_, gradients_);
    counter_.clear(device_);
    StepReport report;
    report.tokens = size.tokens;
    report.gradient_norm = std::numeric_limits<double>::quiet_NaN();
    report.rate = options_.schedule(steps_) * base_rate();
    report.outcome = StepOutcome::skipped;
    try {
      for (Index i = 0; const TrainingBatch& batch : batches)
        report.losses += objective_.learn(device_, compute_weights(), batch, size, gradients_, counter_.view(), {},
                                          options_.noise.of(steps_, i++));
      report.gradient_norm = gradient_norm<Model>(device_, gradients_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::op_nonfinite) throw;  // a router that meets NaN says so, before any gradient
      report.losses.next = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN(),
                            size.next, 0};
    }
    if (std::isfinite(report.gradient_norm) && has_finite_state()) {
      report.outcome = StepOutcome::applied;
      apply(clip_scale(report.gradient_norm, options_.clip));
    } else {
      ++skipped_;
    }
    report.step = ++steps_;
    report.skipped_steps = skipped_;
    routing_.clear();
    counter_.add_to(device_, routing_);
    fill_statistics(report);
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report;
  }

  /// Losses of batches the model does not learn from. What routers do with them is added to `*routing`, if that is
  /// given: to a RoutingStatistics of none, or of this model.
  LossReport evaluate(std::span<const TrainingBatch> batches, RoutingStatistics* routing = nullptr) {
    return evaluate(compute_weights(), batches, routing);
  }
  LossReport evaluate(const TrainingBatch& batch, RoutingStatistics* routing = nullptr) {
    return evaluate(std::span<const TrainingBatch>(&batch, 1), routing);
  }
  /// The same with other weights of this model, such as `average()`.
  template <class Store>
  LossReport evaluate(const typename Model::template Weights<Store>& weights, std::span<const TrainingBatch> batches,
                      RoutingStatistics* routing = nullptr) {
    RoutingCounter<Device> counter;
    if (routing != nullptr) counter = RoutingCounter<Device>(device_, layers(), Model::routed_experts);
    LossReport report;
    for (const TrainingBatch& batch : batches) report += objective_.evaluate(device_, weights, batch, counter.view());
    if (routing != nullptr) counter.add_to(device_, *routing);
    return report;
  }

  /// Call `refresh` after changing them.
  [[nodiscard]] Weights& weights() { return weights_; }
  [[nodiscard]] const Weights& weights() const { return weights_; }
  /// The moving average of the weights; the weights themselves if none is kept.
  [[nodiscard]] Weights& average() { return options_.average > 0.0 ? average_ : weights_; }
  [[nodiscard]] const Weights& gradients() const { return gradients_; }  ///< of the last step, before clipping
  [[nodiscard]] Optimizer<Model>& optimizer() { return optimizer_; }
  /// What routers did in the last step, and its balancing losses.
  [[nodiscard]] const RoutingStatistics& routing() const { return routing_; }
  [[nodiscard]] const TrainerOptions& options() const { return options_; }
  /// Weights of the terms of the loss: they may change from step to step.
  [[nodiscard]] ObjectiveOptions& objective() { return objective_.options(); }
  /// DeepSeek-V3 stops moving the biases near the end. Throws op_argument if negative or not finite, or above 0 where
  /// no router has a selection bias; of models without routers nothing is asked.
  void set_bias_rate(double rate) {
    detail::require_option(detail::at_least_zero(rate), "TrainerOptions::bias_rate",
                           "the rate must be finite and not negative");
    if (detail::has_routers<typename Model::Layers> && rate > 0.0 && !has_selection_bias())
      detail::refuse(ErrorCode::op_argument,
                     {"is ", rate, ", but there is no selection bias in ",
                      detail::router_names<typename Model::Layers>(), "; leave it out, or give 0"},
                     "TrainerOptions::bias_rate");
    options_.bias_rate = rate;
  }
  [[nodiscard]] Device& device() { return device_; }
  [[nodiscard]] Index steps() const { return steps_; }
  [[nodiscard]] Index skipped_steps() const { return skipped_; }
  /// For going on from a saved state, whose weights and moments are in place.
  void set_steps(Index steps, Index skipped) {
    steps_ = steps;
    skipped_ = skipped;
    refresh();
  }
  /// Brings up to date what follows from the weights, after they were changed from outside: the copies that products
  /// read, and those of the prediction layer.
  void refresh() {
    refresh_shared<Model>(weights_);
    if constexpr (mixed) round_to<Model>(device_, weights_, copies_);
  }

 private:
  struct Nothing {};
  using Copies = std::conditional_t<mixed, typename Model::template Weights<ComputeStore<Compute>>, Nothing>;

  [[nodiscard]] const auto& compute_weights() const {
    if constexpr (mixed)
      return copies_;
    else
      return weights_;
  }
  /// With prediction layers.
  [[nodiscard]] int layers() const { return Model::config.layers + static_cast<int>(weights_.mtp.size()); }
  [[nodiscard]] double base_rate() const {
    return std::visit([](const auto& rule) { return rule.lr; }, options_.optimizer);
  }

  void apply(double gradient_scale) {
    const bool rest = objective().mtp_weight == 0.0;
    const double bias_rate = options_.bias_rate.value_or(1e-3);
    optimizer_.step(device_, weights_, gradients_, options_.schedule(steps_), gradient_scale,
                    rest ? PredictionLayers::resting : PredictionLayers::trained);
    for_each_tensor<Model>(
        [&](const Path& path, const TensorShape& shape, TensorRole role, Buffer<float>& data) {
          if (role != TensorRole::state) return;
          const auto load = counter_.view().load(layer_of(path));
          if (shape.buffering != nullptr)
            update_buffering(device_, DeviceView<float>(data.view()), load, *shape.buffering);
          else if (bias_rate > 0.0)
            update_selection_bias(device_, DeviceView<float>(data.view()), load, bias_rate);
        },
        weights_);
    if constexpr (mixed) round_to<Model>(device_, weights_, copies_);
    if (options_.average > 0.0) {
      // Early on the average is over fewer steps, so that the first weights are soon forgotten.
      const auto t = static_cast<double>(optimizer_.steps());
      update_average<Model>(device_, weights_, average_, std::min(options_.average, t / (t + 20.0)));
    }
  }

  [[nodiscard]] bool has_selection_bias() const {
    bool found = false;
    for_each_tensor<Model>(
        [&](const Path&, const TensorShape& shape, TensorRole role, const Buffer<float>&) {
          found = found || (role == TensorRole::state && shape.buffering == nullptr);
        },
        weights_);
    return found;
  }

  /// A router's selection bias has no gradient, and a choice with a NaN in it would go on unnoticed.
  [[nodiscard]] bool has_finite_state() const {
    bool finite = true;
    for_each_tensor<Model>(
        [&](const Path&, const TensorShape&, TensorRole role, const Buffer<float>& data) {
          if (role == TensorRole::state)
            for (const float value : data.view()) finite = finite && std::isfinite(value);
        },
        weights_);
    return finite;
  }

  /// The number of the layer that a tensor belongs to: the last index on its way.
  static int layer_of(const Path& path) {
    const Path* step = &path;
    while (step->index() < 0) step = step->parent();
    return static_cast<int>(step->index());
  }

  void fill_statistics(StepReport& report) const {
    for (int layer = 0; layer < routing_.layers(); ++layer) {
      report.busiest = std::max(report.busiest, routing_.max_over_mean(layer));
      report.balance += routing_.terms(layer);
      if (routing_.max_over_mean(layer) > 0.0)
        for (const double served : routing_.load(layer)) report.idle_experts += served == 0.0 ? 1 : 0;
    }
    report.memory_bytes = weight_bytes() + optimizer_.bytes() + objective_.activation_bytes() + device_.scratch_bytes();
  }
  [[nodiscard]] Index weight_bytes() const {
    Index bytes = 0;
    const auto count = [&](const Path&, const TensorShape&, TensorRole, const auto& data) {
      bytes += data.size() * Index{sizeof(*data.data())};
    };
    for_each_tensor<Model>(count, weights_);
    for_each_tensor<Model>(count, gradients_);
    if constexpr (mixed) for_each_tensor<Model>(count, copies_);
    if (options_.average > 0.0) for_each_tensor<Model>(count, average_);
    return bytes;
  }

  Device device_;
  TrainerOptions options_;
  Weights weights_, gradients_, average_;
  [[no_unique_address]] Copies copies_;
  Optimizer<Model> optimizer_;
  Objective<Model, float, typename Device::Memory> objective_;
  RoutingCounter<Device> counter_;
  RoutingStatistics routing_;
  Index steps_ = 0, skipped_ = 0;
};

}  // namespace v1
}  // namespace guild
