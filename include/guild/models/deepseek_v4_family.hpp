// What the files of DeepSeek-V4 have in common: the keys of config.json. Names of tensors are in
// guild/models/deepseek_v4_names.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string_view>
#include <tuple>
#include <vector>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>

namespace guild {
inline namespace v1 {

/// One row per token as key and value of all heads, seen through a window and, in most layers, pooled; residual
/// streams; experts in all layers, those of the first ones by token id (DeepSeek-V4 report).
struct DeepSeekV4Family {
  static constexpr std::string_view model_types[] = {"deepseek_v4"};
  using Config = ModelConfig<TrunkConfig, SharedKvConfig, WindowConfig, CompressionConfig, IndexerConfig, HyperConfig,
                             HashConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "DeepSeekV4Defaults", header = "guild/models/deepseek_v4.hpp";

  /// Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-6}},
            {.rope = {.base = 160000.0, .mscale = 1.0, .mscale_all_dim = 1.0}},
            {.window = 128, .rope_base = 10000.0},
            {},
            {.pairs = RopePairs::interleaved},
            {},
            {},
            {.experts = 0, .scoring = Scoring::sqrt_softplus, .scale = 1.5},
            {.shared = 1, .activation = {.limit = 10.0}}};
  }

  static constexpr auto keys = key_rules({
      {"num_nextn_predict_layers", ""},  // `mtp.*` is not read
      {"qk_rope_head_dim", "qk_rope_head_dim", Absent::as_default},
      {"rope_theta", "compress_rope_theta"},
      {"rope_base", "rope_theta", Absent::as_default},
      {"indexer_types", ""},
      {"n_group", ""},
      {"topk_group", ""},
      {"scoring_func", ""},
      {"topk_method", ""},
      {"norm_topk_prob", ""},
      {"n_shared_experts", ""},
      {"hidden_act", ""},
      {"swiglu_alpha", ""},
  });
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"mlp_bias", "false", "", true, false},
      {"hidden_act", "\"silu\""},
      {"num_key_value_heads", "1", "all heads share one row"},
      {"n_shared_experts", "1", "one expert serves every token", false},
      {"norm_topk_prob", "true", "chosen weights are divided by their sum"},
      {"scoring_func", "\"sqrtsoftplus\""},
      {"topk_method", "\"noaux_tc\""},
  };
  static constexpr std::string_view rope_types[] = {"yarn"};
  static constexpr RopeKeys rope_keys = {
      .base = "compress_rope_theta", .within = "compress", .sliding = "main", .keeps_lengths = true};
  static constexpr LayerType layer_types[] = {LayerType::sliding_attention, LayerType::compressed_sparse_attention,
                                              LayerType::heavily_compressed_attention};

  template <class File>
  static void complete(Config& config, const File& file) {
    CompressionConfig& compression = std::get<CompressionConfig>(config);
    read_rate(file, "compress_rate_csa", "compressed_sparse_attention", compression.sparse_rate);
    read_rate(file, "compress_rate_hca", "heavily_compressed_attention", compression.heavy_rate);
    if (std::get<ExpertConfig>(config).activation.limit == 0.0) file.refuse("swiglu_limit", "a number above 0");
    complete_rotation(std::get<SharedKvConfig>(config), file);
    complete_kinds(config, file);
  }

  /// Keys that other programs want to see.
  template <class Put>
  static void complete_file(const Config& config, Put&& put) {
    const CompressionConfig& compression = std::get<CompressionConfig>(config);
    const LayerTypes& types = std::get<WindowConfig>(config).types;
    std::vector<int> ratios;
    for (int i = 0; i < types.size(); ++i) ratios.push_back(ratio_of(types[i]));
    if (compression == CompressionConfig{}) put("compress_ratios", ratios);
  }

  static std::string_view model_type(const Config&) { return "deepseek_v4"; }
  static std::string_view architecture(std::string_view) { return "DeepseekV4ForCausalLM"; }

 private:
  /// A rate has two spellings, which must not say two things.
  template <class File>
  static void read_rate(const File& file, const char* own, const char* kind, int& value) {
    int of_kind = 0, of_own = 0;
    if (!file.read_at({"compress_rates", kind}, of_kind)) return;
    if (file.read_at({own}, of_own) && of_own != of_kind)
      file.refuse("compress_rates", {"the number that \"", own, "\" has, ", of_own});
    value = of_kind;
  }

  /// The word for a kind in `compress_ratios`, whatever its rate is.
  static constexpr int ratio_of(LayerType type) {
    if (type == LayerType::sliding_attention) return 0;
    return type == LayerType::compressed_sparse_attention ? 4 : 128;
  }

  /// How much of a head turns says a width, or a factor that stands in several places.
  template <class File>
  static void complete_rotation(SharedKvConfig& attention, const File& file) {
    double factor = 1.0 / 8;
    const bool has_factor = file.read_at({"partial_rotary_factor"}, factor);
    const auto width = [&] {  // -1, which no head has, for factors that are none
      const double turning = attention.head_dim * factor;
      return turning >= 0.0 && turning <= attention.head_dim ? static_cast<int>(turning) : -1;
    };
    if (int said = 0; !file.read_at({"qk_rope_head_dim"}, said)) attention.rope_dim = width();
    const auto check = [&](const char* key) {
      if (width() != attention.rope_dim)
        file.refuse(key, {"a factor that makes ", attention.rope_dim, " of head_dim = ", attention.head_dim, " turn"});
    };
    if (has_factor) check("partial_rotary_factor");
    for (const char* kind : {rope_keys.sliding, rope_keys.within})
      if (file.read_at({"rope_parameters", kind, "partial_rotary_factor"}, factor)) check("rope_parameters");
  }

  /// Which layers compress, and which find experts by token id: lists of words, or what published files have.
  template <class File>
  static void complete_kinds(Config& config, const File& file) {
    const int layers = std::get<TrunkConfig>(config).layers;
    LayerTypes& types = std::get<WindowConfig>(config).types;
    if (types.size() == 0) {
      const std::vector<int> ratios = file.integers("compress_ratios");
      if (std::ssize(ratios) < layers)  // those of prediction layers may follow
        file.refuse("compress_ratios", {"num_hidden_layers = ", layers, " numbers or more"});
      for (int i = 0; i < std::min(layers, LayerTypes::most); ++i) {
        const auto of = std::ranges::find(layer_types, ratios[static_cast<std::size_t>(i)], ratio_of);
        if (of == std::end(layer_types)) file.refuse("compress_ratios", "0, 4 or 128 for each layer");
        types.add(*of);
      }
    }
    int& hashed = std::get<HashConfig>(config).layers;
    if (int said = 0; !file.read_at({"num_hash_layers"}, said))
      hashed = file.leading_words("mlp_layer_types", "hash_moe").value_or(hashed);
    hashed = std::min(hashed, layers);
    file.require_words("mlp_layer_types", layers, [&](int layer) { return layer < hashed ? "hash_moe" : "moe"; });
  }
};

}  // namespace v1
}  // namespace guild
