// Many tokens in little memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// Token ids that only grow in number: two bytes each while the largest stays below 65536, four bytes after that.
class TokenArray {
 public:
  TokenArray() = default;
  /// `largest`: no id beyond it will come (the array then never has to be rewritten).
  explicit TokenArray(std::int32_t largest) : wide_(largest > max_narrow_) {}

  [[nodiscard]] Index size() const { return static_cast<Index>(wide_ ? four_.size() : two_.size()); }
  [[nodiscard]] std::int32_t operator[](Index i) const {
    const auto at = static_cast<std::size_t>(i);
    return wide_ ? four_[at] : static_cast<std::int32_t>(two_[at]);
  }
  /// Writes tokens begin..begin + out.size() to `out`.
  void copy(Index begin, std::span<std::int32_t> out) const {
    const auto from = static_cast<std::ptrdiff_t>(begin), to = from + static_cast<std::ptrdiff_t>(out.size());
    if (wide_) {
      std::copy(four_.begin() + from, four_.begin() + to, out.begin());
    } else {
      std::copy(two_.begin() + from, two_.begin() + to, out.begin());
    }
  }

  /// Throws in_token for a negative id.
  void append(std::span<const std::int32_t> tokens) {
    for (const std::int32_t token : tokens) {
      if (token < 0) detail::refuse(ErrorCode::in_token, {"the token id ", token, " is negative; ids begin at 0"});
      if (!wide_ && token > max_narrow_) widen();
      if (wide_) {
        four_.push_back(token);
      } else {
        two_.push_back(static_cast<std::uint16_t>(token));
      }
    }
  }
  void append(std::int32_t token) { append(std::span(&token, 1)); }
  void shrink_to_fit() {
    two_.shrink_to_fit();
    four_.shrink_to_fit();
  }
  /// Bytes held.
  [[nodiscard]] std::size_t bytes() const { return two_.capacity() * 2 + four_.capacity() * 4; }

 private:
  static constexpr std::int32_t max_narrow_ = 0xFFFF;

  void widen() {
    four_.assign(two_.begin(), two_.end());
    two_ = {};
    wide_ = true;
  }

  std::vector<std::uint16_t> two_;
  std::vector<std::int32_t> four_;
  bool wide_ = false;
};

}  // namespace v1
}  // namespace guild
