// config.json of a Hugging Face folder: read, checked, and compared with the numbers a program was compiled for.
//
// Understood are the model types deepseek_v3 (V3, R1, Moonlight), deepseek_v2 and kimi_k2, in the published spelling and in
// the one newer versions of transformers write. A key that shapes the model must be there; only what the two configuration
// classes document has a default. Unknown keys are ignored; keys that change the arithmetic in a way this library does not
// do are refused.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/config.hpp>
#include <guild/core/config_compare.hpp>
#include <guild/core/error.hpp>
#include <guild/core/types.hpp>
#include <guild/io/json.hpp>
#include <guild/io/text_file.hpp>

namespace guild::inline v1 {

/// `quantization_config`: weights of linear layers stored as fp8 e4m3, each block with one float scale.
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
  DType dtype = DType::bf16;   ///< `torch_dtype` or `dtype`: of the weights that are not quantised
  std::optional<int> bos{};    ///< `bos_token_id`
  std::vector<int> eos{};      ///< `eos_token_id`: one or several, or none
  std::optional<int> pad{};    ///< `pad_token_id`
};

namespace detail {

/// Reads one config.json; a class only so that the helpers share the document.
class ConfigReader {
 public:
  ConfigReader(std::string_view json, const std::string& path)
      : root_(Json::parse(json, {.path = path, .max_depth = 16})) {}

  PublishedConfig read() {
    PublishedConfig out;
    out.path = root_.rules().path;
    out.model_type = model_type();
    v2_ = out.model_type == "deepseek_v2";
    refuse_unsupported();
    read_shape(out.model);
    read_attention(out.model.attention);
    read_experts(out.model);
    read_rope(out.model.rope);
    out.quantization = quantization();
    out.dtype = dtype();
    validate(out.model, out.path);
    read_tokens(out);
    return out;
  }

 private:
  // -- one value ------------------------------------------------------------------------------------------------------

  /// The member under any of its spellings, or nothing; a null counts as nothing. Two spellings must agree.
  [[nodiscard]] std::optional<Json> find(const Json& object, std::initializer_list<const char*> spellings) const {
    std::optional<Json> found;
    for (const char* spelling : spellings) {
      auto member = object.find(spelling);
      if (!member || member->is_null()) continue;
      if (found && found->is_number() && member->is_number() && found->number() != member->number())
        member->fail(ErrorCode::cf_duplicate, "is " + config_text(member->number()) + ", but \"" + found->where() +
                                                  "\", another spelling of it, is " + config_text(found->number()) +
                                                  ". Keep one of the two");
      if (!found) found = std::move(member);
    }
    return found;
  }
  [[nodiscard]] std::optional<Json> find(const char* key) const { return find(root_, {key}); }

  [[nodiscard]] Json require(const Json& object, std::initializer_list<const char*> spellings,
                             std::string_view expected) const {
    if (auto member = find(object, spellings)) return *member;
    const std::string prefix = object.where().empty() ? "" : object.where() + ".";
    throw Error(ErrorCode::cf_missing, "is missing, expected " + std::string(expected) +
                    ". It has no safe default; use the config.json that was published with the weights",
                {root_.rules().path, prefix + *spellings.begin(), -1});
  }

  static int to_int(const Json& value) {
    if (!value.is_integer()) expected(value, "an integer");
    const std::int64_t wide = value.integer();
    if (wide > std::numeric_limits<int>::max())
      value.fail(ErrorCode::cf_limit, "is " + std::to_string(wide) + ", expected at most 2147483647. " + hint);
    if (wide < std::numeric_limits<int>::min())
      value.fail(ErrorCode::cf_range, "is " + std::to_string(wide) + ", expected no negative number. " + hint);
    return static_cast<int>(wide);
  }
  static double to_number(const Json& value) {
    if (!value.is_number()) expected(value, "a number");
    return value.number();
  }
  static bool to_bool(const Json& value) {
    if (!value.is_bool()) expected(value, "true or false");
    return value.boolean();
  }
  static std::string to_string(const Json& value) {
    if (!value.is_string()) expected(value, "a string");
    return std::string(value.string());
  }
  [[noreturn]] static void expected(const Json& value, std::string_view what) {
    value.fail(ErrorCode::cf_type, "is " + shown(value) + ", expected " + std::string(what) + ". " + hint);
  }
  /// The value as it stands in the file, cut when it is long.
  static std::string shown(const Json& value) {
    if (value.is_string()) return "the string \"" + std::string(value.string().substr(0, 40)) + "\"";
    if (value.is_integer()) return "the integer " + std::to_string(value.integer());
    if (value.is_number()) return "the number " + config_text(value.number());
    return std::string(value.kind());
  }

  [[nodiscard]] int integer(const char* key) const { return to_int(require(root_, {key}, "an integer")); }
  [[nodiscard]] int integer_or(const char* key, int standard) const {
    const auto value = find(key);
    return value ? to_int(*value) : standard;
  }
  [[nodiscard]] static double number_or(const std::optional<Json>& value, double standard) {
    return value ? to_number(*value) : standard;
  }
  [[nodiscard]] bool bool_or(const char* key, bool standard) const {
    const auto value = find(key);
    return value ? to_bool(*value) : standard;
  }

  /// Text that must be one of a few words.
  template <class T, std::size_t N>
  static T one_of(const Json& value, const std::array<std::pair<std::string_view, T>, N>& words, ErrorCode code) {
    const std::string text = to_string(value);
    std::string known;
    for (const auto& [word, meaning] : words) {
      if (word == text) return meaning;
      known += (known.empty() ? "" : ", ") + std::string(word);
    }
    value.fail(code, "is \"" + text.substr(0, 40) + "\", expected one of " + known +
                         ". A model that needs another value cannot be run by this version");
  }

  // -- the parts ------------------------------------------------------------------------------------------------------

  [[nodiscard]] std::string model_type() const {
    const Json value = require(root_, {"model_type"}, "deepseek_v3, deepseek_v2 or kimi_k2");
    static constexpr std::array<std::pair<std::string_view, int>, 3> known = {
        {{"deepseek_v3", 3}, {"deepseek_v2", 2}, {"kimi_k2", 3}}};
    (void)one_of(value, known, ErrorCode::cf_model_type);
    return to_string(value);
  }

  /// Keys that would change the arithmetic or the names of the weights.
  void refuse_unsupported() const {
    const auto refuse = [](const Json& value, const std::string& only) {
      value.fail(ErrorCode::cf_unsupported, "is " + shown(value) + ", supported is only " + only +
                                                ". No published model of these types needs another value; check the file");
    };
    for (const char* key : {"attention_bias", "mlp_bias"})
      if (const auto value = find(key); value && to_bool(*value)) refuse(*value, "false");
    if (const auto value = find("hidden_act"); value && to_string(*value) != "silu") refuse(*value, "\"silu\"");
    if (const auto value = find("moe_layer_freq"); value && to_int(*value) != 1) refuse(*value, "1");
    // Half-split rotary pairs permute the rows of the query and key projections; the published weights are interleaved.
    if (const auto value = root_.find("rope_interleave"); value && (value->is_null() || !to_bool(*value)))
      refuse(*value, "true");
    const auto heads = find("num_attention_heads"), kv_heads = find("num_key_value_heads");
    if (heads && kv_heads && to_int(*heads) != to_int(*kv_heads))
      refuse(*kv_heads, "the same number as num_attention_heads, " + std::to_string(to_int(*heads)) +
                            ", because latent attention has no grouped heads");
  }

  void read_shape(ModelConfig& m) const {
    m.vocab = integer("vocab_size");
    m.hidden = integer("hidden_size");
    m.layers = integer("num_hidden_layers");
    m.dense_hidden = integer("intermediate_size");
    m.context = integer("max_position_embeddings");
    const auto mtp = find(root_, {"num_nextn_predict_layers", "num_mtp_layers"});
    m.mtp_layers = mtp ? to_int(*mtp) : 0;
    m.norm_epsilon = number_or(find("rms_norm_eps"), 1e-6);
    m.tied_embeddings = bool_or("tie_word_embeddings", false);
  }

  void read_attention(AttentionConfig& a) const {
    a.heads = integer("num_attention_heads");
    const auto query_rank = root_.find("q_lora_rank");
    if (!query_rank) (void)require(root_, {"q_lora_rank"}, "an integer, or null for queries without a latent");
    a.query_rank = query_rank->is_null() ? 0 : to_int(*query_rank);
    if (!query_rank->is_null() && a.query_rank < 1)
      query_rank->fail(ErrorCode::cf_range, "is " + std::to_string(a.query_rank) +
                                                ", expected null or an integer from 1 to 65536. " + hint);
    a.latent_rank = integer("kv_lora_rank");
    a.nope_dim = integer("qk_nope_head_dim");
    a.rope_dim = integer("qk_rope_head_dim");
    a.value_dim = integer("v_head_dim");
  }

  void read_experts(ModelConfig& m) const {
    static constexpr std::array<const char*, 3> spellings = {"n_routed_experts", "num_local_experts", "num_experts"};
    // An explicit null says that every layer is dense; a missing key says nothing.
    const auto experts = find(root_, {spellings[0], spellings[1], spellings[2]});
    if (!experts && !root_.find(spellings[0]))
      (void)require(root_, {spellings[0]}, "an integer, or null for a model without experts");
    m.moe = {.experts = experts ? to_int(*experts) : 0};
    if (m.moe.experts == 0) {
      m.dense_layers = m.layers;
      return;
    }
    m.dense_layers = integer("first_k_dense_replace");
    MoeConfig& e = m.moe;
    e.top_k = integer("num_experts_per_tok");
    e.hidden = integer("moe_intermediate_size");
    const auto shared = root_.find("n_shared_experts");
    if (!shared) (void)require(root_, {"n_shared_experts"}, "an integer, or null for none");
    e.shared_experts = shared->is_null() ? 0 : to_int(*shared);

    static constexpr std::array<std::pair<std::string_view, Scoring>, 2> scorings = {
        {{"sigmoid", Scoring::sigmoid}, {"softmax", Scoring::softmax}}};
    static constexpr std::array<std::pair<std::string_view, Selection>, 3> selections = {
        {{"greedy", Selection::greedy},
         {"group_limited_greedy", Selection::group_limited_greedy},
         {"noaux_tc", Selection::noaux_tc}}};
    const auto scoring = find("scoring_func"), selection = find("topk_method");
    e.scoring = scoring ? one_of(*scoring, scorings, ErrorCode::cf_unsupported)
                        : (v2_ ? Scoring::softmax : Scoring::sigmoid);
    e.selection = selection ? one_of(*selection, selections, ErrorCode::cf_unsupported)
                            : (v2_ ? Selection::greedy : Selection::noaux_tc);
    e.normalize = bool_or("norm_topk_prob", !v2_);
    const auto scale = find("routed_scaling_factor");
    e.scale = scale || v2_ ? number_or(scale, 1.0) : to_number(require(root_, {"routed_scaling_factor"}, "a number"));
    e.groups = group_count("n_group", e.selection);
    e.top_groups = group_count("topk_group", e.selection);
    // The first published code of V2 scales only what it does not normalise, later code does both or neither.
    if (v2_ && e.normalize && e.scale != 1.0)
      scale->fail(ErrorCode::cf_unsupported, "is " + config_text(e.scale) + " while norm_topk_prob is true: for "
                  "deepseek_v2 the published programs disagree on what that means. Supported is one of the two");
  }

  /// Null means no groups. A selection by groups needs the key to be there.
  [[nodiscard]] int group_count(const char* key, Selection selection) const {
    if (const auto value = find(key)) return to_int(*value);
    if (selection != Selection::greedy && !root_.find(key)) (void)require(root_, {key}, "an integer, or null for no groups");
    return 1;
  }

  void read_rope(RopeConfig& r) const {
    std::optional<Json> scaling;
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      const auto value = find(key);
      if (!value) continue;
      if (!value->is_object()) expected(*value, "an object or null");
      if (!scaling || value->size() > scaling->size()) scaling = value;
    }
    const auto base = find("rope_theta"), inner_base = scaling ? find(*scaling, {"rope_theta"}) : std::nullopt;
    if (base && inner_base && to_number(*base) != to_number(*inner_base))
      inner_base->fail(ErrorCode::cf_rope, "is " + config_text(to_number(*inner_base)) + ", but \"rope_theta\" is " +
                                               config_text(to_number(*base)) + ". Keep one of the two");
    r.base = number_or(inner_base ? inner_base : base, 10000.0);
    if (!scaling) return;
    const auto type = find(*scaling, {"rope_type"}), old_type = find(*scaling, {"type"});
    if (type && old_type && to_string(*type) != to_string(*old_type))
      type->fail(ErrorCode::cf_rope, "is \"" + to_string(*type) + "\", but \"type\" is \"" + to_string(*old_type) +
                                         "\". Keep one of the two");
    static constexpr std::array<std::pair<std::string_view, bool>, 2> types = {{{"yarn", true}, {"default", false}}};
    const auto& either = type ? type : old_type;
    if (!either && scaling->find("factor")) (void)require(*scaling, {"type"}, "\"yarn\"");
    if (!either || !one_of(*either, types, ErrorCode::cf_rope_unsupported)) return;

    r.factor = to_number(require(*scaling, {"factor"}, "a number"));
    r.beta_fast = number_or(find(*scaling, {"beta_fast"}), 32.0);
    r.beta_slow = number_or(find(*scaling, {"beta_slow"}), 1.0);
    r.mscale = number_or(find(*scaling, {"mscale"}), 1.0);
    r.mscale_all_dim = number_or(find(*scaling, {"mscale_all_dim"}), 0.0);
    r.original_context = to_int(require(*scaling, {"original_max_position_embeddings"}, "an integer"));
    if (r.factor <= 0.0 || r.original_context <= 0) return;  // validate() names the key
    if (const auto value = find(*scaling, {"attention_factor"}))
      value->fail(ErrorCode::cf_rope_unsupported, "is " + shown(*value) + ", expected null: the factor follows from "
                                                  "mscale and mscale_all_dim. Remove the key");
    if (const auto value = find(*scaling, {"truncate"}); value && !to_bool(*value))
      value->fail(ErrorCode::cf_rope_unsupported, "is false, supported is only true");
  }

  [[nodiscard]] std::optional<QuantizationConfig> quantization() const {
    const auto q = find("quantization_config");
    if (!q) return std::nullopt;
    if (!q->is_object()) expected(*q, "an object or null");
    const auto must_be = [&](const char* key, std::string_view word) {
      const auto value = find(*q, {key});
      if (value && to_string(*value) != word)
        value->fail(ErrorCode::cf_quant, "is " + shown(*value) + ", supported is only \"" + std::string(word) +
                                             "\". Use the weights as DeepSeek publishes them, or a bf16 copy");
    };
    (void)require(*q, {"quant_method"}, "\"fp8\"");
    must_be("quant_method", "fp8");
    must_be("fmt", "e4m3");
    must_be("activation_scheme", "dynamic");
    QuantizationConfig out;
    const auto block = q->find("weight_block_size");
    if (!block) return out;  // 128 x 128 is the documented default
    const auto bad = [&](const std::string& found) {
      block->fail(ErrorCode::cf_quant, "is " + found + ", expected two integers from 1 to 65536 such as [128, 128]. " + hint);
    };
    if (block->is_null()) bad("null, which means one scale a tensor");
    if (!block->is_array()) bad(shown(*block));
    if (block->size() != 2) bad("an array of " + std::to_string(block->size()));
    for (std::size_t i = 0; i < 2; ++i) {
      const Json side = (*block)[i];
      if (!side.is_integer() || side.integer() < 1 || side.integer() > 1 << 16) bad("an array that holds " + shown(side));
      (i == 0 ? out.block_rows : out.block_cols) = static_cast<int>(side.integer());
    }
    return out;
  }

  [[nodiscard]] DType dtype() const {
    const auto value = find(root_, {"dtype", "torch_dtype"});
    if (!value) return DType::bf16;
    static constexpr std::array<std::pair<std::string_view, DType>, 4> types = {{{"bfloat16", DType::bf16},
                                                                                  {"float16", DType::f16},
                                                                                  {"float32", DType::f32},
                                                                                  {"float8_e4m3fn", DType::f8_e4m3}}};
    return one_of(*value, types, ErrorCode::cf_unsupported);
  }

  [[nodiscard]] static int token(const Json& value, int vocab) {
    const int id = to_int(value);
    if (id < 0 || id >= vocab)
      value.fail(ErrorCode::cf_range, "is token " + std::to_string(id) + ", expected 0 to vocab_size - 1 = " +
                                          std::to_string(vocab - 1) + ". " + hint);
    return id;
  }

  void read_tokens(PublishedConfig& out) const {
    const int vocab = out.model.vocab;
    if (const auto bos = find("bos_token_id")) out.bos = token(*bos, vocab);
    // Some files write -1 for "no padding token".
    if (const auto pad = find("pad_token_id"); pad && to_int(*pad) != -1) out.pad = token(*pad, vocab);
    const auto eos = find("eos_token_id");
    if (!eos) return;
    if (!eos->is_array()) out.eos = {token(*eos, vocab)};
    else eos->for_each_element([&](const Json& id) { out.eos.push_back(token(id, vocab)); });
  }

  static inline const std::string hint = "Use the config.json that was published with the weights";

  Json root_;
  bool v2_ = false;
};

}  // namespace detail

/// Reads the text of a config.json. `path` is only named in messages. Throws Error with the codes cf_*.
[[nodiscard]] inline PublishedConfig parse_config(std::string_view json, const std::string& path = "config.json") {
  return detail::ConfigReader(json, path).read();
}

/// Reads `folder`/config.json, at most 1 MiB. Throws as `read_text_file` and `parse_config` do.
[[nodiscard]] inline PublishedConfig read_config(const std::string& folder) {
  const std::string path = folder + (folder.ends_with('/') ? "" : "/") + "config.json";
  return parse_config(read_text_file(path, 1 << 20, ErrorCode::cf_limit), path);
}

/// Throws cf_static_mismatch, once and with every difference, when the file describes another model than `Spec`.
template <class Spec>
void check_config(const PublishedConfig& published) {
  static_assert(config_problem(Spec::config) == nullptr, "Spec::config is not a possible model: see config_check.hpp");
  const std::string list = differences(Spec::config, published.model);
  if (list.empty()) return;
  throw Error(ErrorCode::cf_static_mismatch,
              "the program was compiled for another model than this file describes:\n" + list +
                  "Use the folder of the right model, or let CMake write the Spec: "
                  "guild_add_spec(<target> CONFIG <folder>/config.json NAME <Name>)",
              {published.path, {}, -1});
}

}  // namespace guild::inline v1
