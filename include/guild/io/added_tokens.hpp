// Added tokens: texts such as <think> that are one token wherever they stand, found before anything is split.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

/// A set of texts, searched for leftmost first and longest among those (as Hugging Face tokenizers does).
class TextMatcher {
 public:
  TextMatcher() { nodes_.emplace_back(); }

  /// Adds a text that is not empty; `value` >= 0 comes back from `find`. False if the text is there already.
  bool add(std::string_view text, int value) {
    std::size_t node = 0;
    for (const char c : text) {
      std::size_t next = child(node, c);
      if (next == 0) {
        next = nodes_.size();
        nodes_.push_back({-1, nodes_[node].first_child, 0, c});
        nodes_[node].first_child = static_cast<std::uint32_t>(next);
      }
      node = next;
    }
    if (nodes_[node].value >= 0) return false;
    nodes_[node].value = value;
    starts_[static_cast<unsigned char>(text[0])] = true;
    empty_ = false;
    return true;
  }

  struct Match {
    std::size_t begin = 0, end = 0;
    int value = -1;
  };

  /// The next match that lies within [from, to) of the text.
  [[nodiscard]] bool find(std::string_view text, std::size_t from, std::size_t to, Match& match) const {
    if (empty_) return false;
    for (std::size_t i = from; i < to; ++i) {
      if (!starts_[static_cast<unsigned char>(text[i])]) continue;
      match.value = -1;
      std::size_t node = 0;
      for (std::size_t j = i; j < to && (node = child(node, text[j])) != 0; ++j)
        if (nodes_[node].value >= 0) match = {i, j + 1, nodes_[node].value};
      if (match.value >= 0) return true;
    }
    return false;
  }

 private:
  struct Node {
    int value = -1;                  // of the text that ends here
    std::uint32_t next_sibling = 0;  // 0: none, as the root is nobody's child
    std::uint32_t first_child = 0;
    char byte = 0;
  };
  [[nodiscard]] std::size_t child(std::size_t node, char byte) const {
    std::uint32_t c = nodes_[node].first_child;
    while (c != 0 && nodes_[c].byte != byte) c = nodes_[c].next_sibling;
    return c;
  }

  std::vector<Node> nodes_;
  std::array<bool, 256> starts_{};
  bool empty_ = true;
};

/// One entry of `added_tokens`.
struct AddedToken {
  int id = -1;
  bool special = false;      ///< left out by a decode that skips special tokens
  bool left_strip = false;   ///< takes the white space before it
  bool right_strip = false;  ///< takes the white space after it
  bool normalized = false;   ///< searched for after those that are not
};

/// Where the white space that ends at `end` begins, but not before `floor`. The text is valid UTF-8.
[[nodiscard]] inline std::size_t white_before(std::string_view text, std::size_t floor, std::size_t end) {
  while (end > floor) {
    std::size_t at = end - 1;
    while (at > floor && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
    if (!is_white_space(utf8_next(text, at).code)) break;
    end = at;
  }
  return end;
}

/// Where the white space that begins at `begin` ends.
[[nodiscard]] inline std::size_t white_after(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    const Utf8Char c = utf8_next(text, begin);
    if (!is_white_space(c.code)) break;
    begin += c.length;
  }
  return begin;
}

}  // namespace v1
}  // namespace guild
