// What the files of GLM-5 have in common: the keys of config.json. Tensors are named as those of DeepSeek-V3.2.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/deepseek_v32_family.hpp>

namespace guild {
inline namespace v1 {

/// DeepSeek-V3.2 whose index turns neighbouring pairs, and some of whose layers may see the choice of another layer's
/// index.
struct GlmMoeDsaFamily : detail::SparseFamily {
  static constexpr std::string_view model_types[] = {"glm_moe_dsa"};
  static constexpr std::string_view base = "Glm5Defaults", header = "guild/models/glm5.hpp";

  /// Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}}, {}, {.pairs = RopePairs::interleaved}, {}, {.experts = 0}, {.shared = 0}};
  }

  /// Routers are always of one kind, which some of the files do not say.
  static constexpr auto keys = key_rules({{"scoring_func", ""}, {"topk_method", ""}}, silu_keys);

  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"mlp_bias", "false", "", true, false},
      {"hidden_act", "\"silu\""},
      {"moe_layer_freq", "1", "every layer from first_k_dense_replace on has experts"},
      {"scoring_func", "\"sigmoid\""},
      {"topk_method", "\"noaux_tc\""},
      {"layer_types", "\"indexed_attention\"", "attention of every layer sees what an index chooses", true, false},
      {"rope_interleave", "true", "rotary pairs are stored side by side", false},
      {"indexer_rope_interleave", "true", "rotary pairs are stored side by side", false},
  };

  /// Which layers have an index of their own says a list, else a pattern, else every how many of them do.
  template <class File>
  static void complete(Config& config, const File& file) {
    SparseFamily::complete(config, file);
    const int layers = std::get<TrunkConfig>(config).layers;
    IndexerTypes& types = std::get<IndexerConfig>(config).types;
    const auto refuse_size = [&](std::string_view key, std::string_view what) {
      file.refuse(key, {"num_hidden_layers = ", layers, what});
    };
    if (types.size() > 0) {
      if (types.size() != layers) refuse_size("indexer_types", " words");
    } else if (const auto pattern = file.text("index_topk_pattern")) {
      if (pattern->size() != static_cast<std::size_t>(layers) || layers > IndexerTypes::most ||
          pattern->find_first_not_of("FS") != std::string::npos)
        refuse_size("index_topk_pattern", " letters, F where a layer has an index of its own and S where it has none");
      for (const char one : *pattern) types.add(one == 'F' ? IndexerType::full : IndexerType::shared);
    } else {
      int period = 1, skipped = 2;
      file.read({"index_topk_freq", "", Absent::as_default}, period);
      file.read({"index_skip_topk_offset", "", Absent::as_default}, skipped);
      if (skipped < 0) file.refuse("index_skip_topk_offset", "0 or more");
      if (period < 1 || (period > 1 && layers > IndexerTypes::most)) file.refuse("index_topk_freq", "1 or more");
      for (int i = 0; period > 1 && i < layers; ++i)
        types.add(std::max(i - skipped + 1, 0) % period == 0 ? IndexerType::full : IndexerType::shared);
    }
    if (!types.has(IndexerType::shared)) types = {};  // as files say that have no list
  }

  static std::string_view model_type(const Config&) { return "glm_moe_dsa"; }
  static std::string_view architecture(std::string_view) { return "GlmMoeDsaForCausalLM"; }
};

}  // namespace v1
}  // namespace guild
