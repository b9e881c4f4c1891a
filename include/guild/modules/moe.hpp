// Mixture of experts: y = sum over chosen experts of weight * expert(x), plus the shared experts (DeepSeek-V3, eq. 12).
#pragma once

#include <algorithm>
#include <string>

#include <guild/core/error.hpp>
#include <guild/modules/expert_pool.hpp>
#include <guild/modules/router.hpp>
#include <guild/ops/combine.hpp>

namespace guild::inline v1 {

template <class S>
struct Moe {
  static constexpr MoeConfig config = S::config.moe;
  static constexpr bool has_shared = config.shared_experts > 0;
  using Router = typename S::template Router<S>;
  using Experts = typename S::template Experts<S>;
  using Shared = Mlp<S::config.hidden, Index{config.shared_experts} * config.hidden>;
  static_assert(Module<Router>, "Moe: Spec::Router needs a nested Weights<Store> and a static visit(visitor, path, "
                                "weights...), see guild/modules/module.hpp");
  static_assert(Module<Experts>, "Moe: Spec::Experts needs a nested Weights<Store> and a static visit(visitor, path, "
                                 "weights...), see guild/modules/module.hpp");
  static_assert(config.top_k > 0 && config.top_k <= config.experts, "Moe: moe.top_k must be in [1, moe.experts]");

  template <class Store>
  struct Weights {
    typename Router::template Weights<Store> router;
    typename Experts::template Weights<Store> experts;
    typename Shared::template Weights<Store> shared;  ///< empty without shared experts
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Router::visit(visitor, path / "router", weights.router...);
    Experts::visit(visitor, path / "experts", weights.experts...);
    if constexpr (has_shared) Shared::visit(visitor, path / "shared", weights.shared...);
  }

  /// x and y [T, hidden]
  template <class Device, class Store, class Observer>
  static void forward(Device& device, const Weights<Store>& weights, View<const float, 2> x, View<float, 2> y,
                      int layer, Observer& observer) {
    auto scratch = device.scratch();
    const Index tokens = x.rows, slots = tokens * config.top_k;

    const auto chosen = scratch.template take<std::int32_t>(tokens, config.top_k);
    const auto weights_tk = scratch.template take<float>(tokens, config.top_k);
    static_assert(requires { Router::forward(device, weights.router, x, chosen, weights_tk); },
                  "Moe: Spec::Router needs a static forward(device, weights, x, experts, weights_tk) as TopKRouter "
                  "has");
    Router::forward(device, weights.router, x, chosen, weights_tk);
    observer.on_routing(layer, chosen, weights_tk);

    const auto offsets = scratch.template take<std::int32_t>(config.experts + 1);
    const auto token = scratch.template take<std::int32_t>(slots);
    const auto slot_tk = scratch.template take<std::int32_t>(tokens, config.top_k);
    assign(chosen, offsets, token, slot_tk);

    const auto h = scratch.template take<float>(slots, config.hidden);
    const auto y_slots = scratch.template take<float>(slots, S::config.hidden);
    const Index most_jobs = std::min<Index>(config.experts, slots) + 1;
    const auto gated = scratch.template take<GatedJob>(most_jobs);
    const auto down = scratch.template take<LinearJob>(most_jobs);
    Index jobs = 0;
    if constexpr (has_shared) {  // the shared experts run beside the routed ones
      const auto h_shared = scratch.template take<float>(tokens, Index{config.shared_experts} * config.hidden);
      gated[jobs] = {weights.shared.gate.weight.view(), weights.shared.up.weight.view(), x, h_shared};
      down[jobs] = {weights.shared.down.weight.view(), h_shared, y};
      ++jobs;
    }
    const Assignment assignment{offsets, token};
    static_assert(requires { Experts::append_jobs(weights.experts, assignment, x, h, y_slots, gated, down, jobs); },
                  "Moe: Spec::Experts needs a static append_jobs(weights, assignment, x, h, y, gated, down, jobs) as "
                  "ExpertPool has");
    Experts::append_jobs(weights.experts, assignment, x, h, y_slots, gated, down, jobs);
    const auto n = static_cast<std::size_t>(jobs);
    gated_linear(device, std::span<const GatedJob>(gated.data, n));
    linear(device, std::span<const LinearJob>(down.data, n));
    const View<const float, 2> shared = has_shared ? View<const float, 2>(y) : View<const float, 2>();
    combine_experts(device, y_slots, slot_tk, weights_tk, shared, y);
  }

  /// Counting sort of the chosen (token, k) pairs by expert; within an expert tokens keep their order. Throws
  /// op_argument for an expert that does not exist: routers may be anybody's.
  static void assign(View<const std::int32_t, 2> chosen, View<std::int32_t> offsets, View<std::int32_t> token,
                     View<std::int32_t, 2> slot_tk) {
    for (std::int32_t& offset : offsets) offset = 0;
    for (Index t = 0; t < chosen.rows; ++t)
      for (const std::int32_t e : chosen.row(t)) {
        if (e < 0 || e >= offsets.size - 1)
          throw Error(ErrorCode::op_argument, "the router chose expert " + std::to_string(e) + " for token " +
                      std::to_string(t) + ", expected from 0 to " + std::to_string(offsets.size - 2),
                      {{}, "Spec::Router", -1});
        ++offsets[e + 1];
      }
    for (Index e = 1; e < offsets.size; ++e) offsets[e] += offsets[e - 1];
    for (Index t = 0; t < chosen.rows; ++t) {
      for (Index k = 0; k < chosen.cols; ++k) {
        const std::int32_t slot = offsets[chosen(t, k)]++;
        token[slot] = static_cast<std::int32_t>(t);
        slot_tk(t, k) = slot;
      }
    }
    for (Index e = offsets.size - 1; e > 0; --e) offsets[e] = offsets[e - 1];
    offsets[0] = 0;
  }
};

}  // namespace guild::inline v1
