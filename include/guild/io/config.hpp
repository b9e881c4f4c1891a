// config.json of a Hugging Face folder: read, checked, and compared with the numbers a program was compiled for.
//
// Understood are the model types deepseek_v3 (V3, R1, Moonlight), deepseek_v2 and kimi_k2, in the published spelling
// and in the one newer versions of transformers write. A key that shapes the model must be there; only what the
// published configuration classes document has a default. Unknown keys are ignored; keys that would change the
// arithmetic in a way this library does not do are refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/config.hpp>
#include <guild/core/config_compare.hpp>
#include <guild/core/error.hpp>
#include <guild/core/types.hpp>
#include <guild/io/config_values.hpp>
#include <guild/io/file.hpp>
#include <guild/io/json.hpp>

namespace guild::inline v1 {

/// `quantization_config`: weights of linear layers stored as fp8 e4m3, each block with one scale; or, where `fp8` is
/// false, as MXFP4 in the layout of compressed-tensors (mxfp4-pack-quantized).
struct QuantizationConfig {
  bool fp8 = true;
  int block_rows = 128;  ///< `weight_block_size[0]`: outputs that share a scale
  int block_cols = 128;  ///< `weight_block_size[1]`: inputs that share a scale
  friend constexpr bool operator==(const QuantizationConfig&, const QuantizationConfig&) = default;
};

/// Everything this library takes from config.json.
struct PublishedConfig {
  std::string path{};        ///< the file, for messages
  std::string model_type{};  ///< deepseek_v3, deepseek_v2 or kimi_k2
  ModelConfig model{};
  std::optional<QuantizationConfig> quantization{};
  DType dtype = DType::bf16;  ///< `torch_dtype` or `dtype`: of the weights that are not quantised
  std::optional<int> bos{};   ///< `bos_token_id`
  std::vector<int> eos{};     ///< `eos_token_id`: one, several or none
  std::optional<int> pad{};   ///< `pad_token_id`
};

namespace detail::published {

/// Reads one config.json; a class only so that its parts share the document.
class ConfigReader {
 public:
  ConfigReader(std::string_view json, const std::string& path)
      : root_(Json::parse(json, {.path = path, .max_depth = 16})) {}

  [[nodiscard]] PublishedConfig read() {
    PublishedConfig out;
    out.path = root_.rules().path;
    out.model_type = model_type();
    v2_ = out.model_type == "deepseek_v2";
    refuse_unsupported();
    read_shape(out.model);
    read_attention(out.model.attention);
    read_experts(out.model);
    read_rope(out.model.rope);
    validate(out.model, out.path);
    out.quantization = quantization();
    out.dtype = dtype();
    const int vocab = out.model.vocab;
    if (const auto bos = find("bos_token_id")) out.bos = to_token(*bos, vocab);
    if (const auto eos = find("eos_token_id")) out.eos = to_tokens(*eos, vocab);
    // Some files write -1 for "no padding token".
    if (const auto pad = find("pad_token_id"); pad && to_int(*pad) != -1) out.pad = to_token(*pad, vocab);
    return out;
  }

 private:
  [[nodiscard]] std::optional<Json> find(const char* key) const { return find_value(root_, {key}); }
  [[nodiscard]] int integer(const char* key) const { return to_int(require_value(root_, key, "an integer")); }

  /// An integer where null is a value too: it is read as `null_means`. The key itself must be there.
  [[nodiscard]] int integer_or_null(const char* key, int null_means, std::string_view expected) const {
    const auto value = root_.find(key);
    if (!value) refuse_missing(root_, key, expected);
    return value->is_null() ? null_means : to_int(*value);
  }

  [[nodiscard]] std::string model_type() const {
    const Json value = require_value(root_, "model_type", "\"deepseek_v3\", \"deepseek_v2\" or \"kimi_k2\"");
    static constexpr Word<std::string_view> known[] = {
        {"deepseek_v3", "deepseek_v3"}, {"deepseek_v2", "deepseek_v2"}, {"kimi_k2", "kimi_k2"}};
    return std::string(one_of(value, known, ErrorCode::cf_model_type));
  }

  /// Keys that would change the arithmetic or the names of the weights.
  void refuse_unsupported() const {
    constexpr ErrorCode code = ErrorCode::cf_unsupported;
    for (const char* key : {"attention_bias", "mlp_bias"})
      if (const auto value = find(key); value && to_bool(*value)) refuse(*value, code, "false");
    if (const auto value = find("hidden_act"); value && to_text(*value) != "silu") refuse(*value, code, "\"silu\"");
    if (const auto value = find("moe_layer_freq"); value && to_int(*value) != 1)
      refuse(*value, code, "1: every layer from first_k_dense_replace on has experts");
    // Rotary pairs in two halves would permute the rows of the query and key projections.
    if (const auto value = root_.find("rope_interleave"); value && (value->is_null() || !to_bool(*value)))
      refuse(*value, code, "true: rotary pairs are stored side by side");
    const auto heads = find("num_attention_heads"), kv_heads = find("num_key_value_heads");
    if (heads && kv_heads && to_int(*heads) != to_int(*kv_heads))
      refuse(*kv_heads, code,
             "num_attention_heads = " + std::to_string(to_int(*heads)) + ": latent attention has no grouped heads");
  }

  void read_shape(ModelConfig& m) const {
    m.vocab = integer("vocab_size");
    m.hidden = integer("hidden_size");
    m.layers = integer("num_hidden_layers");
    m.dense_hidden = integer("intermediate_size");
    m.mtp_layers = int_or(find_value(root_, {"num_nextn_predict_layers", "num_mtp_layers"}), 0);
    m.context = integer("max_position_embeddings");
    m.norm_epsilon = number_or(find("rms_norm_eps"), 1e-6);
    m.tied_embeddings = bool_or(find("tie_word_embeddings"), false);
  }

  void read_attention(AttentionConfig& a) const {
    a.heads = integer("num_attention_heads");
    a.query_rank = integer_or_null("q_lora_rank", 0, "an integer, or null for queries without a latent");
    if (const auto rank = find("q_lora_rank"); rank && a.query_rank == 0)
      refuse(*rank, ErrorCode::cf_range, "null or an integer from 1 to 65536");
    a.latent_rank = integer("kv_lora_rank");
    a.nope_dim = integer("qk_nope_head_dim");
    a.rope_dim = integer("qk_rope_head_dim");
    a.value_dim = integer("v_head_dim");
  }

  void read_experts(ModelConfig& m) const {
    const auto experts = find_value(root_, {"n_routed_experts", "num_local_experts", "num_experts"});
    MoeConfig& e = m.moe;
    e.experts = experts ? to_int(*experts)
                        : integer_or_null("n_routed_experts", 0, "an integer, or null for a model without experts");
    if (e.experts == 0) {
      m.dense_layers = m.layers;
      return;
    }
    m.dense_layers = integer("first_k_dense_replace");
    e.top_k = integer("num_experts_per_tok");
    e.hidden = integer("moe_intermediate_size");
    e.shared_experts = integer_or_null("n_shared_experts", 0, "an integer, or null for none");

    static constexpr Word<Scoring> scorings[] = {{"sigmoid", Scoring::sigmoid}, {"softmax", Scoring::softmax}};
    static constexpr Word<Selection> selections[] = {{"greedy", Selection::greedy},
                                                     {"group_limited_greedy", Selection::group_limited_greedy},
                                                     {"noaux_tc", Selection::noaux_tc}};
    const auto scoring = find("scoring_func"), selection = find("topk_method");
    e.scoring = v2_ ? Scoring::softmax : Scoring::sigmoid;
    e.selection = v2_ ? Selection::greedy : Selection::noaux_tc;
    if (scoring) e.scoring = one_of(*scoring, scorings, ErrorCode::cf_unsupported);
    if (selection) e.selection = one_of(*selection, selections, ErrorCode::cf_unsupported);
    e.normalize = bool_or(find("norm_topk_prob"), !v2_);
    const auto scale = find("routed_scaling_factor");
    if (!scale && !v2_) refuse_missing(root_, "routed_scaling_factor", "a number");
    e.scale = number_or(scale, 1.0);
    e.groups = group_count("n_group", e.selection);
    e.top_groups = group_count("topk_group", e.selection);
    // The published V2 code scales only what it does not normalise; later code scales without normalising.
    if (v2_ && e.normalize && e.scale != 1.0)
      refuse(*scale, ErrorCode::cf_unsupported,
             "1 for a deepseek_v2 with norm_topk_prob, where published programs disagree on its meaning");
  }

  /// Null means no groups. Where groups matter for the selection, the key must be there.
  [[nodiscard]] int group_count(const char* key, Selection selection) const {
    if (selection == Selection::greedy) return int_or(find(key), 1);
    return integer_or_null(key, 1, "an integer, or null for no groups");
  }

  /// `rope_theta` and `rope_scaling`, or the newer `rope_parameters` which holds both.
  void read_rope(RopeConfig& r) const {
    const auto scaling = find("rope_parameters") ? find("rope_parameters") : find("rope_scaling");
    const auto base = find("rope_theta");
    r.base = number_or(base, 10000.0);
    if (!scaling) return;
    if (!scaling->is_object()) refuse(*scaling, ErrorCode::cf_type, "an object or null");
    const auto value = [&](const char* key) { return find_value(*scaling, {key}); };
    if (const auto inner = value("rope_theta")) {
      r.base = to_number(*inner);
      if (base && to_number(*base) != r.base)
        refuse(*inner, ErrorCode::cf_rope, "the number that \"rope_theta\" has, " + config_text(to_number(*base)));
    }
    static constexpr Word<bool> types[] = {{"yarn", true}, {"default", false}};
    auto type = value("rope_type");
    if (const auto old = value("type"); old && type && to_text(*old) != to_text(*type))
      refuse(*old, ErrorCode::cf_rope, "what \"rope_type\" is, \"" + to_text(*type) + "\"");
    else if (!type)
      type = old;
    if (!type && !value("factor")) return;
    if (!type) refuse_missing(*scaling, "type", "\"yarn\" or \"default\"");
    if (!one_of(*type, types, ErrorCode::cf_rope_unsupported)) return;

    r.factor = to_number(require_value(*scaling, "factor", "a number"));
    r.beta_fast = number_or(value("beta_fast"), 32.0);
    r.beta_slow = number_or(value("beta_slow"), 1.0);
    r.mscale = number_or(value("mscale"), 1.0);
    r.mscale_all_dim = number_or(value("mscale_all_dim"), 0.0);
    r.original_context = to_int(require_value(*scaling, "original_max_position_embeddings", "an integer"));
    if (const auto factor = value("attention_factor"))
      refuse(*factor, ErrorCode::cf_rope_unsupported, "null: it follows from mscale and mscale_all_dim");
    if (const auto truncate = value("truncate"); truncate && !to_bool(*truncate))
      refuse(*truncate, ErrorCode::cf_rope_unsupported, "true");
  }

  [[nodiscard]] std::optional<QuantizationConfig> quantization() const {
    constexpr ErrorCode code = ErrorCode::cf_quant;
    const auto q = find("quantization_config");
    if (!q) return std::nullopt;
    if (!q->is_object()) refuse(*q, ErrorCode::cf_type, "an object or null");
    static constexpr Word<int> methods[] = {{"fp8", 0}, {"compressed-tensors", 1}}, formats[] = {{"e4m3", 0}},
                               schemes[] = {{"dynamic", 0}};
    if (one_of(require_value(*q, "quant_method", "\"fp8\" or \"compressed-tensors\""), methods, code) == 1) {
      static constexpr Word<int> packings[] = {{"mxfp4-pack-quantized", 0}};
      (void)one_of(require_value(*q, "format", "\"mxfp4-pack-quantized\""), packings, code);
      return QuantizationConfig{.fp8 = false, .block_rows = 1, .block_cols = 32};
    }
    if (const auto format = find_value(*q, {"fmt"})) (void)one_of(*format, formats, code);
    if (const auto scheme = find_value(*q, {"activation_scheme"})) (void)one_of(*scheme, schemes, code);
    QuantizationConfig out;
    const auto block = q->find("weight_block_size");
    if (!block) return out;  // 128 x 128 is the documented default
    constexpr const char* expected = "two integers from 1 to 65536 such as [128, 128]";
    if (!block->is_array()) refuse(*block, code, expected);
    if (block->size() != 2)
      block->fail(
          code, "has " + std::to_string(block->size()) + " elements, expected " + expected + std::string(config_hint));
    for (std::size_t i = 0; i < 2; ++i) {
      const Json side = (*block)[i];
      if (!side.is_integer() || side.integer() < 1 || side.integer() > 1 << 16) refuse(side, code, expected);
      (i == 0 ? out.block_rows : out.block_cols) = static_cast<int>(side.integer());
    }
    return out;
  }

  [[nodiscard]] DType dtype() const {
    static constexpr Word<DType> types[] = {
        {"bfloat16", DType::bf16}, {"float16", DType::f16}, {"float32", DType::f32}, {"float8_e4m3fn", DType::f8_e4m3}};
    const auto value = find_value(root_, {"dtype", "torch_dtype"});
    return value ? one_of(*value, types, ErrorCode::cf_unsupported) : DType::bf16;
  }

  Json root_;
  bool v2_ = false;
};

}  // namespace detail::published

/// Reads the text of a config.json. `path` is only named in messages. Throws Error with the codes cf_*.
[[nodiscard]] inline PublishedConfig parse_config(std::string_view json, const std::string& path = "config.json") {
  return detail::published::ConfigReader(json, path).read();
}

/// Reads `folder`/config.json, at most 1 MiB. Throws as `read_text` and `parse_config` do.
[[nodiscard]] inline PublishedConfig read_config(const std::string& folder) {
  const std::string path = path_in(folder, "config.json");
  return parse_config(read_text(path, 1 << 20), path);
}

/// Throws cf_static_mismatch, once and with every difference, when the file describes another model than `Spec`.
template <class Spec>
void check_config(const PublishedConfig& published) {
  static_assert(config_problem(Spec::config) == nullptr,
                "Spec::config is no possible model: see core/config_check.hpp");
  const std::string list = differences(canonical(Spec::config), canonical(published.model));
  if (list.empty()) return;
  throw Error(ErrorCode::cf_static_mismatch,
              "the program was compiled for another model than this file describes:\n" + list +
                  "Use the folder of the right model, or let CMake write the Spec: "
                  "guild_add_spec(<target> CONFIG <folder>/config.json NAME <Name>)",
              {published.path, {}, -1});
}

}  // namespace guild::inline v1
