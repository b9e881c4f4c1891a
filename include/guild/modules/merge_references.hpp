// Published methods of merging tokens as policies: what a benchmark compares with. Each arm is a pair, of a
// SoftTokenMerging and of a TokenInflation:
//
//   template <class S>
//   using HNet = MergeSpan<Layers<S>, SoftTokenMerging<S, HNetMerging<>>, TokenInflation<S, HNetInflation>>;
//
// Groups end with the token that closes them and are read from it on, as in these methods: where a publication says
// that a token begins a segment, the slot that it may read is that of the group which it closes here. ToMe's wait for
// the end of their window.
#pragma once

#include <guild/core/view.hpp>
#include <guild/modules/merge_budget.hpp>
#include <guild/modules/merge_policies.hpp>
#include <guild/modules/merge_window.hpp>

namespace guild {
inline namespace v1 {

/// A token takes what the layers added to its slot: y = x + f(slot), the unmerging of ToMe-SD (arXiv 2303.17604) and
/// of all that keep the residual at full length. No gate, no details, nothing smoothed.
struct CopyUnmerge : DefaultInflation {
  static constexpr bool smooths = false, confidence = false;
  static constexpr Index gate_rank = 0, detail_rank = 0;
};

/// ToMe (arXiv 2210.09461) within windows of W tokens, R of which merge, as a mean by mass; attention is proportional.
/// ToMe measures by the keys of its attention; here the rows that novelty compares, a CosineNovelty or FullRankCosine.
/// With CopyUnmerge: tokens read the last slot of the last complete window, those of the first window none.
template <Index W, Index R, class NoveltyType = CosineNovelty<128>>
struct ToMeMerging : DefaultMerging {
  using Novelty = NoveltyType;
  using Budget = WindowQuota<W, R>;
  using Pool = MassMean;
};

/// H-Net's chunking (arXiv 2507.07955, section 2.2.1): tokens with p > 1/2 are the slots, those between them are left
/// out. It has no longest chunk; here a group closes after `Longest` tokens. The ratio loss needs an aim, Policy::ratio
/// (1 / N).
template <Index Longest = 64>
struct HNetMerging : DefaultMerging {
  using Novelty = FullRankCosine;
  using Budget = Unbounded<Longest>;
  using Pool = SelectClosing;
  static constexpr float threshold = 0.5f + 0x1p-24f;  ///< the float above 1/2: a tie closes nothing
  static constexpr bool proportional = false;
};
/// H-Net's dechunking (section 2.2.2; goombalab/hnet): with s[j] what the layers made of slot j and P = p of its token
/// within [1e-4, 1 - 1e-4], the first one's too,
///   z[j] = P s[j] + (1 - P) z[j - 1], z[-1] = 0, y[t] = residual x[t] + z[slot of t],
/// the matrix `residual` 0 at first (the published code adds a bias), z times a confidence of 1 through which p learns.
struct HNetInflation : DefaultInflation {
  static constexpr bool whole_slots = true, maps_residual = true;
  static constexpr Index gate_rank = 0, detail_rank = 0;
};

/// Hourglass with average pooling (arXiv 2110.13711, algorithm 1): a slot is the mean of `Stride` tokens and ends with
/// the first token that reads it. The first group is the first token alone, not its mean with zeros.
template <Index Stride>
struct HourglassMerging : DefaultMerging {
  using Novelty = NoNovelty;
  using Budget = FixedStride<Stride>;
  using Pool = MassMean;
  static constexpr bool proportional = false;
};
/// y = x + what the layers made of the slot, repeated.
struct HourglassInflation : CopyUnmerge {
  static constexpr bool whole_slots = true;
};

/// Dynamic pooling (Nawrot et al., arXiv 2211.09761): a slot is the mean of the tokens behind the last boundary, the
/// next one included, and is read from that one on. The first token is a boundary here, so nobody reads the null group
/// that is learned there, and there is none. Boundaries are novel tokens, p > 1/2: predictors of the publication (a
/// network with Gumbel noise, entropy, unigrams) are other measures, and novelty learns from the ratio loss alone.
template <class NoveltyType = FullRankCosine, Index Longest = 64>
struct DynamicPoolingMerging : HNetMerging<Longest> {
  using Novelty = NoveltyType;
  using Pool = MassMean;
};
/// y = x + what the layers made of the slot, copied.
struct DynamicPoolingInflation : HourglassInflation {};

}  // namespace v1
}  // namespace guild
