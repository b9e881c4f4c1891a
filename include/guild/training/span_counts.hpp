// What spans of merged tokens did in a step.
#pragma once

#include <array>
#include <cstddef>

#include <guild/ops/merge/ratio_loss.hpp>

namespace guild {
inline namespace v1 {

/// Of a model's spans, by their first layers: those that nest and begin at the same layer count as one. Of a model of
/// more spans than `most`, the first ones.
struct SpanCounts {
  static constexpr std::size_t most = 4;
  struct Span {
    int layer = 0;       ///< the first within the span
    MergeTerms terms{};  ///< no tokens: there is no such span
    /// Slots a token, 0 without tokens. Where spans nest, those of the outer one are the tokens of the inner one.
    [[nodiscard]] double share() const { return terms.share(); }
  };
  std::array<Span, most> all{};

  void add(int layer, const MergeTerms& terms) {
    if (!(terms.tokens > 0.0)) return;
    for (Span& span : all) {
      if (span.terms.tokens > 0.0 && span.layer != layer) continue;
      span.layer = layer;
      span.terms += terms;
      return;
    }
  }
  [[nodiscard]] std::size_t size() const {
    std::size_t count = 0;
    while (count < most && all[count].terms.tokens > 0.0) ++count;
    return count;
  }
  [[nodiscard]] const Span& operator[](std::size_t i) const { return all[i]; }
  SpanCounts& operator+=(const SpanCounts& other) {
    for (const Span& span : other.all) add(span.layer, span.terms);
    return *this;
  }
};

}  // namespace v1
}  // namespace guild
