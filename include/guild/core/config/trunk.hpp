// The numbers that every model has, whatever its layers are made of.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <guild/core/config/field.hpp>

namespace guild {
inline namespace v1 {

/// What a norm's weight means.
enum class NormGain : std::uint8_t {
  weight,           ///< rows are multiplied by it: Llama, DeepSeek and most others
  one_plus_weight,  ///< by 1 + weight, so that weights begin with 0: Gemma, Qwen3-Next
  one,  ///< there is no weight: the heads' queries of DeepSeek-V4. Not for a trunk, whose norms have weights
};
[[nodiscard]] constexpr std::string_view name(NormGain gain) noexcept {
  return gain == NormGain::weight ? "weight" : gain == NormGain::one ? "one" : "one_plus_weight";
}

/// Where a layer normalises, of its mixer and of its feed-forward alike.
enum class NormPlace : std::uint8_t {
  before,            ///< what goes in: x += f(norm(x)), as Llama and most others
  before_and_after,  ///< also what comes out, before it is added: x += post_norm(f(norm(x))), as Gemma 2 and 3
};
[[nodiscard]] constexpr std::string_view name(NormPlace place) noexcept {
  return place == NormPlace::before ? "before" : "before_and_after";
}

/// Root-mean-square normalisation (arXiv 1910.07467).
struct NormConfig {
  double epsilon = 1e-6;  ///< `rms_norm_eps`
  NormGain gain = NormGain::weight;
  NormPlace place = NormPlace::before;
  friend constexpr bool operator==(const NormConfig&, const NormConfig&) = default;
};

/// What rows of the embedding are multiplied by.
enum class EmbeddingScale : std::uint8_t {
  one,
  root_of_hidden,  ///< sqrt(hidden_size), rounded to the type that the table is stored in: Gemma
};
[[nodiscard]] constexpr std::string_view name(EmbeddingScale scale) noexcept {
  return scale == EmbeddingScale::one ? "one" : "root_of_hidden";
}

/// A decoder from its embedding to its head.
struct TrunkConfig {
  int vocab = 32000;             ///< `vocab_size`: rows of the embedding
  int hidden = 2048;             ///< `hidden_size`
  int layers = 9;                ///< `num_hidden_layers`, without the prediction layers
  int mtp_layers = 0;            ///< `num_nextn_predict_layers`, stored after the main layers
  int context = 4096;            ///< `max_position_embeddings`
  bool tied_embeddings = false;  ///< `tie_word_embeddings`
  EmbeddingScale embedding_scale = EmbeddingScale::one;
  NormConfig norm{};  ///< of the layers, of what they normalise within, and of the head
  friend constexpr bool operator==(const TrunkConfig&, const TrunkConfig&) = default;

  static constexpr ConfigPart part = {"TrunkConfig", "config"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"vocab_size", "vocab"}, c.vocab...);
    f(ConfigField{"hidden_size", "hidden"}, c.hidden...);
    f(ConfigField{"num_hidden_layers", "layers"}, c.layers...);
    f(ConfigField{"num_nextn_predict_layers", "mtp_layers", Absent::as_default}, c.mtp_layers...);
    f(ConfigField{"max_position_embeddings", "context"}, c.context...);
    f(ConfigField{"tie_word_embeddings", "tied_embeddings", Absent::as_default}, c.tied_embeddings...);
    f(ConfigField{"", "embedding_scale"}, c.embedding_scale...);
    f(ConfigField{"rms_norm_eps", "norm.epsilon", Absent::as_default}, c.norm.epsilon...);
    f(ConfigField{"", "norm.gain"}, c.norm.gain...);
    f(ConfigField{"", "norm.place"}, c.norm.place...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    // The upper limits keep every product of this library inside 63 bits; they are far above any published model.
    const detail::ConfigRange ranges[] = {
        {"vocab_size", "vocab_size must be from 1 to 134217728", vocab, 1, 1 << 27},
        {"hidden_size", "hidden_size must be from 1 to 1048576", hidden, 1, 1 << 20},
        {"num_hidden_layers", "num_hidden_layers must be from 1 to 1024", layers, 1, 1 << 10},
        {"num_nextn_predict_layers", "num_nextn_predict_layers must be from 0 to 16", mtp_layers, 0, 16},
        {"max_position_embeddings", "max_position_embeddings must be from 1 to 268435456", context, 1, 1 << 28},
    };
    if (auto problem = detail::problem_of(ranges)) return problem;
    if (!(norm.epsilon > 0.0) || !(norm.epsilon < 1.0))
      return ConfigProblem{ErrorCode::cf_range, "rms_norm_eps", "rms_norm_eps must be above 0 and below 1",
                           norm.epsilon};
    if (mtp_layers != 0 && embedding_scale != EmbeddingScale::one)
      return ConfigProblem{ErrorCode::cf_range, "num_nextn_predict_layers",
                           "num_nextn_predict_layers must be 0 where rows of the embedding are scaled",
                           double(mtp_layers)};
    return std::nullopt;
  }
};

}  // namespace v1
}  // namespace guild
