// Declares the public types of guild, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <cstdint>

namespace guild::inline v1 {

using Index = std::int64_t;

// guild/core/buffer.hpp
struct HostMemory;
template <class T> class Buffer;

// guild/core/config/attention.hpp
struct GqaConfig;
struct MlaConfig;

// guild/core/config/family.hpp
struct FixedKey;
struct KeyRule;

// guild/core/config/feed_forward.hpp
enum class Scoring : std::uint8_t;
enum class Selection : std::uint8_t;
struct DenseConfig;
struct ExpertConfig;
struct TopKConfig;

// guild/core/config/field.hpp
enum class Absent : std::uint8_t;
struct ConfigField;
struct ConfigPart;
struct ConfigProblem;

// guild/core/config/rope.hpp
enum class RopePairs : std::uint8_t;
enum class RopeScaling : std::uint8_t;
struct RopeConfig;

// guild/core/config/trunk.hpp
struct NormConfig;
struct TrunkConfig;

// guild/core/error.hpp
class Error;
enum class ErrorCode : std::uint8_t;
struct Where;

// guild/core/format.hpp
struct Format;

// guild/core/memory.hpp
struct MemoryEstimate;
struct ParameterCount;

// guild/core/path.hpp
class Path;

// guild/core/random.hpp
class Random;
struct Philox;

// guild/core/stack_view.hpp
struct StackView;

// guild/core/types.hpp
enum class DType : std::uint8_t;
struct bf16;
struct f16;
struct fp4_e2m1;
struct fp8_e4m3;
struct fp8_e8m0;

// guild/core/view.hpp
template <class T, int Rank> struct DeviceView;
template <class T, int Rank> struct View;

// guild/core/weight.hpp
template <class Memory> struct AsStored;
template <class Memory> struct Stored;
template <class Memory> struct StoredFloats;
template <class Memory> struct StoredMatrices;
template <class T, class Memory> struct Dense;
template <class T, class Memory> struct DenseMatrix;
template <class T, class Memory> struct DenseStack;
template <class T, class Memory> struct DenseVector;

// guild/core/weight_view.hpp
struct WeightView;

// guild/device/arena.hpp
template <class Block> class BasicArena;

// guild/device/cpu.hpp
class Cpu;
struct CpuOptions;

// guild/device/host_team.hpp
class HostTeam;
class HostTeams;

// guild/device/isa.hpp
enum class Isa : std::uint8_t;

// guild/device/staged.hpp
template <class Device, class Job> class Staged;

// guild/device/team.hpp
struct SerialTeam;

// guild/device/thread_pool.hpp
class ThreadPool;

// guild/device/tuning.hpp
enum class LatentForm : std::uint8_t;
struct Tuning;

// guild/inference/conversation.hpp
template <class LanguageModelType> class Conversation;

// guild/inference/generation.hpp
enum class FinishReason : std::uint8_t;
struct GenerateOptions;
struct GenerationStats;
template <class LanguageModelType> class Generation;

// guild/inference/language_model.hpp
template <class ModelType, class DeviceType> class LanguageModel;

// guild/inference/load_options.hpp
enum class Residence : std::uint8_t;
struct LoadOptions;
struct Progress;

// guild/inference/sampling.hpp
class Sampler;
struct SamplingOptions;

// guild/inference/session.hpp
template <class LanguageModelType> class Session;

// guild/io/added_tokens.hpp
class TextMatcher;
struct AddedToken;

// guild/io/atomic_folder.hpp
class AtomicFolder;

// guild/io/bpe.hpp
class BpeMerger;
class MergeTable;

// guild/io/bpe_trainer.hpp
class BpeTrainer;
struct BpeProgress;
struct BpeTrainerOptions;

// guild/io/bpe_vocabulary.hpp
struct BpeVocabulary;
struct NamedToken;
struct SplitRules;

// guild/io/chat_template.hpp
class ChatTemplate;
struct RenderOptions;

// guild/io/checkpoint.hpp
class Checkpoint;
struct CheckpointOptions;

// guild/io/checkpoint_index.hpp
struct CheckpointIndex;

// guild/io/checksum.hpp
class Checksum;

// guild/io/config.hpp
template <class Family> struct PublishedModel;

// guild/io/config_file.hpp
struct PublishedConfig;
struct QuantizationConfig;

// guild/io/config_writer.hpp
struct ConfigWriteOptions;

// guild/io/durable_file.hpp
class DurableFile;

// guild/io/file.hpp
class AtomicFile;
class File;
class Mapping;

// guild/io/file_system.hpp
class FileSystem;

// guild/io/generation_config.hpp
struct GenerationDefaults;

// guild/io/json.hpp
class Json;
struct JsonRules;

// guild/io/json_writer.hpp
class JsonWriter;
struct JsonLayout;

// guild/io/jsonl.hpp
class LineCutter;
struct JsonLines;
struct LinePlace;

// guild/io/manifest.hpp
struct Manifest;

// guild/io/message.hpp
struct Message;
struct ToolCall;

// guild/io/piece_encoder.hpp
class PieceEncoder;

// guild/io/pretokenizer.hpp
class PreTokenizer;

// guild/io/regex.hpp
class Regex;

// guild/io/safetensors.hpp
struct TensorSource;

// guild/io/safetensors_writer.hpp
class SafetensorsWriter;
struct SafetensorsWriteOptions;

// guild/io/symbol_table.hpp
class SymbolTable;

// guild/io/tensor_info.hpp
struct SafetensorsHeader;
struct SafetensorsRules;
struct TensorInfo;

// guild/io/text_part.hpp
struct TextPart;

// guild/io/text_stream.hpp
class StopStrings;
class TextStream;
class Utf8Stream;

// guild/io/think.hpp
class ThinkParser;
struct ThinkPiece;

// guild/io/tokenizer.hpp
class Tokenizer;
enum class AddedTokens : std::uint8_t;
enum class InvalidUtf8 : std::uint8_t;
enum class SpecialTokens : std::uint8_t;
struct DecodeOptions;
struct EncodeOptions;

// guild/io/tokenizer_config.hpp
struct TokenizerConfig;

// guild/io/tokenizer_file.hpp
class TokenTable;
struct TokenizerFile;

// guild/io/utf8.hpp
struct Utf8Char;

// guild/models/deepseek_family.hpp
struct DeepSeekFamily;
struct DeepSeekNames;

// guild/models/deepseek_r1_spec.hpp
struct DeepSeekR1Spec;

// guild/models/deepseek_v2_lite_spec.hpp
struct DeepSeekV2LiteSpec;

// guild/models/kimi_k2_spec.hpp
struct KimiK2Spec;

// guild/models/llama_family.hpp
struct LlamaFamily;
struct LlamaNames;

// guild/models/llama_spec.hpp
struct Llama31_8BSpec;
struct LlamaDefaults;
struct Qwen3_8BSpec;
struct R1DistillQwen1_5BSpec;
struct R1DistillQwen7BSpec;

// guild/models/mini_r1_spec.hpp
struct MiniR1Spec;

// guild/models/mixtral_family.hpp
struct MixtralFamily;
struct MixtralNames;

// guild/models/mixtral_spec.hpp
struct Mixtral8x7BSpec;
struct MixtralDefaults;

// guild/models/moonlight_spec.hpp
struct MoonlightSpec;

// guild/models/name_rule.hpp
struct FusedRows;
struct FusedTensor;
struct NameRule;

// guild/models/spec.hpp
struct SpecBase;
struct SpecDefaults;

// guild/models/transformer.hpp
template <class S> struct Transformer;

// guild/modules/batch.hpp
struct Batch;
struct Chunk;

// guild/modules/block.hpp
template <class S, class MixerType, class FeedForwardType> struct Block;
template <class S> struct DenseFeedForward;

// guild/modules/cached_attention.hpp
template <class Attention, class Cache> struct CachedLatentAttention;

// guild/modules/caches.hpp
template <class Cache> class Caches;

// guild/modules/dispatch.hpp
struct Here;

// guild/modules/embedding.hpp
template <Index Vocab, Index Size> struct Embedding;

// guild/modules/expert_pool.hpp
template <class S> struct ExpertPool;

// guild/modules/gqa.hpp
template <class S, const GqaConfig& Config> struct Gqa;

// guild/modules/joint_cache.hpp
template <class Self> struct JointCache;

// guild/modules/linear.hpp
template <Index Outputs, Index Inputs> struct Linear;

// guild/modules/mla.hpp
template <class S, const MlaConfig& Config> struct Mla;

// guild/modules/mlp.hpp
template <Index Size, Index Hidden> struct Mlp;

// guild/modules/module.hpp
enum class TensorRole : std::uint8_t;
struct MatrixShape;
struct StackShape;
struct VectorShape;

// guild/modules/moe.hpp
template <class S> struct Moe;

// guild/modules/mtp.hpp
template <class S, class BlockType> struct MtpLayer;

// guild/modules/norm.hpp
template <Index Size> struct RmsNorm;

// guild/modules/observer.hpp
class Observer;

// guild/modules/pass.hpp
template <class Device> struct Pass;
template <class Frame> class Room;

// guild/modules/recompute.hpp
template <class Layer> struct RecomputedLayer;
template <class Part> struct Recompute;

// guild/modules/repeat.hpp
template <class Pattern, int Times> struct Repeat;

// guild/modules/router.hpp
template <class S> struct TopKRouter;

// guild/modules/routing.hpp
struct LayerChoice;
template <class Real> struct Routing;

// guild/modules/routing_statistics.hpp
class RoutingStatistics;

// guild/modules/row_cache.hpp
template <class ElementType, Index Width> class RowCache;

// guild/modules/segment.hpp
template <class LayerType, int Count> struct Segment;

// guild/modules/stack.hpp
template <class... Parts> struct Stack;

// guild/ops/assignment.hpp
struct Assignment;

// guild/ops/attention_job.hpp
enum class AttentionMask : std::uint8_t;
struct CachedAttentionJob;
struct CachedAttentionSizes;
template <class Real> struct BasicExpandedAttentionJob;
template <class Real> struct BasicExpandedAttentionSizes;
template <class Real> struct ExpandedAttentionGradientJob;

// guild/ops/balance.hpp
struct BalanceOptions;
struct BalanceTerms;

// guild/ops/blocks.hpp
struct BlockRange;

// guild/ops/cross_entropy.hpp
struct CrossEntropyOptions;

// guild/ops/fault.hpp
enum class Fault : std::uint8_t;

// guild/ops/job.hpp
enum class Product : std::uint8_t;
enum class Update : std::uint8_t;
template <class Real> struct BasicGatedJob;
template <class Real> struct BasicLinearJob;
template <class Real> struct GroupedGated;
template <class Real> struct GroupedGradient;
template <class Real> struct GroupedLinear;
template <class Real> struct WeightGradientJob;

// guild/ops/rope_table.hpp
class RopeTable;
struct RopeView;

// guild/ops/router.hpp
enum class Choice : std::uint8_t;

// guild/ops/rows/adamw.hpp
template <class Real> struct AdamWJob;

// guild/ops/rows/assignment.hpp
struct CountChoicesRow;
struct FillSlotsRow;
struct SumOffsetsRow;

// guild/ops/rows/balance.hpp
template <class Real> struct BalanceColumns;
template <class Real> struct BalanceGradientRow;
template <class Real> struct BalanceTokenRow;
template <class Real> struct BalanceViews;

// guild/ops/rows/bias.hpp
template <class Real> struct AddBiasRow;

// guild/ops/rows/blend.hpp
struct BlendJob;

// guild/ops/rows/cast.hpp
struct CastJob;

// guild/ops/rows/column_sums.hpp
template <class Real> struct AddColumnSums;
template <class Real> struct SumBlockOfRows;

// guild/ops/rows/combine.hpp
template <class Real> struct AddRow;
template <class Real> struct CombineRow;
template <class Real> struct FillRow;
template <class Real> struct SwigluRow;

// guild/ops/rows/copy_rows.hpp
struct RowParts;
template <class From, class To> struct CopyRowsJob;

// guild/ops/rows/cross_entropy.hpp
enum class LossWork : std::uint8_t;
struct RowLosses;
template <class Real> struct CrossEntropyRow;

// guild/ops/rows/embedding.hpp
template <class Real> struct EmbeddingGradient;
template <class Real> struct EmbeddingRow;

// guild/ops/rows/expert_backward.hpp
template <class Real> struct ExpertSwigluBackwardRow;
template <class Real> struct GatherSlotsRow;
template <class Real> struct ScatterSlotsRow;

// guild/ops/rows/fault.hpp
struct FlagOutsideRow;

// guild/ops/rows/newton_schulz.hpp
template <class Real> struct DescendJob;
template <class Real> struct MomentumJob;
template <class Real> struct NormalizeJob;
template <class Real> struct PolynomialJob;
template <class Real> struct TransposeJob;

// guild/ops/rows/normal.hpp
struct FillJob;
struct NormalJob;

// guild/ops/rows/rms_norm.hpp
template <class Real> struct RmsNormRow;

// guild/ops/rows/rms_norm_backward.hpp
template <class Real> struct RmsNormBackwardBlock;

// guild/ops/rows/rope.hpp
enum class RopeTurn : std::uint8_t;
struct RopeHeads;
template <class Real> struct RopeRow;

// guild/ops/rows/route_backward.hpp
template <class Real> struct RouteBackwardRow;

// guild/ops/rows/router.hpp
template <class Real> struct RouterRow;

// guild/ops/rows/scatter_rows.hpp
template <class Real> struct ScatterRow;
template <class Real> struct ZeroMarkedRow;

// guild/ops/rows/sum_of_squares.hpp
struct SumOfPartialsJob;
template <class Real> struct SumOfSquaresJob;

// guild/ops/rows/swiglu_backward.hpp
template <class Real> struct SwigluBackwardRow;

// guild/training/adamw.hpp
struct AdamW;

// guild/training/allocate.hpp
struct Allocate;
struct AllocateTrained;

// guild/training/chat_dataset.hpp
class ChatDataset;

// guild/training/chat_encoder.hpp
class ChatEncoder;
enum class AssistantText : std::uint8_t;
struct ChatOptions;

// guild/training/compute_store.hpp
template <class T> struct ComputeStore;

// guild/training/cross_entropy_head.hpp
struct LossSums;

// guild/training/curriculum.hpp
enum class CurriculumUnit : std::uint8_t;
struct Curriculum;
struct CurriculumStage;

// guild/training/data_loader.hpp
class DataLoader;
enum class LongSamples : std::uint8_t;
struct LoaderOptions;

// guild/training/data_position.hpp
struct DataPosition;
struct SourcePosition;

// guild/training/dataset.hpp
class AnyDataset;
class SampleList;
struct Sample;

// guild/training/generated_dataset.hpp
template <class Make> class GeneratedChats;
template <class Make> class GeneratedDataset;

// guild/training/initialize.hpp
struct InitializeOptions;

// guild/training/masking.hpp
struct MaskOptions;

// guild/training/mixture.hpp
class MixtureWalk;
enum class SampleOrder : std::uint8_t;
struct Mixture;
struct Source;

// guild/training/muon.hpp
enum class MuonScale : std::uint8_t;
struct Muon;

// guild/training/objective.hpp
struct LossReport;
struct ObjectiveOptions;
struct StepSize;
template <class Model, class Real> class Objective;

// guild/training/optimizer.hpp
enum class PredictionLayers : std::uint8_t;
template <class Model> class Optimizer;

// guild/training/parameter_group.hpp
enum class UpdateRule : std::uint8_t;
struct ParameterGroup;

// guild/training/parameters.hpp
struct TensorShape;

// guild/training/refresh_shared.hpp
struct AllocateMissing;

// guild/training/save_model.hpp
struct SaveOptions;

// guild/training/save_training.hpp
struct SaveTrainingOptions;

// guild/training/schedule.hpp
class Schedule;
enum class Course : std::uint8_t;
struct SchedulePiece;

// guild/training/shuffle.hpp
class Permutation;

// guild/training/step_report.hpp
enum class StepOutcome : std::uint8_t;
struct StepReport;

// guild/training/text_tokens.hpp
class TextEncoder;
struct TextOptions;

// guild/training/token_array.hpp
class TokenArray;

// guild/training/token_stream.hpp
class TokenStream;
struct TokenStreamOptions;

// guild/training/trainer.hpp
struct TrainerOptions;
template <class Model, class Device, class Compute> class Trainer;

// guild/training/training_batch.hpp
struct TrainingBatch;

// guild/training/training_log.hpp
class TrainingLog;

// guild/training/training_state.hpp
class StateTensors;
enum class Verification : std::uint8_t;
struct StateRecord;

}  // namespace guild::inline v1
