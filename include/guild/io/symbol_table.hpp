// Token texts to ids while a tokenizer.json is read: a flat table, because a vocabulary is looked up a million times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace guild {
inline namespace v1 {

/// Keeps views of the texts, which must outlive it. Holds at most the number of texts it was made for.
class SymbolTable {
 public:
  explicit SymbolTable(std::size_t count) {
    std::size_t slots = 16;
    while (slots < count * 2) slots *= 2;
    slots_.resize(slots);
  }

  /// The text must not be there yet; id >= 0.
  void add(std::string_view text, std::int32_t id) { slots_[index_of(text)] = {text, hash(text), id}; }
  /// The id, or -1.
  [[nodiscard]] std::int32_t find(std::string_view text) const { return slots_[index_of(text)].id; }

  /// Calls f(text, id) for each, in no particular order.
  template <class F>
  void for_each(F&& f) const {
    for (const Slot& slot : slots_)
      if (slot.id >= 0) f(slot.text, slot.id);
  }

 private:
  struct Slot {
    std::string_view text{};
    std::uint32_t hash = 0;
    std::int32_t id = -1;
  };
  static std::uint32_t hash(std::string_view text) {
    return static_cast<std::uint32_t>(std::hash<std::string_view>{}(text));
  }
  // Where the text is, or the free slot where it belongs; at least half of the slots are free.
  [[nodiscard]] std::size_t index_of(std::string_view text) const {
    const std::uint32_t h = hash(text);
    std::size_t i = h & (slots_.size() - 1);
    while (slots_[i].id >= 0 && (slots_[i].hash != h || slots_[i].text != text)) i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  std::vector<Slot> slots_;
};

}  // namespace v1
}  // namespace guild
