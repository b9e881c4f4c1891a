// Declares the public types of ops/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/core/fwd.hpp>

namespace guild {
inline namespace v1 {

// guild/ops/attention/index_job.hpp
struct IndexSizes;
template <class Real, class Key> struct BasicIndexScoresJob;
template <class Real> struct IndexLossJob;
template <class Real> struct IndexScoresGradientJob;

// guild/ops/attention/job.hpp
enum class AttentionMask : std::uint8_t;
struct CachedAttentionJob;
struct CachedAttentionSizes;
struct KeyWindow;
struct RingRows;
template <class Real> struct BasicExpandedAttentionJob;
template <class Real> struct BasicExpandedAttentionSizes;
template <class Real> struct ExpandedAttentionGradientJob;

// guild/ops/attention/rows/gates.hpp
template <class Real> struct HeadWeightsBackwardRow;
template <class Real> struct HeadWeightsRow;
template <class Real> struct LengthBiasBackwardRow;
template <class Real> struct LengthBiasRow;
template <class Real> struct MixBranchesBackwardRow;
template <class Real> struct MixBranchesRow;
template <class Real> struct SigmoidBackwardRow;
template <class Real> struct SigmoidRow;

// guild/ops/attention/rows/index.hpp
struct MarkChosenJob;
template <class Real> struct BasicChooseKeysJob;

// guild/ops/attention/rows/join.hpp
template <class Real> struct JoinAttentionRow;

// guild/ops/common/add_sum.hpp
template <class Real> struct AddSum;

// guild/ops/common/fault.hpp
enum class Fault : std::uint8_t;

// guild/ops/common/pieces.hpp
struct PieceRange;

// guild/ops/common/rows/add.hpp
template <class Real> struct AddRow;
template <class Real> struct DifferenceAndSumRow;

// guild/ops/common/rows/cast.hpp
struct CastJob;

// guild/ops/common/rows/column_sums.hpp
template <class Real> struct AddColumnSums;
template <class Real> struct SumBlockOfRows;

// guild/ops/common/rows/copy_rows.hpp
struct RowParts;
template <class From, class To> struct CopyRowsJob;

// guild/ops/common/rows/draws.hpp
struct Draws;

// guild/ops/common/rows/fault.hpp
struct FlagOutsideRow;

// guild/ops/common/rows/fill.hpp
template <class Real> struct FillRow;

// guild/ops/common/rows/normal.hpp
struct FillJob;
struct NormalJob;

// guild/ops/common/rows/orthonormalize.hpp
struct OrthonormalizeJob;

// guild/ops/common/rows/scale.hpp
template <class Real> struct ScaleRow;

// guild/ops/common/rows/scatter_rows.hpp
template <class Real> struct ScatterRow;
template <class Real> struct ZeroMarkedRow;

// guild/ops/experts/assignment.hpp
struct Assignment;

// guild/ops/experts/rows/assignment.hpp
struct CountChoicesRow;
struct FillSlotsRow;
struct SumOffsetsRow;
template <class Real> struct ClearUnservedRow;

// guild/ops/experts/rows/bias.hpp
template <class Real> struct AddSlotBiasRow;
template <class Real> struct SlotBiasGradient;
template <class Real> struct SlotBiasWeightRow;

// guild/ops/experts/rows/combine.hpp
template <class Real> struct CombineRow;
template <class Real> struct ExpertSwigluBackwardRow;
template <class Real> struct GatherSlotsRow;
template <class Real> struct ScatterSlotsRow;

// guild/ops/experts/rows/dropout.hpp
template <class Real> struct DropSlotsRow;

// guild/ops/experts/rows/identities.hpp
template <class Real> struct AddIdentitiesRow;
template <class Real> struct IdentityWeightsRow;

// guild/ops/experts/rows/shared_gate.hpp
template <class Real> struct SharedGateBackward;
template <class Real> struct SharedGateRow;

// guild/ops/head/cross_entropy.hpp
struct CrossEntropyOptions;

// guild/ops/head/cross_entropy_head.hpp
struct LossSums;

// guild/ops/head/rows/cross_entropy.hpp
enum class LossWork : std::uint8_t;
struct RowLosses;
template <class Real> struct CrossEntropyRow;

// guild/ops/head/rows/embedding.hpp
template <class Real> struct EmbeddingGradient;
template <class Real> struct EmbeddingRow;

// guild/ops/linear/job.hpp
enum class Product : std::uint8_t;
enum class Update : std::uint8_t;
template <class Real> struct BasicGatedJob;
template <class Real> struct BasicLinearJob;
template <class Real> struct GroupedGated;
template <class Real> struct GroupedGradient;
template <class Real> struct GroupedLinear;
template <class Real> struct WeightGradientJob;

// guild/ops/linear/rows/activate.hpp
template <class Real> struct ActivateBackwardRow;
template <class Real> struct ActivateRow;

// guild/ops/linear/rows/bias.hpp
template <class Real> struct AddBiasRow;

// guild/ops/linear/rows/swiglu.hpp
template <class Real> struct SwigluBackwardRow;
template <class Real> struct SwigluRow;

// guild/ops/merge/rows/best_partners.hpp
template <class Real> struct BestPartnersJob;
template <class Real> struct MatchEnergyJob;
template <class Real> struct UnitRow;

// guild/ops/merge/rows/group_keys.hpp
struct ListGroupKeysJob;
struct MarkGroupKeysJob;

// guild/ops/merge/rows/group_scores.hpp
template <class Real> struct GroupScoresBackwardPiece;
template <class Real> struct GroupScoresPiece;

// guild/ops/merge/rows/inflate.hpp
template <class Real> struct ConfidenceBackwardPiece;
template <class Real> struct InflateGradientJob;
template <class Real> struct InflateJob;
template <class Real> struct LostDetailGradientJob;
template <class Real> struct LostDetailJob;

// guild/ops/merge/rows/learned_slots.hpp
template <class Real> struct CombineSlotsGradientJob;
template <class Real> struct CombineSlotsJob;
template <class Real> struct DispatchSlotsJob;
template <class Real> struct LearnedSlotsGradientJob;

// guild/ops/merge/rows/log_masses.hpp
template <class Real> struct LogMassesPiece;

// guild/ops/merge/rows/novelty.hpp
template <class Real> struct NoveltyGradientJob;
template <class Real> struct NoveltyJob;
template <class Real> struct TokenEnergyJob;

// guild/ops/merge/rows/pool_groups.hpp
template <class Real> struct PoolGroupsGradientJob;
template <class Real> struct PoolGroupsJob;

// guild/ops/merge/rows/ratio_loss.hpp
struct MergeTerms;
template <class Real> struct AddSlopePiece;
template <class Real> struct RatioLossRow;

// guild/ops/merge/rows/running_means.hpp
template <class Real> struct RunningMeansGradientJob;
template <class Real> struct RunningMeansJob;

// guild/ops/merge/rows/smooth_slots.hpp
template <class Real> struct SmoothSlotsAdjointJob;
template <class Real> struct SmoothSlotsGradientJob;
template <class Real> struct SmoothSlotsJob;
template <class Real> struct SmoothingWeightsBackwardPiece;
template <class Real> struct SmoothingWeightsPiece;

// guild/ops/norm/rows/layer_norm.hpp
template <class Real> struct LayerNormBackwardBlock;
template <class Real> struct LayerNormRow;

// guild/ops/norm/rows/rms_norm.hpp
template <class Real, NormGain Gain> struct RmsNormRow;

// guild/ops/norm/rows/rms_norm_backward.hpp
template <class Real, NormGain Gain> struct RmsNormBackwardBlock;

// guild/ops/optimizer/rows/adamw.hpp
template <class Real> struct AdamWJob;

// guild/ops/optimizer/rows/blend.hpp
struct BlendJob;

// guild/ops/optimizer/rows/newton_schulz.hpp
template <class Real> struct DescendJob;
template <class Real> struct MomentumJob;
template <class Real> struct NormalizeJob;
template <class Real> struct PolynomialJob;
template <class Real> struct TransposeJob;

// guild/ops/optimizer/rows/sum_of_squares.hpp
struct SumOfPartialsJob;
template <class Real> struct SumOfSquaresJob;

// guild/ops/pool/rows/pool_rows.hpp
struct PoolSizes;
template <class Real> struct PoolRowsGradientJob;
template <class Real> struct PoolRowsJob;

// guild/ops/residual/rows/stream_weights.hpp
template <class Real, int Streams, bool All> struct StreamWeightsBackwardRow;
template <class Real, int Streams, bool All> struct StreamWeightsRow;
template <class Real> struct StreamNumbers;

// guild/ops/residual/rows/streams.hpp
template <class Real, int Streams, bool Adds> struct CollapseStreamsBackwardRow;
template <class Real, int Streams> struct CollapseStreamsRow;
template <class Real, int Streams> struct RepeatStreamsRow;
template <class Real, int Streams> struct SpreadStreamsBackwardRow;
template <class Real, int Streams> struct SpreadStreamsRow;
template <class Real, int Streams> struct SumStreamsRow;

// guild/ops/residual/stream_weights.hpp
template <class Real> struct StreamMix;
template <class Real> struct StreamProjection;

// guild/ops/rope/rows/rope.hpp
enum class RopeTurn : std::uint8_t;
struct RopeHeads;
template <class Real> struct RopeRow;

// guild/ops/rope/table.hpp
class RopeTable;
struct RopeView;
template <RopePairs Pairs> class PairedRopeTable;

// guild/ops/route/route.hpp
enum class Choice : std::uint8_t;

// guild/ops/route/rows/balance.hpp
template <class Real> struct BalanceColumns;
template <class Real> struct BalanceGradientRow;
template <class Real> struct BalanceTokenRow;
template <class Real> struct BalanceViews;
template <class Real> struct DrawnNoise;

// guild/ops/route/rows/balance_derivatives.hpp
struct BalanceOptions;
struct BalanceTerms;
template <class Real> struct BalanceDerivativesRow;
template <class Real> struct SelectionBiasRow;

// guild/ops/route/rows/buffering.hpp
struct BufferingRule;
template <class Real> struct BlockedShiftRow;
template <class Real> struct BufferingRow;

// guild/ops/route/rows/capacity.hpp
struct DropChoicesRow;
struct KeepFirstRow;
struct UndropRow;
template <class Real> struct DropSecondRow;
template <class Real> struct SlotPriorityRow;

// guild/ops/route/rows/choose_tokens.hpp
struct CountUpRow;
struct TakeTokensRow;
template <class Real> struct CandidatesRow;

// guild/ops/route/rows/count_routing.hpp
struct RoutingColumns;
template <class Real> struct CountRoutingRow;

// guild/ops/route/rows/look_up.hpp
template <class Real> struct LookUpRow;

// guild/ops/route/rows/noise.hpp
template <class Real> struct GumbelLogitsRow;
template <class Real> struct JitterRow;
template <class Real> struct NoisyLogitsBackwardRow;
template <class Real> struct NoisyLogitsRow;

// guild/ops/route/rows/route.hpp
template <class Real> struct RouteBackwardRow;
template <class Real> struct RouterRow;

// guild/ops/route/rows/sinkhorn.hpp
template <class Real> struct SinkhornCostRow;
template <class Real> struct SinkhornExpertsRow;
template <class Real> struct SinkhornLogitsRow;
template <class Real> struct SinkhornStopRow;
template <class Real> struct SinkhornTokenRow;
template <class Real> struct SinkhornViews;

// guild/ops/route/sinkhorn.hpp
struct SinkhornOptions;

}  // namespace v1
}  // namespace guild
