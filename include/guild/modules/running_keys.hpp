// Keys that are merged in the cache, as a type: tokens that bring little new are folded into the last row, which
// becomes the mean of its group (dynamic memory compression, arXiv 2403.09636). Queries and layers stay at full length,
// the cache alone shrinks.
//
//   template <class S> using Mixer = RunningMerge<Mla<S>>;             // at most half of the rows, and 4
//   template <class S> using Mixer = RunningMerge<Mla<S>, MyMerging>;  // a policy that derives from DefaultKeyMerging
#pragma once

#include <type_traits>

#include <guild/modules/keys.hpp>
#include <guild/modules/merge_budget.hpp>
#include <guild/modules/merge_policies.hpp>
#include <guild/modules/merge_window.hpp>
#include <guild/modules/running_cache.hpp>
#include <guild/modules/running_latents.hpp>

namespace guild {
inline namespace v1 {

/// How novel a token is: p = (1 - cos(c, c of the token before)) / 2 of normalised latents c, and 1 for the first token
/// of a sequence. Nothing of it is learned.
struct LatentNovelty {};

/// Keys merged as it is recommended: half of the tokens, groups of up to eight.
struct DefaultKeyMerging {
  using Novelty = LatentNovelty;             ///< or NoNovelty: for budgets that do not ask
  using Budget = TokenBucket<1, 2, 4, 8>;    ///< here it says which tokens begin a group
  static constexpr float threshold = 0.25f;  ///< tokens of no less novelty want to begin a group
  static constexpr Index chunk = 16;         ///< tokens that may be decoded at once, or be forgotten, at no cost
};

/// All keys of a sequence, merged as `Policy` says. Of latents of `Latent` columns.
template <class Keys, class Policy, Index Latent>
struct RunningKeys {
  static_assert(std::is_same_v<Keys, AllKeys>,
                "RunningMerge: merged keys are all of a sequence: neither a window, nor chosen, weighted or pooled");
  static_assert(MergeBudget<typename Policy::Budget>,
                "RunningMerge: Policy::Budget needs step, max_slots and longest, see guild/modules/merge_budget.hpp");
  static_assert(Policy::Budget::causal && Policy::Budget::prefix_stable,
                "RunningMerge: a budget that looks ahead is no budget of a cache");
  static_assert(!WindowBudget<typename Policy::Budget>,
                "RunningMerge: a budget of whole windows cannot say what a token is folded into when it comes");
  static constexpr bool measures = std::is_same_v<typename Policy::Novelty, LatentNovelty>;
  static_assert(measures || std::is_same_v<typename Policy::Novelty, NoNovelty>,
                "RunningMerge: Policy::Novelty must be LatentNovelty or NoNovelty: nothing would train another one");
  static constexpr Index latent = Latent;
  static constexpr KeyWindow window{};
  using Indexer = NoIndexer;
  using Merging = Policy;
  template <class Element, Index Width>
  using Cache = RunningCache<Element, Width, Latent, Policy>;
};

namespace detail {
template <class Attention>
inline constexpr Index latent_columns = 0;
template <class Attention>
requires requires { Attention::latent; }
inline constexpr Index latent_columns<Attention> = Attention::latent;
}  // namespace detail

/// Latent attention whose cache has a row for each group of neighbouring tokens. A token sees, of the groups before its
/// own, the mean of all their tokens and, of its own, the mean so far, its own latent included; the logarithm of the
/// tokens that a row stands for is added to its scores.
template <class Attention, class Policy = DefaultKeyMerging>
using RunningMerge = typename Attention::template WithKeys<
    RunningKeys<typename Attention::KeyPolicy, Policy, detail::latent_columns<Attention>>>;

}  // namespace v1
}  // namespace guild
