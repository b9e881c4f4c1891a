// Declares the public types of guild, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <cstdint>

namespace guild::inline v1 {

using Index = std::int64_t;

// guild/core/buffer.hpp
template <class T> class Buffer;

// guild/core/config.hpp
enum class Scoring : std::uint8_t;
enum class Selection : std::uint8_t;
struct AttentionConfig;
struct ModelConfig;
struct MoeConfig;
struct RopeConfig;

// guild/core/config_check.hpp
struct ConfigProblem;

// guild/core/config_fields.hpp
struct ConfigField;

// guild/core/error.hpp
class Error;
enum class ErrorCode : std::uint8_t;
struct Where;

// guild/core/memory.hpp
struct MemoryEstimate;
struct ParameterCount;

// guild/core/path.hpp
class Path;

// guild/core/random.hpp
class Random;
struct Philox;

// guild/core/types.hpp
enum class DType : std::uint8_t;
struct bf16;
struct f16;
struct fp8_e4m3;

// guild/core/view.hpp
template <class T, int Rank> struct View;

// guild/core/weight.hpp
struct Published;
struct StoredMatrix;
struct StoredVector;
struct WeightView;
template <class T> struct Dense;
template <class T> struct DenseMatrix;
template <class T> struct DenseVector;

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

// guild/device/team.hpp
struct SerialTeam;

// guild/device/thread_pool.hpp
class ThreadPool;

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

// guild/io/bpe.hpp
class BpeMerger;
class MergeTable;

// guild/io/chat_template.hpp
class ChatTemplate;
struct RenderOptions;

// guild/io/checkpoint.hpp
class Checkpoint;
struct CheckpointOptions;

// guild/io/checkpoint_index.hpp
struct CheckpointIndex;

// guild/io/config.hpp
struct PublishedConfig;
struct QuantizationConfig;

// guild/io/file.hpp
class AtomicFile;
class File;
class Mapping;

// guild/io/generation_config.hpp
struct GenerationDefaults;

// guild/io/json.hpp
class Json;
struct JsonRules;

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

// guild/models/deepseek_r1_spec.hpp
struct DeepSeekR1Spec;

// guild/models/deepseek_v2_lite_spec.hpp
struct DeepSeekV2LiteSpec;

// guild/models/kimi_k2_spec.hpp
struct KimiK2Spec;

// guild/models/mini_r1_spec.hpp
struct MiniR1Spec;

// guild/models/moonlight_spec.hpp
struct MoonlightSpec;

// guild/models/published_names.hpp
struct PublishedNames;

// guild/models/spec.hpp
struct SpecDefaults;

// guild/models/transformer.hpp
template <class S> struct Transformer;

// guild/modules/batch.hpp
struct Batch;
struct Chunk;

// guild/modules/block.hpp
template <class S, class MixerType, class FeedForwardType> struct Block;
template <class S> struct DenseFeedForward;

// guild/modules/embedding.hpp
template <Index Vocab, Index Size> struct Embedding;

// guild/modules/expert_pool.hpp
struct Assignment;
template <class S> struct ExpertPool;

// guild/modules/latent_cache.hpp
template <class Element, Index Width> class LatentCache;

// guild/modules/linear.hpp
template <Index Outputs, Index Inputs> struct Linear;

// guild/modules/mla.hpp
enum class MlaForm : std::uint8_t;
template <class S> struct Mla;

// guild/modules/mlp.hpp
template <Index Size, Index Hidden> struct Mlp;

// guild/modules/module.hpp
struct MatrixShape;
struct VectorShape;

// guild/modules/moe.hpp
template <class S> struct Moe;

// guild/modules/mtp.hpp
template <class S, class BlockType> struct MtpLayer;

// guild/modules/norm.hpp
template <Index Size> struct RmsNorm;

// guild/modules/observer.hpp
struct NoObserver;

// guild/modules/router.hpp
template <class S> struct TopKRouter;

// guild/modules/stack.hpp
template <class BlockType, int Count> struct Segment;
template <int FirstLayer, class... Segments> struct Stack;

// guild/ops/attention_job.hpp
enum class AttentionMask : std::uint8_t;
template <class Real> struct BasicExpandedAttentionJob;
template <class Real> struct BasicExpandedAttentionSizes;
template <class Real> struct ExpandedAttentionGradientJob;
struct LatentAttentionJob;
struct LatentAttentionSizes;

// guild/ops/job.hpp
enum class Product : std::uint8_t;
enum class Update : std::uint8_t;
struct GatedJob;
template <class Real> struct BasicLinearJob;
template <class Real> struct WeightGradientJob;

// guild/ops/rope_table.hpp
class RopeTable;
struct RopeView;

// guild/ops/rows/combine.hpp
template <class Real> struct AddRow;
template <class Real> struct CombineRow;
template <class Real> struct SwigluRow;

// guild/ops/rows/embedding.hpp
template <class Real> struct EmbeddingRow;

// guild/ops/rows/rms_norm.hpp
template <class Real> struct RmsNormRow;

// guild/ops/rows/rms_norm_backward.hpp
template <class Real> struct InverseRmsRow;
template <class Real> struct RmsNormBackwardRow;
template <class Real> struct RmsNormWeightGradient;

// guild/ops/rows/rope.hpp
struct RopeHeads;
template <class Real> struct RopeRow;

// guild/ops/rows/router.hpp
template <class Real> struct RouterRow;

}  // namespace guild::inline v1
