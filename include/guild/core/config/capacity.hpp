// How many tokens an expert serves at most, and who is dropped when more choose it.
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// From a capacity factor c to the tokens that each of E experts serves at most, of T tokens with K choices each.
enum class CapacityRounding : std::uint8_t {
  up,          ///< ceil(T K / E * c): Megatron-LM, `moe_expert_capacity_factor`
  down,        ///< int(T c / E), at least 4: mesh (GShard, Switch), whatever K
  per_choice,  ///< K int(c ceil(T / E)): Tutel
};

/// Who gets the room of an expert that more tokens choose than it serves. Ties go to the earlier token.
enum class DropOrder : std::uint8_t {
  position,     ///< the first tokens of the batch: Megatron-LM, `position`
  choice,       ///< first choices before second ones, then the first tokens: GShard, mesh
  probability,  ///< the largest weights: Megatron-LM, `probs`
  prioritized,  ///< as `choice`, but tokens by their largest weight: batch-prioritized routing (arXiv 2106.05974)
};

/// The capacity of experts. T is what a pass holds: of all its sequences, so that what a token gets depends on the
/// batch that it is in. No rule gives less than 1, or more than T.
struct Capacity {
  double factor = 1.25;           ///< of what every expert would serve in balance; in training
  double inference_factor = 0.0;  ///< of passes that keep nothing for backward; 0: nobody is dropped there
  CapacityRounding rounding = CapacityRounding::up;
  DropOrder order = DropOrder::position;
  friend constexpr bool operator==(const Capacity&, const Capacity&) = default;
};

/// The tokens that each of `experts` serves at most, of `tokens` with `choices` each; `factor` above 0.
[[nodiscard]] constexpr Index expert_capacity(CapacityRounding rounding, double factor, Index tokens, Index choices,
                                              Index experts) {
  const auto share = [experts](Index pairs) { return static_cast<double>(pairs) / static_cast<double>(experts); };
  const auto whole = [tokens](double value) {  // far above the tokens it may not fit
    return value < static_cast<double>(tokens) ? static_cast<Index>(value) : tokens;
  };
  Index slots = 0;
  if (rounding == CapacityRounding::up) {
    const double exact = share(tokens * choices) * factor;
    slots = whole(exact);
    if (static_cast<double>(slots) < exact) ++slots;
  } else if (rounding == CapacityRounding::down) {
    slots = whole(static_cast<double>(tokens) * factor / static_cast<double>(experts));
    if (slots < 4) slots = 4;
  } else {
    slots = choices * whole(factor * static_cast<double>((tokens + experts - 1) / experts));
  }
  if (slots < 1) slots = 1;
  return slots < tokens ? slots : tokens;
}

}  // namespace v1
}  // namespace guild
