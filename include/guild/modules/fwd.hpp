// Declares the public types of modules/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/core/fwd.hpp>

namespace guild {
inline namespace v1 {

// guild/modules/balance_support.hpp
struct BalanceSupport;

// guild/modules/batch.hpp
struct Batch;
struct Chunk;
template <class Element> class SequenceRows;

// guild/modules/block.hpp
template <class S, class MixerType, class FeedForwardType, class ResidualType> struct Block;
template <class S> struct DenseFeedForward;

// guild/modules/block_diagonal_linear.hpp
template <Index Groups, Index Outputs, Index Inputs> struct BlockDiagonalLinear;

// guild/modules/cached_attention.hpp
template <class Attention, class Cache> struct CachedLatentAttention;

// guild/modules/cached_rows.hpp
template <class Element> struct CachedRows;

// guild/modules/caches.hpp
template <class Cache> class Caches;

// guild/modules/capped.hpp
template <class RouterType, const Capacity& Config> struct Capped;

// guild/modules/compressed_cache.hpp
template <class Element, Index Width, class Pooling, Index Chunk> struct CompressorCache;
template <class Near, class... Pooled> struct CompressedCache;

// guild/modules/compressed_keys.hpp
template <Index Tokens, PoolWindows Windows> struct Pooled;
template <class Near, class PoolingType, class IndexerType> struct CompressedKeys;

// guild/modules/compressor.hpp
template <Index Hidden, Index Width, Index Ratio, PoolWindows Windows> struct Compressor;

// guild/modules/dispatch.hpp
struct Here;

// guild/modules/embedding.hpp
template <Index Vocab, Index Size, EmbeddingScale Scale> struct Embedding;

// guild/modules/expert_buffering.hpp
struct DefaultBuffering;
template <class Router, class Policy> struct ExpertBuffering;

// guild/modules/expert_choice_router.hpp
template <class S> struct ExpertChoiceRouter;

// guild/modules/expert_dropout.hpp
template <class S> struct ExpertDropout;

// guild/modules/expert_pool.hpp
template <class S> struct ExpertPool;

// guild/modules/gates.hpp
struct NoGate;
template <Index Window, Index Pinned> struct BranchGate;
template <Index Window, Index Pinned> struct FarBiasGate;
template <Index Window, Index Pinned> struct HeadGate;
template <class Gate, class Keys, Index Hidden, Index Heads> struct GatedBranches;
template <class Real> struct AttentionBranch;

// guild/modules/gqa.hpp
template <class S, const GqaConfig& Config, class Keys, class Gate> struct Gqa;

// guild/modules/gshard_router.hpp
template <class S, const double& Threshold> struct ChanceOfSecondRouter;
template <class S, const double& Threshold> struct GShardRouter;

// guild/modules/gumbel_choice.hpp
template <class Router> struct GumbelChoice;

// guild/modules/hash_router.hpp
template <class S> struct HashRouter;

// guild/modules/hyper_connections.hpp
template <Index Hidden, const HyperConfig& Config, StreamEnd End> struct StreamMixing;
template <class S, const HyperConfig& Config> struct HyperConnections;

// guild/modules/index_heads.hpp
template <Index Heads, Index Dim, Index TopK, Index TokensPerKey> struct IndexHeads;

// guild/modules/indexed_cache.hpp
template <class ElementType, Index Width, Index IndexWidth> struct IndexedCache;

// guild/modules/indexer.hpp
template <class S, const IndexerConfig& Config, const MlaConfig& Attention> struct Indexer;

// guild/modules/jittered.hpp
template <class Inner, double Amount> struct Jittered;

// guild/modules/joint_cache.hpp
template <class Self> struct JointCache;
template <class... Caches> struct CacheTuple;

// guild/modules/key_choice.hpp
class ChosenBits;
enum class KeySight : std::uint8_t;
struct IndexingOptions;
struct KeyChoice;

// guild/modules/keys.hpp
struct AllKeys;
struct NoIndexer;
template <Index Window, Index Pinned, Index Chunk> struct LocalKeys;
template <class IndexerType> struct ChosenKeys;

// guild/modules/latent_norms.hpp
template <class Attention> struct LatentNorms;

// guild/modules/latent_parts.hpp
template <class Attention, class Element> struct LatentParts;

// guild/modules/latent_rows.hpp
template <class Attention, class Keys> struct LatentRows;

// guild/modules/learned_slots.hpp
template <class LayersType, class S, Index M> struct LearnedSlots;

// guild/modules/linear.hpp
template <Index Outputs, Index Inputs> struct Linear;

// guild/modules/match_plan.hpp
template <class Device> class MatchPlan;

// guild/modules/match_policies.hpp
struct DefaultMatching;
struct MatchedInflation;
template <Index Num, Index Den, int Parity> struct BipartiteSoftMatch;
template <Index Num, Index Den, int Parity> struct EnergyMatch;
template <Index Num, Index Den, int Parity> struct SequenceTopR;

// guild/modules/match_span.hpp
template <class LayersType, class MatchingType, class Inflation> struct MatchSpan;

// guild/modules/merge_budget.hpp
struct MergeState;
struct NoProtect;
struct Wish;
template <Index G> struct Unbounded;
template <Index Num, Index Den, Index Burst, Index G> struct TokenBucket;
template <Index Stride> struct FixedStride;
template <Index W> struct CausalEnergy;
template <class Bucket, Index R> struct Reserve;
template <std::int32_t... Ids> struct ProtectTokens;

// guild/modules/merge_cache.hpp
template <class Merging, class InnerCache> struct MergeCache;

// guild/modules/merge_plan.hpp
struct MergeInput;
template <class Device> class MergePlan;

// guild/modules/merge_policies.hpp
struct DefaultInflation;
struct DefaultMerging;
struct MassMean;
struct SelectClosing;
struct SoftmaxPool;

// guild/modules/merge_position.hpp
struct CentroidPosition;
struct FirstPosition;
struct LastPosition;

// guild/modules/merge_references.hpp
struct CopyUnmerge;
struct DynamicPoolingInflation;
struct HNetInflation;
struct HourglassInflation;
template <Index Longest> struct HNetMerging;
template <Index Stride> struct HourglassMerging;
template <Index W, Index R, class NoveltyType> struct ToMeMerging;
template <class NoveltyType, Index Longest> struct DynamicPoolingMerging;

// guild/modules/merge_span.hpp
template <class LayersType, class Merging, class Inflation> struct MergeSpan;

// guild/modules/merge_states.hpp
template <Index Chunk, class State> class MergeStates;

// guild/modules/merge_window.hpp
struct OpenToken;
template <Index W, Index R> struct WindowQuota;
template <Index W> struct WindowState;

// guild/modules/merging_options.hpp
struct MergingOptions;

// guild/modules/mla.hpp
template <class S, const MlaConfig& Config, class Keys, class Gate> struct Mla;

// guild/modules/mlp.hpp
struct SiluActivation;
template <Index Size, Index Hidden, class Of> struct Mlp;

// guild/modules/module.hpp
enum class TensorRole : std::uint8_t;
struct BufferingRule;
struct MatrixShape;
struct StackShape;
struct VectorShape;

// guild/modules/moe.hpp
template <class S, class RouterType> struct Moe;

// guild/modules/mtp.hpp
template <class S, class BlockType> struct MtpLayer;

// guild/modules/noise.hpp
enum class NoisePurpose : std::uint32_t;
struct Noise;

// guild/modules/noisy_top_k_router.hpp
template <class S> struct NoisyTopKRouter;

// guild/modules/norm.hpp
template <Index Size, NormGain Gain> struct RmsNorm;
template <Index Size> struct LayerNorm;

// guild/modules/observer.hpp
class Observer;

// guild/modules/parameters.hpp
struct TensorShape;

// guild/modules/pass.hpp
template <class Device> struct Pass;
template <class Frame> class Room;

// guild/modules/pooled_attention.hpp
template <class Attention, class Keys> struct PooledAttention;

// guild/modules/pooled_cache.hpp
template <class ElementType, Index Width, Index Ratio> class PooledCache;

// guild/modules/pooled_indexer.hpp
template <class S, const IndexerConfig& Config> struct PooledIndexer;

// guild/modules/query_key_norm.hpp
template <class S, const GqaConfig& Config> struct QueryKeyNorm;

// guild/modules/recompute.hpp
template <class Layer> struct RecomputedLayer;
template <class Part> struct Recompute;

// guild/modules/repeat.hpp
template <class Pattern, int Times> struct Repeat;

// guild/modules/residual.hpp
template <class S> struct PlainResidual;

// guild/modules/ring_cache.hpp
template <class ElementType, Index Width, Index Window, Index Pinned, Index Chunk> class RingCache;

// guild/modules/router.hpp
template <class S> struct TopKRouter;

// guild/modules/routing.hpp
enum class Phase : std::uint8_t;
struct LayerChoice;
template <class Real> struct Routing;

// guild/modules/routing_counter.hpp
template <class Device> class RoutingCounter;

// guild/modules/routing_statistics.hpp
class RoutingStatistics;
struct RoutingCounts;

// guild/modules/row_cache.hpp
template <class ElementType, Index Width> class RowCache;

// guild/modules/running_attention.hpp
template <class Keys, class Device, class Cache> struct RunningAttention;

// guild/modules/running_cache.hpp
template <class ElementType, Index Width, Index Latent, class Policy> struct RunningCache;

// guild/modules/running_keys.hpp
struct DefaultKeyMerging;
struct LatentNovelty;
template <class Keys, class Policy, Index Latent> struct RunningKeys;

// guild/modules/running_plan.hpp
template <class Device> class RunningPlan;

// guild/modules/running_rows.hpp
template <class Keys, class Device, class Real> class RunningRows;

// guild/modules/segment.hpp
template <class LayerType, int Count> struct Segment;

// guild/modules/shared_experts.hpp
template <class S> struct SharedExperts;

// guild/modules/shared_indexer.hpp
template <class S, const IndexerConfig& Config> struct SharedIndexer;

// guild/modules/shared_kv.hpp
template <class S, const SharedKvConfig& Config, class Keys, class Gate> struct SharedKv;

// guild/modules/shared_row_attention.hpp
template <Index Heads, Index Width, Index TokensPerKey> struct SharedRowAttention;

// guild/modules/shortcut_block.hpp
template <class S, class MixerType, class DenseType, class ExpertsType> struct ShortcutBlock;

// guild/modules/sinkhorn_router.hpp
template <class S> struct SinkhornRouter;

// guild/modules/slot_inflation.hpp
template <class Inflation> struct SlotInflation;
template <class Real> struct SlotRows;

// guild/modules/slot_plan.hpp
template <class Device, class Policy> class SlotPlan;
template <class Real> struct MergedTokens;

// guild/modules/soft_token_merging.hpp
template <class S, class PolicyType> struct SoftTokenMerging;

// guild/modules/stack.hpp
template <class... Parts> struct Stack;

// guild/modules/streams.hpp
template <class S, class LayerType, const HyperConfig& Config> struct StreamedLayer;
template <class S, class LayersType, const HyperConfig& Config> struct StreamedLayer;
template <class S, class LayersType, const HyperConfig& Config> struct Streams;

// guild/modules/switch_router.hpp
template <class S> struct SwitchRouter;

// guild/modules/token_inflation.hpp
template <class S, class PolicyType> struct TokenInflation;

// guild/modules/token_novelty.hpp
struct FullRankCosine;
struct NoNovelty;
template <Index Rank> struct CosineNovelty;
template <class Real> struct TokenNovelty;
template <class Real> struct TokenRows;
template <int Offset> struct LearnedSigmoid;

// guild/modules/ungated_expert_pool.hpp
template <class S> struct UngatedExpertPool;

// guild/modules/ungated_mlp.hpp
template <Index Size, Index Hidden, class Of> struct UngatedMlp;

// guild/modules/weighted_cache.hpp
template <class Rows> struct WeightedCache;

// guild/modules/weighted_keys.hpp
template <class Element> struct AttendedRows;
template <class Keys> struct WeightedKeys;

// guild/modules/whole_slots.hpp
template <class Inflation> struct WholeSlots;

}  // namespace v1
}  // namespace guild
