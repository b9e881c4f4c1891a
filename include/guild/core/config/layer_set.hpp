// Some of a model's layers, as a value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace guild {
inline namespace v1 {

namespace detail {
/// Not constexpr: a set of layers that calls it does not compile.
void layers_of_a_set_are_from_0_to_1023();
}  // namespace detail

/// Layers by their numbers, from 0: `LayerSet{0, 2, 5}`.
class LayerSet {
 public:
  static constexpr int most = 1024;  ///< as many layers as a model may have

  constexpr LayerSet() = default;
  consteval LayerSet(std::initializer_list<int> layers) {
    for (const int layer : layers) {
      if (layer < 0 || layer >= most) detail::layers_of_a_set_are_from_0_to_1023();
      add(layer);
    }
  }

  /// A layer from 0 to most - 1.
  constexpr void add(int layer) { words_[word(layer)] |= bit(layer); }
  [[nodiscard]] constexpr bool has(int layer) const { return (words_[word(layer)] & bit(layer)) != 0; }
  /// How many there are of [begin, end).
  [[nodiscard]] constexpr int count(int begin = 0, int end = most) const {
    int count = 0;
    for (int layer = begin; layer < end; ++layer) count += has(layer) ? 1 : 0;
    return count;
  }
  /// As it is printed: 0, 2, 5.
  [[nodiscard]] std::string text() const {
    std::string text;
    for (int layer = 0; layer < most; ++layer)
      if (has(layer)) text.append(text.empty() ? "" : ", ").append(std::to_string(layer));
    return text;
  }
  friend constexpr bool operator==(const LayerSet&, const LayerSet&) = default;

 private:
  static constexpr std::size_t word(int layer) { return static_cast<std::size_t>(layer) / 64; }
  static constexpr std::uint64_t bit(int layer) { return std::uint64_t{1} << (layer % 64); }
  std::array<std::uint64_t, most / 64> words_{};
};

}  // namespace v1
}  // namespace guild
