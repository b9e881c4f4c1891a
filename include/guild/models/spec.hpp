// What every Spec inherits: the type choices a custom model may replace.
#pragma once

#include <tuple>

#include <guild/core/config.hpp>
#include <guild/core/types.hpp>
#include <guild/models/deepseek_family.hpp>
#include <guild/models/deepseek_names.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/dispatch.hpp>
#include <guild/modules/expert_pool.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/recompute.hpp>
#include <guild/modules/router.hpp>

namespace guild::inline v1 {

/// What Specs of all families inherit.
struct SpecBase {
  using CacheElement = bf16;  ///< of the caches; float for bit-exact studies
  template <class S>
  using Dispatch = Here;  ///< how rows reach the experts
  template <class SegmentType>
  using Training = SegmentType;  ///< or Recompute<SegmentType>, to save memory
};

/// Base of the Specs of DeepSeek's kind, and of custom ones. A Spec replaces what it wants to differ: numbers, part by
/// part, and types; the choices below are DeepSeek-R1's. Each type receives the finished Spec, so a replacement reads
/// `S::config.hidden` or `S::routing.experts`. A part with numbers of another type (a router of your own) replaces its
/// member by one of that type.
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
  template <class S> using Mixer = Mla<S>;
  template <class S>
  using Router = TopKRouter<S>;
  template <class S>
  using Experts = ExpertPool<S>;
};

}  // namespace guild::inline v1
