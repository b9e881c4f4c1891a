// A byte-level vocabulary as a trainer makes it: what tokenizer.json will hold, before it is text.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/io/byte_level.hpp>

namespace guild {
inline namespace v1 {

/// How a text is cut into the pieces within which bytes are merged.
struct SplitRules {
  /// Digits after the patterns have been applied.
  enum class Digits : std::uint8_t { as_patterns_leave_them, one_by_one };
  /// What is applied last: nothing, or GPT-2's pattern.
  enum class Last : std::uint8_t { nothing, gpt2 };

  std::vector<std::string> patterns{};  ///< in order; each match is a piece, and so is each gap (see Regex)
  Digits digits = Digits::as_patterns_leave_them;
  Last last = Last::nothing;

  /// DeepSeek-V3 and R1, as published: up to three digits, stretches of Chinese and Japanese, words and punctuation.
  static SplitRules deepseek_v3() {
    return {{R"(\p{N}{1,3})", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
             "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
             "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"},
            Digits::as_patterns_leave_them,
            Last::nothing};
  }
  /// The same with every digit a piece of its own, which makes arithmetic easier for small models.
  static SplitRules single_digits() {
    SplitRules rules = deepseek_v3();
    rules.patterns.front() = R"(\p{N})";
    return rules;
  }
  static SplitRules gpt2() { return {{}, Digits::as_patterns_leave_them, Last::gpt2}; }
  /// The whole text is one piece. Training on long texts takes long then.
  static SplitRules none() { return {}; }
};

/// A token that is found in a text as a whole, before anything is split.
struct NamedToken {
  std::string text{};
  bool special = true;  ///< left out by a decode that skips special tokens; never made by text of users
};

/// Ids count up through `first`, `tokens`, `last`. The first 256 of `tokens` are the bytes, in the order of the code
/// points of their symbols (as Hugging Face tokenizers has them: `!` is the first).
struct BpeVocabulary {
  struct Merge {
    std::int32_t left = 0, right = 0;  ///< ids
    friend bool operator==(const Merge&, const Merge&) = default;
  };

  SplitRules splits{};
  std::vector<NamedToken> first{};
  std::vector<std::string> tokens{};  ///< the bytes of each
  std::vector<Merge> merges{};        ///< by rank; left and right joined are one of `tokens`
  std::vector<NamedToken> last{};

  /// The number of ids.
  [[nodiscard]] int size() const noexcept { return static_cast<int>(first.size() + tokens.size() + last.size()); }
};

namespace detail {

/// The 256 bytes in the order of their symbols.
inline std::array<std::uint8_t, 256> alphabet_order() {
  std::array<std::uint8_t, 256> order{};
  for (std::size_t i = 0; i < 256; ++i) order[i] = static_cast<std::uint8_t>(i);
  std::sort(order.begin(), order.end(),
            [](std::uint8_t a, std::uint8_t b) { return byte_alphabet.symbol[a] < byte_alphabet.symbol[b]; });
  return order;
}

/// A text of bytes in the byte alphabet.
inline std::string spelled(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, byte_alphabet.symbol[static_cast<unsigned char>(byte)]);
  return out;
}

}  // namespace detail

/// The vocabulary without merges: 256 bytes and the named tokens, so that ASCII text has one token a character. For
/// small studies; needs no training text.
[[nodiscard]] inline BpeVocabulary byte_vocabulary(std::vector<NamedToken> first = {},
                                                   std::vector<NamedToken> last = {}) {
  BpeVocabulary vocabulary;
  vocabulary.first = std::move(first);
  vocabulary.last = std::move(last);
  for (const std::uint8_t byte : detail::alphabet_order()) vocabulary.tokens.emplace_back(1, static_cast<char>(byte));
  return vocabulary;
}

}  // namespace v1
}  // namespace guild
