// What config.json says besides the numbers of the model: how weights are stored, and the special tokens.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/types.hpp>
#include <guild/io/config_file.hpp>
#include <guild/io/config_values.hpp>
#include <guild/io/json.hpp>

namespace guild {
inline namespace v1 {

/// `quantization_config`: weights of linear layers stored as fp8 e4m3, each block with one scale; or, where `fp8` is
/// false, as MXFP4 in the layout of compressed-tensors (mxfp4-pack-quantized) or of GPT-OSS (mxfp4).
struct QuantizationConfig {
  bool fp8 = true;
  int block_rows = 128;  ///< `weight_block_size[0]`: outputs that share a scale
  int block_cols = 128;  ///< `weight_block_size[1]`: inputs that share a scale
  friend constexpr bool operator==(const QuantizationConfig&, const QuantizationConfig&) = default;
};

/// What config.json says besides the numbers of the model.
struct PublishedConfig {
  std::string path{};        ///< the file, for messages
  std::string model_type{};  ///< deepseek_v3, llama, ...
  std::optional<QuantizationConfig> quantization{};
  DType dtype = DType::bf16;  ///< of the tensors that are not quantised
  std::optional<int> bos{};   ///< `bos_token_id`
  std::vector<int> eos{};     ///< `eos_token_id`: one, several or none
  std::optional<int> pad{};   ///< `pad_token_id`
};

namespace detail::published {

/// `quantization_config` of a file.
[[nodiscard]] inline std::optional<QuantizationConfig> quantization_of(const ConfigFile& file) {
  constexpr ErrorCode code = ErrorCode::cf_quant;
  const auto q = file.find("quantization_config");
  if (!q) return std::nullopt;
  require_object(*q);
  static constexpr Word<int> methods[] = {{"fp8", 0}, {"compressed-tensors", 1}, {"mxfp4", 2}},
                             formats[] = {{"e4m3", 0}}, schemes[] = {{"dynamic", 0}};
  const int method =
      one_of(require_value(*q, "quant_method", "\"fp8\", \"compressed-tensors\" or \"mxfp4\""), methods, code);
  if (method > 0) {
    static constexpr Word<int> packings[] = {{"mxfp4-pack-quantized", 0}};
    if (method == 1) (void)one_of(require_value(*q, "format", "\"mxfp4-pack-quantized\""), packings, code);
    return QuantizationConfig{.fp8 = false, .block_rows = 1, .block_cols = 32};
  }
  if (const auto format = find_value(*q, "fmt")) (void)one_of(*format, formats, code);
  if (const auto scheme = find_value(*q, "activation_scheme")) (void)one_of(*scheme, schemes, code);
  QuantizationConfig out;
  const auto block = q->find("weight_block_size");
  if (!block) return out;  // 128 x 128 is the documented default
  constexpr const char* expected = "two integers from 1 to 65536 such as [128, 128]";
  if (!block->is_array()) published::refuse(*block, code, expected);
  if (block->size() != 2) block->fail(code, {"has ", block->size(), " elements, expected ", expected, config_hint});
  for (std::size_t i = 0; i < 2; ++i) {
    const Json side = (*block)[i];
    if (!side.is_integer() || side.integer() < 1 || side.integer() > 1 << 16) published::refuse(side, code, expected);
    (i == 0 ? out.block_rows : out.block_cols) = static_cast<int>(side.integer());
  }
  return out;
}

/// `dtype` or `torch_dtype` of a file.
[[nodiscard]] inline DType dtype_of_file(const ConfigFile& file) {
  static constexpr Word<DType> types[] = {
      {"bfloat16", DType::bf16}, {"float16", DType::f16}, {"float32", DType::f32}, {"float8_e4m3fn", DType::f8_e4m3}};
  const auto value = file.find("dtype");
  return value ? one_of(*value, types, ErrorCode::cf_unsupported) : DType::bf16;
}

/// What any file says besides the numbers. `vocab`: tokens are checked against it.
[[nodiscard]] inline PublishedConfig besides_numbers(const ConfigFile& file, int vocab) {
  PublishedConfig out{.path = file.path(), .model_type = file.model_type()};
  out.quantization = quantization_of(file);
  out.dtype = dtype_of_file(file);
  if (const auto bos = file.find("bos_token_id")) out.bos = to_token(*bos, vocab);
  if (const auto eos = file.find("eos_token_id")) out.eos = to_tokens(*eos, vocab);
  // Some files write -1 for "no padding token".
  if (const auto pad = file.find("pad_token_id"); pad && to_int(*pad) != -1) out.pad = to_token(*pad, vocab);
  return out;
}

}  // namespace detail::published
}  // namespace v1
}  // namespace guild
