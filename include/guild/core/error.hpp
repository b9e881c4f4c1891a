// What goes wrong, and where: every failure of the library is one `guild::Error`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include <guild/core/machine_flags.hpp>

namespace guild {
inline namespace v1 {

/// The stable identity of an error. The first letters name the place: io (files), st (safetensors), ix (shard index),
/// cf (config.json), wt (weights), tk (tokenizer), tpl (chat template), in (prompts and parameters), dt (training data),
/// ck (checkpoints), op (shapes and arguments of operations), dev (devices).
enum class ErrorCode : std::uint8_t {
  io_open,
  io_not_regular,
  io_lfs_pointer,
  io_not_safetensors,
  io_pickle_refused,
  io_is_gguf,
  io_compressed,
  io_short_read,
  io_read,
  io_write,
  io_no_space,
  io_map,
  io_cancelled,
  io_too_large,
  st_header_too_small,
  st_header_too_large,
  st_header_length,
  st_json,
  st_utf8,
  st_not_object,
  st_nul,
  st_depth,
  st_first_byte,
  st_duplicate,
  st_number,
  st_missing_field,
  st_unknown_field,
  st_dtype,
  st_type,
  st_overflow,
  st_rank,
  st_offsets,
  st_hole,
  st_overlap,
  st_size,
  st_trailing,
  st_truncated,
  st_misaligned,
  st_metadata,
  st_name,
  st_limit,
  ix_json,
  ix_missing_field,
  ix_shard_missing,
  ix_path,
  ix_tensor_missing,
  ix_duplicate,
  ix_unlisted,
  ix_total_size,
  ix_type,
  cf_json,
  cf_model_type,
  cf_missing,
  cf_type,
  cf_range,
  cf_moe,
  cf_rope,
  cf_rope_unsupported,
  cf_unsupported,
  cf_quant,
  cf_limit,
  cf_static_mismatch,
  cf_memory,
  cf_duplicate,
  wt_shape,
  wt_missing,
  wt_unexpected,
  wt_scale_missing,
  wt_scale_shape,
  wt_scale_value,
  wt_scale_orphan,
  wt_dtype,
  wt_nonfinite,
  tk_json,
  tk_version,
  tk_unsupported,
  tk_regex,
  tk_merge,
  tk_duplicate_id,
  tk_id,
  tk_alphabet,
  tk_added,
  tk_vocab_size,
  tk_limit,
  tk_special,
  tk_type,
  tk_missing,
  tpl_message,
  tpl_limit,
  tpl_unsupported,
  in_utf8,
  in_context,
  in_empty,
  in_param,
  in_token,
  dt_json,
  dt_type,
  dt_missing,
  dt_conversation,
  dt_sample,
  dt_empty,
  dt_position,
  ck_config,
  ck_incomplete,
  ck_corrupt,
  ck_version,
  ck_missing,
  op_shape,
  op_nonfinite,
  op_argument,
  dev_memory,
  dev_failed,
  dev_unavailable,
  count_,
};

namespace detail {
inline constexpr std::array<std::string_view, static_cast<std::size_t>(ErrorCode::count_)> error_names = {
    "io_open",
    "io_not_regular",
    "io_lfs_pointer",
    "io_not_safetensors",
    "io_pickle_refused",
    "io_is_gguf",
    "io_compressed",
    "io_short_read",
    "io_read",
    "io_write",
    "io_no_space",
    "io_map",
    "io_cancelled",
    "io_too_large",
    "st_header_too_small",
    "st_header_too_large",
    "st_header_length",
    "st_json",
    "st_utf8",
    "st_not_object",
    "st_nul",
    "st_depth",
    "st_first_byte",
    "st_duplicate",
    "st_number",
    "st_missing_field",
    "st_unknown_field",
    "st_dtype",
    "st_type",
    "st_overflow",
    "st_rank",
    "st_offsets",
    "st_hole",
    "st_overlap",
    "st_size",
    "st_trailing",
    "st_truncated",
    "st_misaligned",
    "st_metadata",
    "st_name",
    "st_limit",
    "ix_json",
    "ix_missing_field",
    "ix_shard_missing",
    "ix_path",
    "ix_tensor_missing",
    "ix_duplicate",
    "ix_unlisted",
    "ix_total_size",
    "ix_type",
    "cf_json",
    "cf_model_type",
    "cf_missing",
    "cf_type",
    "cf_range",
    "cf_moe",
    "cf_rope",
    "cf_rope_unsupported",
    "cf_unsupported",
    "cf_quant",
    "cf_limit",
    "cf_static_mismatch",
    "cf_memory",
    "cf_duplicate",
    "wt_shape",
    "wt_missing",
    "wt_unexpected",
    "wt_scale_missing",
    "wt_scale_shape",
    "wt_scale_value",
    "wt_scale_orphan",
    "wt_dtype",
    "wt_nonfinite",
    "tk_json",
    "tk_version",
    "tk_unsupported",
    "tk_regex",
    "tk_merge",
    "tk_duplicate_id",
    "tk_id",
    "tk_alphabet",
    "tk_added",
    "tk_vocab_size",
    "tk_limit",
    "tk_special",
    "tk_type",
    "tk_missing",
    "tpl_message",
    "tpl_limit",
    "tpl_unsupported",
    "in_utf8",
    "in_context",
    "in_empty",
    "in_param",
    "in_token",
    "dt_json",
    "dt_type",
    "dt_missing",
    "dt_conversation",
    "dt_sample",
    "dt_empty",
    "dt_position",
    "ck_config",
    "ck_incomplete",
    "ck_corrupt",
    "ck_version",
    "ck_missing",
    "op_shape",
    "op_nonfinite",
    "op_argument",
    "dev_memory",
    "dev_failed",
    "dev_unavailable",
};
static_assert(!error_names.back().empty(), "every ErrorCode has a name, in the order of the enumeration");
}  // namespace detail

/// The code as it is spelled in messages and documents, such as "st_size".
[[nodiscard]] constexpr std::string_view name(ErrorCode code) noexcept {
  const auto i = static_cast<std::size_t>(code);
  return i < detail::error_names.size() ? detail::error_names[i] : "unknown";
}

/// Where an error was found. Unknown parts stay empty (offset: -1).
struct Where {
  std::string path{};        ///< file or folder
  std::string key{};         ///< config key, tensor name, token, parameter
  std::int64_t offset = -1;  ///< byte in the file
};

/// The one exception type of the library. `what()` reads
/// `path: "key": message (byte offset) [code]`; the message says what was found, what was expected and what to do.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message, Where where = {})
      : code_(code), message_(std::move(message)), where_(std::move(where)) {
    if (!where_.path.empty()) text_ += where_.path + ": ";
    if (!where_.key.empty()) text_ += "\"" + where_.key + "\": ";
    text_ += message_;
    if (where_.offset >= 0) text_ += " (byte " + std::to_string(where_.offset) + ")";
    text_ += " [" + std::string(guild::name(code_)) + "]";
  }

  [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] const std::string& message() const noexcept { return message_; }
  [[nodiscard]] const std::string& path() const noexcept { return where_.path; }
  [[nodiscard]] const std::string& key() const noexcept { return where_.key; }
  [[nodiscard]] std::int64_t offset() const noexcept { return where_.offset; }

 private:
  ErrorCode code_;
  std::string message_;
  Where where_;
  std::string text_;
};

}  // namespace v1
}  // namespace guild
