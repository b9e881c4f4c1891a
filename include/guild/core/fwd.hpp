// Declares the public types of core/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <cstdint>

namespace guild {
inline namespace v1 {

using Index = std::int64_t;

// guild/core/buffer.hpp
struct HostMemory;
template <class T> class Buffer;

// guild/core/config/activation.hpp
enum class Activation : std::uint8_t;
struct ActivationConfig;

// guild/core/config/attention.hpp
enum class NormSpan : std::uint8_t;
struct GqaConfig;
struct MlaConfig;
struct SharedKvConfig;

// guild/core/config/capacity.hpp
enum class CapacityRounding : std::uint8_t;
enum class DropOrder : std::uint8_t;
struct Capacity;

// guild/core/config/compression.hpp
struct CompressionConfig;

// guild/core/config/family.hpp
struct FixedKey;
struct KeyRule;
struct RopeKeys;

// guild/core/config/feed_forward.hpp
enum class Scoring : std::uint8_t;
enum class Selection : std::uint8_t;
struct DenseConfig;
struct ExpertConfig;
struct HashConfig;
struct TopKConfig;

// guild/core/config/field.hpp
enum class Absent : std::uint8_t;
struct ConfigField;
struct ConfigPart;
struct ConfigProblem;

// guild/core/config/hyper.hpp
enum class StreamEnd : std::uint8_t;
struct HyperConfig;

// guild/core/config/indexer.hpp
class IndexerTypes;
enum class IndexerType : std::uint8_t;
struct IndexerConfig;

// guild/core/config/layer_set.hpp
class LayerSet;

// guild/core/config/pool.hpp
enum class PoolWindows : std::uint8_t;

// guild/core/config/rope.hpp
enum class RopePairs : std::uint8_t;
enum class RopeScaling : std::uint8_t;
struct RopeConfig;

// guild/core/config/shortcut.hpp
struct ShortcutConfig;

// guild/core/config/trunk.hpp
enum class EmbeddingScale : std::uint8_t;
enum class NormGain : std::uint8_t;
enum class NormPlace : std::uint8_t;
struct NormConfig;
struct TrunkConfig;

// guild/core/config/window.hpp
class LayerTypes;
enum class LayerType : std::uint8_t;
struct WindowConfig;

// guild/core/error.hpp
class Error;
enum class ErrorCode : std::uint8_t;
struct Where;

// guild/core/format.hpp
struct Format;

// guild/core/model_size.hpp
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

}  // namespace v1
}  // namespace guild
