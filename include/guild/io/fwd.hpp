// Declares the public types of io/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/core/fwd.hpp>

namespace guild {
inline namespace v1 {

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

// guild/io/normalizer.hpp
class Normalizer;
struct TextRange;

// guild/io/piece_encoder.hpp
class PieceEncoder;

// guild/io/pretokenizer.hpp
class PreTokenizer;

// guild/io/published_config.hpp
struct PublishedConfig;
struct QuantizationConfig;

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

}  // namespace v1
}  // namespace guild
