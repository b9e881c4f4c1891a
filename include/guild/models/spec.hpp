// What every Spec inherits: the type choices a custom model may replace.
#pragma once

#include <tuple>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/core/config/capacity.hpp>
#include <guild/core/types.hpp>
#include <guild/models/deepseek_family.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/dispatch.hpp>
#include <guild/modules/expert_pool.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/recompute.hpp>
#include <guild/modules/router.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/stack.hpp>
#include <guild/modules/ungated_expert_pool.hpp>

namespace guild {
inline namespace v1 {

/// What Specs of all families inherit. Each type receives the finished Spec, so a replacement reads `S::config.hidden`
/// or `S::routing.experts`.
struct SpecBase {
  using CacheElement = bf16;  ///< of the caches; float for bit-exact studies
  static constexpr Capacity capacity = {};  ///< of the experts of routers that drop
  /// Which tokens one sees in training: bidirectional for masked models and encoders, which do not decode.
  static constexpr AttentionMask mask = AttentionMask::causal;
  template <class S>
  using Router = TopKRouter<S>;  ///< which experts serve a token
  template <class S>
  using Experts = typename std::conditional_t<S::experts.activation.gated, std::type_identity<ExpertPool<S>>,
                                              std::type_identity<UngatedExpertPool<S>>>::type;
  template <class S>
  using Dispatch = Here;  ///< how rows reach the experts
  template <class S>
  using DenseLayer = Block<S, typename S::template Mixer<S>, DenseFeedForward<S>>;
  template <class S>
  using ExpertLayer = Block<S, typename S::template Mixer<S>, Moe<S>>;
  template <class LayerStack>
  using Activations = LayerStack;  ///< or Recompute<LayerStack>, to save memory
};

/// `S::dense.layers` dense layers, then layers with experts; without experts dense layers alone.
template <class S>
using DenseThenExperts =
    std::conditional_t<expert_layers(config_of<S>) == 0,
                       Stack<Segment<typename S::template DenseLayer<S>, S::config.layers>>,
                       Stack<Segment<typename S::template DenseLayer<S>, S::dense.layers>,
                             Segment<typename S::template ExpertLayer<S>, expert_layers(config_of<S>)>>>;

/// Base of the Specs of DeepSeek's kind, and of custom ones. A Spec replaces what it wants to differ: numbers, part by
/// part, and types; the choices below are DeepSeek-R1's. A part of your own (a router with other numbers) replaces its
/// member by one of its own type.
struct SpecDefaults : SpecBase {
  static constexpr TrunkConfig config = {};
  static constexpr MlaConfig attention = {};
  static constexpr DenseConfig dense = {};
  static constexpr TopKConfig routing = {};
  static constexpr ExpertConfig experts = {};
  /// The members that hold the numbers.
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::dense, S::routing, S::experts);
  }

  using Family = DeepSeekFamily;  ///< what its config.json may say
  using Names = DeepSeekNames;    ///< tensor names in checkpoint files
  template <class S>
  using Mixer = Mla<S>;
  template <class S>
  using Layers = DenseThenExperts<S>;  ///< what stands between embedding and head: a LayerStack
};

}  // namespace v1
}  // namespace guild
