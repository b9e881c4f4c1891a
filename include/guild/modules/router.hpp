// The router: which experts serve a token, and with what weight.
#pragma once

#include <cstdint>

#include <guild/core/config.hpp>
#include <guild/modules/module.hpp>
#include <guild/ops/linear.hpp>
#include <guild/ops/router.hpp>

namespace guild::inline v1 {

/// Top-k selection as `S::config.moe` says: sigmoid or softmax scores, groups, selection bias (DeepSeek-V3 report,
/// section 2.1.2). Logits, scores and weights are float whatever the storage of the weights.
template <class S>
struct TopKRouter {
  static constexpr MoeConfig config = S::config.moe;
  static constexpr bool has_bias = config.selection == Selection::noaux_tc;

  template <class Store>
  struct Weights {
    typename Store::Matrix weight;          ///< [experts, hidden]
    typename Store::Vector selection_bias;  ///< [experts], only with noaux_tc: added to scores for the choice alone
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{config.experts, S::config.hidden}, weights.weight...);
    if constexpr (has_bias)
      visitor(path / "selection_bias", VectorShape{config.experts, TensorRole::state}, weights.selection_bias...);
  }

  /// x [T, hidden]; experts and weights_tk [T, top_k], in descending order of choice, ties to the lower index.
  template <class Device, class Store>
  static void forward(Device& device, const Weights<Store>& weights, View<const float, 2> x,
                      View<std::int32_t, 2> experts, View<float, 2> weights_tk) {
    auto scratch = device.scratch();
    const auto logits = scratch.template take<float>(x.rows, config.experts);
    linear(device, weights.weight.view(), x, logits);
    route(device, config, logits, weights.selection_bias.view(), experts, weights_tk);
  }
};

}  // namespace guild::inline v1
