// Tells a model's thinking from its answer while the text streams in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace guild {
inline namespace v1 {

/// A stretch of generated text. Never empty.
struct ThinkPiece {
  enum class Kind : std::uint8_t { thinking, answer };
  Kind kind = Kind::answer;
  std::string text{};
  friend bool operator==(const ThinkPiece&, const ThinkPiece&) = default;
};

/// A state machine over `<think>` and `</think>`, which may be cut anywhere across pieces and are left out of the
/// result.
///
/// R1's chat template ends the prompt with an open `<think>`, so the output begins inside the thinking; start from
/// `ThinkParser::after(prompt)`. A `<think>` that the model writes itself at the very beginning opens the thinking too
/// (or repeats the opening). The first `</think>` ends it for good: later tags are text of the answer. If it never
/// comes, all of it was thinking. Pieces of one kind, joined, are the same however the input was cut.
class ThinkParser {
 public:
  enum class Start : std::uint8_t { thinking, answer };

  explicit ThinkParser(Start start) noexcept
      : kind_(start == Start::thinking ? ThinkPiece::Kind::thinking : ThinkPiece::Kind::answer) {}

  /// Begins inside the thinking if the prompt ends with an open `<think>`, white space after it aside.
  [[nodiscard]] static ThinkParser after(std::string_view prompt) noexcept {
    while (!prompt.empty() && is_blank(prompt.back())) prompt.remove_suffix(1);
    return ThinkParser(prompt.ends_with(open_) ? Start::thinking : Start::answer);
  }

  /// The pieces that are certain now, at most two.
  [[nodiscard]] std::vector<ThinkPiece> push(std::string_view text) {
    held_ += text;
    std::vector<ThinkPiece> out;
    if (at_beginning_ && !pass_beginning()) return out;
    if (kind_ == ThinkPiece::Kind::thinking) {
      const std::size_t tag = held_.find(close_);
      if (tag == std::string::npos) {
        emit(out, held_.size() - partial(close_));
        return out;
      }
      emit(out, tag);
      held_.erase(0, close_.size());
      kind_ = ThinkPiece::Kind::answer;
    }
    emit(out, held_.size());
    return out;
  }
  /// At the end: what was held back, which was no tag after all.
  [[nodiscard]] std::vector<ThinkPiece> flush() {
    std::vector<ThinkPiece> out;
    at_beginning_ = false;
    emit(out, held_.size());
    return out;
  }

  /// What the text that comes next belongs to, as far as is known.
  [[nodiscard]] ThinkPiece::Kind kind() const noexcept { return kind_; }

 private:
  static constexpr std::string_view open_ = "<think>", close_ = "</think>";

  static bool is_blank(char c) noexcept { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

  // True once it is clear whether the text begins with <think>.
  bool pass_beginning() {
    std::size_t blank = 0;
    while (blank < held_.size() && is_blank(held_[blank])) ++blank;
    const std::string_view rest = std::string_view(held_).substr(blank);
    if (rest.starts_with(open_)) {
      held_.erase(0, blank + open_.size());
      kind_ = ThinkPiece::Kind::thinking;
    } else if (open_.starts_with(rest)) {
      return false;
    }
    at_beginning_ = false;
    return true;
  }
  // How many bytes at the end could be the beginning of the tag.
  [[nodiscard]] std::size_t partial(std::string_view tag) const {
    std::size_t n = std::min(tag.size() - 1, held_.size());
    while (n > 0 && !std::string_view(held_).ends_with(tag.substr(0, n))) --n;
    return n;
  }
  void emit(std::vector<ThinkPiece>& out, std::size_t bytes) {
    if (bytes == 0) return;
    out.push_back({kind_, held_.substr(0, bytes)});
    held_.erase(0, bytes);
  }

  ThinkPiece::Kind kind_;
  bool at_beginning_ = true;
  std::string held_;
};

}  // namespace v1
}  // namespace guild
