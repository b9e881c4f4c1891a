// What every Spec inherits: the type choices a custom model may replace.
#pragma once

#include <guild/core/config.hpp>
#include <guild/core/types.hpp>
#include <guild/models/published_names.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/dispatch.hpp>
#include <guild/modules/expert_pool.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/recompute.hpp>
#include <guild/modules/router.hpp>

namespace guild::inline v1 {

/// Base of all Specs. A Spec adds `static constexpr ModelConfig config = {...}` and replaces what it wants to differ:
/// the choices below are DeepSeek-R1's. Each receives the finished Spec, so a replacement reads `S::config`.
struct SpecDefaults {
  using CacheElement = bf16;       ///< of the latent cache; float for bit-exact studies
  using Names = PublishedNames;    ///< tensor names in checkpoint files
  template <class S> using Mixer = Mla<S>;
  template <class S> using Router = TopKRouter<S>;
  template <class S> using Experts = ExpertPool<S>;
  template <class S>
  using Dispatch = Here;                                      ///< how rows reach the experts
  template <class SegmentType> using Training = SegmentType;  ///< or Recompute<SegmentType>, to save memory
};

}  // namespace guild::inline v1
