// What soft token merging and token inflation are made of, as types: a policy is a struct that names them.
//
//   struct Careful : guild::DefaultMerging {
//     using Budget = guild::TokenBucket<3, 4, 4, 8>;        // at most 4 + floor(3/4 (N - 1)) slots of N tokens
//     using Protect = guild::ProtectTokens<0, 17>;          // tokens that shall not be blended
//   };
#pragma once

#include <guild/core/view.hpp>
#include <guild/modules/merge_budget.hpp>
#include <guild/modules/merge_position.hpp>
#include <guild/modules/token_novelty.hpp>

namespace guild {
inline namespace v1 {

/// What a slot is of the tokens of its group.
struct SoftmaxPool {  ///< a sum with weights of a softmax over learned scores, the mean by mass at first
  static constexpr bool learned = true, closing_only = false;
};
struct MassMean {  ///< the mean by mass (ToMe, arXiv 2210.09461)
  static constexpr bool learned = false, closing_only = false;
};
struct SelectClosing {  ///< the token that closed the group (H-Net; ConceptMoE)
  static constexpr bool learned = false, closing_only = true;
};

/// Merging as it is recommended: half of the tokens, groups of up to eight. `static constexpr double ratio` is another
/// aim of the ratio loss than the budget's (MergingOptions), or one for a budget that has none.
struct DefaultMerging {
  using Novelty = CosineNovelty<128>;
  using Budget = TokenBucket<1, 2, 4, 8>;
  using Pool = SoftmaxPool;
  using Position = LastPosition;
  using Protect = NoProtect;
  static constexpr float threshold = 0.5f;    ///< tokens of no less novelty want to close their group
  static constexpr bool proportional = true;  ///< attention weighs slots by their masses, as Weighted kinds do
  static constexpr Index chunk = 16;          ///< tokens that may be decoded at once, or be forgotten, at no cost
};

/// Inflation as it is recommended. merge_references.hpp has that of published methods.
struct DefaultInflation {
  static constexpr bool smooths = true;         ///< what slots give is averaged over slots, by their novelty
  static constexpr bool whole_slots = false;    ///< slots give all that their layers made of them, not what they added
  static constexpr bool maps_residual = false;  ///< what slots give is added to a product of x, 0 at first, not to x
  static constexpr Index gate_rank = 128;       ///< of what is added by what merging lost; 0: no gate
  static constexpr Index detail_rank = 0;       ///< of what is made of what merging lost, 128 say; 0: nothing
  static constexpr bool confidence = true;      ///< novelty learns from what is added (straight-through estimator)
};

}  // namespace v1
}  // namespace guild
