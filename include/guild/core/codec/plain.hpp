// Elements that stand for themselves: f32, f64, bf16, f16.
#pragma once

#include <type_traits>

#include <guild/core/weight_view.hpp>

namespace guild {
inline namespace v1 {
namespace codec {

template <class Element>
struct Plain {
  GUILD_HD static constexpr Format format() { return {dtype_of<Element>}; }

  struct Row {
    const Element* element;
    GUILD_HD auto operator()(Index c) const {
      return static_cast<std::conditional_t<std::is_same_v<Element, double>, double, float>>(element[c]);
    }
  };
  GUILD_HD static Row row(const WeightView& w, Index r) { return {w.row<Element>(r)}; }
};

}  // namespace codec
}  // namespace v1
}  // namespace guild
