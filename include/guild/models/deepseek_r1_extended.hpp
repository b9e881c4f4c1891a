// DeepSeek-R1 extended: attention of two kinds, and inner layers that run on merged tokens. No published model has
// these parts. All else is as in the model that is extended, whose folders load.
//
//   struct MySpec : guild::DeepSeekR1ExtendedDefaults<guild::MiniR1Spec> {
//     static constexpr guild::LayerSpan span = {1, 3};
//     template <class S> using Merging = guild::SoftTokenMerging<S, Careful>;
//   };
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/models/deepseek_family.hpp>
#include <guild/models/deepseek_r1.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/layer_list.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/moe.hpp>
#include <guild/modules/soft_token_merging.hpp>
#include <guild/modules/stack.hpp>
#include <guild/modules/token_inflation.hpp>
#include <guild/modules/weighted_keys.hpp>

namespace guild {
inline namespace v1 {

/// Layers [begin, end) of a model; none if both are equal.
struct LayerSpan {
  int begin = 0;
  int end = 0;
  [[nodiscard]] constexpr bool has(int layer) const { return begin <= layer && layer < end; }
  friend constexpr bool operator==(const LayerSpan&, const LayerSpan&) = default;
};

/// All layers but the first and the last four, or a quarter of a small model's each.
[[nodiscard]] constexpr LayerSpan inner_layers(int layers) {
  const int outer = std::min(std::max(layers / 4, 1), (layers - 1) / 2);
  return {std::min(outer, 4), layers - std::min(outer, 4)};
}
/// One layer of the span that sees all keys, then `period` - 1 that see a window, and so on; windows outside.
[[nodiscard]] constexpr LayerTypes hybrid_layers(int layers, const LayerSpan& span, int period) {
  LayerTypes types;
  for (int i = 0; i < layers && i < LayerTypes::most; ++i)
    types.add(span.has(i) && (i - span.begin) % period == 0 ? LayerType::full_attention : LayerType::sliding_attention);
  return types;
}

/// Reads the files of the models that are extended. Those that are written have a model type of their own, so that
/// programs which know nothing of the extensions refuse them. A config.json says the numbers of the published model;
/// what is merged, and how, are types, which the Spec alone says.
struct DeepSeekR1ExtendedFamily : DeepSeekFamily {
  static constexpr std::string_view written_type = "deepseek_r1_extended";
  static constexpr std::string_view model_types[] = {written_type, "deepseek_v3", "deepseek_v2", "kimi_k2"};
  static constexpr std::string_view base = "DeepSeekR1ExtendedDefaults<SpecDefaults>",
                                    header = "guild/models/deepseek_r1_extended.hpp";
  static std::string_view model_type(const Config&) { return written_type; }
  static std::string_view architecture(std::string_view) { return "DeepseekR1ExtendedForCausalLM"; }
};

struct DeepSeekR1ExtendedNames : DeepSeekNames {
  static constexpr std::string_view extensions[] = {
      "layers.*.merging",        "layers.*.inflation",       "layers.*.span.*.merging",   "layers.*.span.*.inflation",
      "layers.*.mixer.far_bias", "layers.*.mixer.head_gate", "layers.*.mixer.branch_gate"};
};

namespace detail {

template <class S>
struct ExtendedLayers {
  static constexpr int layers = S::config.layers, dense = layers - expert_layers(config_of<S>);
  static constexpr LayerSpan span = S::span;
  static_assert(0 <= span.begin && span.begin <= span.end && span.end <= layers,
                "DeepSeekR1Extended: span must be layers of the model, 0 <= span.begin <= span.end <= config.layers");
  static_assert(S::windows.types.size() == 0 || S::windows.types.size() == layers,
                "DeepSeekR1Extended: windows.types must name config.layers layers, or none: see hybrid_layers");
  static_assert(!S::windows.types.has(LayerType::compressed_sparse_attention) &&
                    !S::windows.types.has(LayerType::heavily_compressed_attention),
                "DeepSeekR1Extended: windows.types has the letters f and s alone");
  static_assert(
      S::windows.rope_base == 0.0,
      "DeepSeekR1Extended: windows.rope_base is not read; name it in LocalAttention, with sliding_attention<S>");
  static_assert(S::period > 0, "DeepSeekR1Extended: period must be positive");
  /// Where layers that see all keys are looked for.
  static constexpr LayerSpan hybrid = span.begin == span.end ? LayerSpan{0, layers} : span;

  /// What layer i is, of the four below.
  static constexpr int kind(int i) {
    const LayerTypes types = S::windows.types.size() > 0 ? S::windows.types : hybrid_layers(layers, hybrid, S::period);
    return (types[i] == LayerType::full_attention ? 0 : 1) + (i < dense ? 0 : 2);
  }
  template <int Begin, int End>
  static constexpr auto kinds = [] {
    std::array<int, End - Begin> kinds{};
    for (int i = Begin; i < End; ++i) kinds[static_cast<std::size_t>(i - Begin)] = kind(i);
    return kinds;
  }();
  template <int Begin, int End, class Global, class Near>
  static auto part() {
    if constexpr (Begin == End)
      return std::type_identity<Segment<Block<S, Global, Moe<S>>, 0>>{};
    else
      return std::type_identity<
          LayerList<kinds<Begin, End>, Block<S, Global, DenseFeedForward<S>>, Block<S, Near, DenseFeedForward<S>>,
                    Block<S, Global, Moe<S>>, Block<S, Near, Moe<S>>>>{};
  }
  using Global = typename S::template GlobalAttention<S>;
  using Near = typename S::template LocalAttention<S>;
  template <int Begin, int End>
  using OfTokens = typename decltype(part<Begin, End, Global, Near>())::type;
  template <int Begin, int End>
  using OfSlots = typename decltype(part<Begin, End, typename S::template OnSlots<Global>,
                                         typename S::template OnSlots<Near>>())::type;

  static auto whole() {
    if constexpr (span.begin == span.end)
      return std::type_identity<OfTokens<0, layers>>{};
    else
      return std::type_identity<Stack<
          OfTokens<0, span.begin>,
          MergeSpan<OfSlots<span.begin, span.end>, typename S::template Merging<S>, typename S::template Inflation<S>>,
          OfTokens<span.end, layers>>>{};
  }
  using type = typename decltype(whole())::type;
};

}  // namespace detail

/// Base of Specs that extend `Base`, a Spec of DeepSeek's kind: its numbers, and the choices below.
template <class Base>
struct DeepSeekR1ExtendedDefaults : Base {
  using Family = DeepSeekR1ExtendedFamily;
  using Names = DeepSeekR1ExtendedNames;

  static constexpr LayerSpan span = inner_layers(Base::config.layers);  ///< layers on merged tokens
  /// Of layers that see no more. Types are those of all layers, or none: hybrid_layers(config.layers, span, period).
  /// Where layers see slots, so many slots.
  static constexpr WindowConfig windows = {.window = 1024};
  static constexpr int period = 6;
  static constexpr Index pinned = 4;  ///< first keys that those layers see too
  static constexpr Index near = 128;  ///< keys without a bias in layers that see all

  template <class S>
  using GlobalAttention = Gated<Mla<S>, FarBiasGate<S::near>>;
  template <class S>
  using LocalAttention = Local<Mla<S>, S::windows.window, S::pinned>;
  template <class Mixer>
  using OnSlots = Weighted<Mixer>;  ///< attention inside the span
  template <class S>
  using Merging = SoftTokenMerging<S>;
  template <class S>
  using Inflation = TokenInflation<S>;
  template <class S>
  using Layers = typename detail::ExtendedLayers<S>::type;
};

/// DeepSeek-R1's numbers: 4 layers at full length, 53 on slots, of which 9 see all, and 4 at full length.
struct DeepSeekR1ExtendedSpec : DeepSeekR1ExtendedDefaults<DeepSeekR1Spec> {};

}  // namespace v1
}  // namespace guild
