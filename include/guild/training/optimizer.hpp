// The optimizer of a model: rules, groups and moments of all of its trained tensors.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/ops/optimizer/adamw.hpp>
#include <guild/ops/optimizer/newton_schulz.hpp>
#include <guild/training/adamw.hpp>
#include <guild/training/muon.hpp>
#include <guild/training/parameter_group.hpp>

namespace guild {
inline namespace v1 {

/// Which rule, with its numbers.
using OptimizerOptions = std::variant<AdamW, Muon>;

/// Whether the prediction layers have a loss in this step.
enum class PredictionLayers : std::uint8_t { trained, resting };

/// Changes weights by gradients. It owns the moments: two tensors for each that AdamW trains, one for Muon's, none for
/// what is not trained. Results depend neither on threads nor on how tensors are put together in memory.
template <class Model>
class Optimizer {
 public:
  using Options = OptimizerOptions;
  using Weights = typename Model::template Weights<Dense<float>>;

  /// `shapes`: the weights to be trained, or any with the same layers; only their shapes are read. Throws op_argument
  /// for impossible numbers of options or groups, dev_memory if the moments do not fit.
  explicit Optimizer(const Weights& shapes, Options options = AdamW{}, const ParameterGroups& groups = default_group)
      : options_(options) {
    std::visit([](const auto& rule) { check(rule); }, options_);
    for_each_parameter<Model>(
        [&](const Path& path, const TensorShape& shape, const auto&) { add(path, shape, groups(path, shape)); },
        shapes);
    weights_.resize(slots_.size());
    gradients_.resize(slots_.size());
  }

  /// One step: lr is multiplied by `rate` (a schedule's factor), gradients by `gradient_scale` (clipping, averaging).
  /// Prediction layers without a loss rest: they neither decay nor move on what they remember.
  /// Throws op_argument unless both are finite and `rate` is not negative, op_shape if a tensor has not the memory of
  /// its shape: then nothing has changed. Gradients must be finite (see gradient_norm): they are not looked at here.
  template <class Device>
  void step(Device& device, Weights& weights, const Weights& gradients, double rate = 1.0, double gradient_scale = 1.0,
            PredictionLayers ahead = PredictionLayers::trained) {
    detail::require_option(detail::at_least_zero(rate), "rate", "the rate must be finite and not negative");
    detail::require_option(std::isfinite(gradient_scale), "gradient_scale",
                           "the scale of the gradients must be finite; skip steps with non-finite gradients");
    collect(weights, gradients);
    ahead_ = ahead;
    const auto scale = static_cast<float>(gradient_scale);
    if (const Muon* muon = std::get_if<Muon>(&options_)) step_muon(device, *muon, rate, scale);
    step_adamw(device, adamw_options(), rate, scale);
    ++steps_;
  }

  /// Calls visitor(name, TensorShape, View<float>) for every moment: "adamw.first.", "adamw.second." or
  /// "muon.momentum." and the path of its tensor, such as "muon.momentum.layers.3.mixer.output.weight"; in an order
  /// that is always the same. With `steps` these are all that must be saved and loaded to go on bit by bit.
  template <class Visitor>
  void visit_state(Visitor&& visitor) {
    for (Slot& slot : slots_) {
      if (slot.rule == UpdateRule::muon) {
        visitor("muon.momentum." + slot.path, slot.shape, slot.first.view());
      } else if (slot.lr_scale > 0.0) {
        visitor("adamw.first." + slot.path, slot.shape, slot.first.view());
        visitor("adamw.second." + slot.path, slot.shape, slot.second.view());
      }
    }
  }

  /// Steps done: AdamW's bias correction counts them.
  [[nodiscard]] Index steps() const { return steps_; }
  /// Throws op_argument if negative.
  void set_steps(Index steps) {
    detail::require_option(steps >= 0, "steps", "the number of steps must not be negative");
    steps_ = steps;
  }
  [[nodiscard]] const Options& options() const { return options_; }
  /// Bytes of all moments.
  [[nodiscard]] Index bytes() const {
    Index sum = 0;
    for (const Slot& slot : slots_) sum += (slot.first.size() + slot.second.size()) * Index{sizeof(float)};
    return sum;
  }

 private:
  struct Slot {
    std::string path;
    TensorShape shape;
    UpdateRule rule;  ///< adamw or muon
    double lr_scale;
    double decay_scale;
    bool is_ahead;         ///< part of a prediction layer
    Buffer<float> first;   ///< AdamW's first moment or Muon's momentum
    Buffer<float> second;  ///< AdamW's second moment
  };

  void add(const Path& path, const TensorShape& shape, const ParameterGroup& group) {
    const auto fail = [&](const char* message) { detail::refuse(ErrorCode::op_argument, message, path.str()); };
    if (!detail::at_least_zero(group.lr_scale) || !detail::at_least_zero(group.decay_scale))
      fail("the scales of a parameter group must be finite and not negative; 0 keeps the tensor as it is");
    if (group.rule == UpdateRule::muon && shape.dimensions < 2)
      fail("Muon trains matrices, and this is a vector; leave its rule automatic");
    const bool is_muon =
        std::holds_alternative<Muon>(options_) && group.lr_scale > 0.0 &&
        (group.rule == UpdateRule::muon || (group.rule == UpdateRule::automatic && is_hidden_matrix(path, shape)));
    const Index size = group.lr_scale > 0.0 ? shape.size() : 0;
    slots_.push_back({path.str(), shape, is_muon ? UpdateRule::muon : UpdateRule::adamw, group.lr_scale,
                      group.decay_scale, is_ahead(path), Buffer<float>(size), Buffer<float>(is_muon ? 0 : size)});
  }

  /// True for the tensors of prediction layers, which are numbered behind the others.
  [[nodiscard]] static bool is_ahead(const Path& path) {
    if constexpr (requires { Model::config.layers; })
      for (const Path* step = &path; step->parent() != nullptr; step = step->parent())
        if (step->parent()->name() == "layers") return step->index() >= Index{Model::config.layers};
    return false;
  }
  [[nodiscard]] bool rests(const Slot& slot) const { return slot.is_ahead && ahead_ == PredictionLayers::resting; }

  [[nodiscard]] const AdamW& adamw_options() const {
    const Muon* muon = std::get_if<Muon>(&options_);
    return muon != nullptr ? muon->rest : std::get<AdamW>(options_);
  }

  /// Notes where the tensors lie, and checks all of them before any is changed.
  void collect(Weights& weights, const Weights& gradients) {
    std::size_t next = 0;
    for_each_parameter<Model>(
        [&](const Path& path, const TensorShape& shape, Buffer<float>& weight, const Buffer<float>& gradient) {
          if (next == slots_.size() || slots_[next].shape != shape)
            detail::refuse(ErrorCode::op_shape, "the optimizer was made for other layers; make one for these weights",
                           path.str());
          if (slots_[next].lr_scale > 0.0) {
            detail::require_allocated(path, shape, weight, "the weight");
            detail::require_allocated(path, shape, gradient, "the gradient");
            if (weight.is_shared())
              detail::refuse(ErrorCode::op_argument,
                             "the weight lies in memory that must not be written; copy it first", path.str());
          }
          weights_[next] = weight.view();
          gradients_[next] = gradient.view();
          ++next;
        },
        weights, gradients);
    if (next != slots_.size())
      detail::refuse(ErrorCode::op_shape, {"the optimizer was made for ", slots_.size(), " tensors, and there are ",
                                           next, "; make one for these weights"});
  }

  template <class Device>
  void step_adamw(Device& device, const AdamW& options, double rate, float gradient_scale) {
    Staged<Device, AdamWJob<float>> jobs(device, static_cast<Index>(slots_.size()));
    const auto t = static_cast<double>(steps_ + 1);
    const double first_correction = 1.0 - std::pow(options.beta1, t);
    const double second_correction = 1.0 - std::pow(options.beta2, t);
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      Slot& slot = slots_[i];
      if (slot.rule != UpdateRule::adamw || slot.lr_scale == 0.0 || rests(slot)) continue;
      const double lr = options.lr * rate * slot.lr_scale;
      jobs.add({.weight = weights_[i],
                .gradient = gradients_[i],
                .first = slot.first.view(),
                .second = slot.second.view(),
                .gradient_scale = gradient_scale,
                .beta1 = static_cast<float>(options.beta1),
                .beta2 = static_cast<float>(options.beta2),
                .rate = static_cast<float>(lr / first_correction),
                .second_scale = static_cast<float>(1.0 / std::sqrt(second_correction)),
                .epsilon = static_cast<float>(options.epsilon),
                .decay = static_cast<float>(lr * options.weight_decay * slot.decay_scale)});
    }
    adamw(device, jobs.ready());
  }

  /// Many small matrices go through each parallel region together, as many as a bounded scratch holds.
  template <class Device>
  void step_muon(Device& device, const Muon& options, double rate, float gradient_scale) {
    constexpr Index most_scratch = Index{1} << 24;  // floats
    std::size_t begin = 0;
    while (begin < slots_.size()) {
      std::size_t end = begin;
      Index count = 0, floats = 0;
      for (; end < slots_.size(); ++end) {
        const Slot& slot = slots_[end];
        if (slot.rule != UpdateRule::muon || rests(slot)) continue;
        const Index more = slot.shape.size() + orthogonalize_scratch(slot.shape.rows, slot.shape.cols);
        if (count > 0 && floats + more > most_scratch) break;
        floats += more;
        ++count;
      }
      if (count > 0) step_matrices(device, options, rate, gradient_scale, begin, end, count);
      begin = end;
    }
  }

  /// The `count` matrices of Muon's among the tensors [begin, end).
  template <class Device>
  void step_matrices(Device& device, const Muon& options, double rate, float gradient_scale, std::size_t begin,
                     std::size_t end, Index count) {
    auto scratch = device.scratch();
    Staged<Device, MomentumJob<float>> momenta(device, count);
    Staged<Device, OrthogonalizeJob> updates(device, count);
    Staged<Device, DescendJob<float>> descents(device, count);
    for (std::size_t i = begin; i < end; ++i) {
      Slot& slot = slots_[i];
      if (slot.rule != UpdateRule::muon || rests(slot)) continue;
      const double lr = options.lr * rate * slot.lr_scale;
      const DeviceView<float> update = scratch.template take<float>(slot.shape.size());
      momenta.add({gradients_[i], slot.first.view(), update, gradient_scale, static_cast<float>(options.momentum)});
      updates.add({update.data, slot.shape.rows, slot.shape.cols});
      descents.add({weights_[i], update,
                    static_cast<float>(lr * muon_scale(options.scale, slot.shape.rows, slot.shape.cols)),
                    static_cast<float>(lr * options.weight_decay * slot.decay_scale)});
    }
    for_each_piece(device, momenta.ready());
    orthogonalize(device, updates.ready(), options.iterations);
    for_each_piece(device, descents.ready());
  }

  Options options_;
  Index steps_ = 0;
  PredictionLayers ahead_ = PredictionLayers::trained;  ///< of the step at hand
  std::vector<Slot> slots_;
  std::vector<DeviceView<float>> weights_;  ///< of the step at hand, as slots_
  std::vector<DeviceView<const float>> gradients_;
};

}  // namespace v1
}  // namespace guild
