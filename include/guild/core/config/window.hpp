// Which layers see a window of keys, and how long it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <guild/core/config/field.hpp>
#include <guild/core/config/rope.hpp>

namespace guild {
inline namespace v1 {

/// What a layer's attention sees; the names are those of `layer_types` in config.json.
enum class LayerType : std::uint8_t {
  full_attention,                ///< all keys up to the token's own; letter f
  sliding_attention,             ///< a window of them; letter s
  compressed_sparse_attention,   ///< a window, and those pooled rows that an index chooses; letter c
  heavily_compressed_attention,  ///< a window, and all pooled rows; letter h
};
inline constexpr int layer_type_count = 4;

/// The spelling in `layer_types` of config.json.
[[nodiscard]] constexpr std::string_view name(LayerType type) noexcept {
  constexpr std::string_view names[layer_type_count] = {"full_attention", "sliding_attention",
                                                        "compressed_sparse_attention", "heavily_compressed_attention"};
  return names[static_cast<std::size_t>(type)];
}
/// One letter for a kind, as LayerTypes is written with.
[[nodiscard]] constexpr char letter(LayerType type) noexcept { return "fsch"[static_cast<std::size_t>(type)]; }

namespace detail {
/// Not constexpr: a list of layers that calls it does not compile.
void layer_types_are_letters_f_s_c_or_h_and_at_most_128();
}  // namespace detail

/// The kind of each layer, as a value: `LayerTypes("sssssfsssssf")`.
class LayerTypes {
 public:
  static constexpr int most = 128;

  constexpr LayerTypes() = default;
  /// A letter for each layer, see LayerType.
  consteval explicit LayerTypes(std::string_view letters) {
    for (const char one : letters) {
      int type = 0;
      while (type < layer_type_count && letter(LayerType(type)) != one) ++type;
      if (size_ == most || type == layer_type_count) detail::layer_types_are_letters_f_s_c_or_h_and_at_most_128();
      add(LayerType(type));
    }
  }
  /// Each `period`-th layer sees all keys, the others a window. Of more than `most` layers the first ones.
  [[nodiscard]] static constexpr LayerTypes every(int period, int layers) {
    LayerTypes types;
    for (int i = 1; i <= layers && i <= most; ++i)
      types.add(i % period == 0 ? LayerType::full_attention : LayerType::sliding_attention);
    return types;
  }

  [[nodiscard]] constexpr int size() const { return size_; }
  /// The kind of layer `i` of `size()`.
  [[nodiscard]] constexpr LayerType operator[](int i) const { return types_[static_cast<std::size_t>(i)]; }
  /// One more layer; there are fewer than `most`.
  constexpr void add(LayerType type) { types_[static_cast<std::size_t>(size_++)] = type; }
  [[nodiscard]] constexpr int count(LayerType type) const {
    int count = 0;
    for (int i = 0; i < size_; ++i) count += (*this)[i] == type ? 1 : 0;
    return count;
  }
  [[nodiscard]] constexpr bool has(LayerType type) const { return count(type) > 0; }
  /// As it is written in C++, and printed.
  [[nodiscard]] std::string letters() const {
    std::string text;
    for (int i = 0; i < size_; ++i) text += letter((*this)[i]);
    return text;
  }
  friend constexpr bool operator==(const LayerTypes&, const LayerTypes&) = default;

 private:
  std::array<LayerType, most> types_{};
  int size_ = 0;
};

/// Layers that see a window of keys beside layers that see all, or see them pooled.
struct WindowConfig {
  int window = 4096;       ///< `sliding_window`: keys a token sees there, its own among them
  LayerTypes types{};      ///< `layer_types`: one for each layer
  double rope_base = 0.0;  ///< of sliding layers, which then scale no frequencies; 0: they turn as the others do
  friend constexpr bool operator==(const WindowConfig&, const WindowConfig&) = default;

  static constexpr ConfigPart part = {"WindowConfig", "windows"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs. Families whose files do not
  /// say layer_types give them in `complete`.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"sliding_window", "window", Absent::as_default}, c.window...);
    f(ConfigField{"layer_types", "types", Absent::as_default}, c.types...);
    f(ConfigField{"", "rope_base"}, c.rope_base...);
  }

  /// The same layers; if all see all keys the rest means nothing.
  [[nodiscard]] constexpr WindowConfig canonical() const {
    if (has_windows()) return *this;
    WindowConfig full;
    full.types = types;
    return full;
  }

  [[nodiscard]] constexpr bool has_windows() const { return types.count(LayerType::full_attention) < types.size(); }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"sliding_window", "sliding_window must be from 1 to 268435456", window, 1, 1 << 28},
    };
    if (!has_windows()) return std::nullopt;
    if (auto problem = detail::problem_of(ranges)) return problem;
    if (rope_base != 0.0 && (!(rope_base > 1.0) || !detail::is_finite(rope_base)))
      return ConfigProblem{ErrorCode::cf_rope, "rope_base", "rope_base must be above 1", rope_base};
    return std::nullopt;
  }
};

/// The attention of sliding layers, if `attention` is that of the others.
template <class Attention>
[[nodiscard]] constexpr Attention sliding(Attention attention, const WindowConfig& windows) {
  if (windows.rope_base != 0.0) attention.rope = {.base = windows.rope_base, .pairs = attention.rope.pairs};
  return attention;
}
/// That of a Spec: `Local<Gqa<S, sliding_attention<S>>, S::windows.window>`.
template <class S>
inline constexpr auto sliding_attention = sliding(S::attention, S::windows);

/// The same attention, its queries and keys not rotated.
template <class Attention>
[[nodiscard]] constexpr Attention without_position(Attention attention) {
  attention.rope = {.pairs = RopePairs::none};
  return attention;
}

}  // namespace v1
}  // namespace guild
