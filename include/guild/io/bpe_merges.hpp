// Which pairs of tokens to merge: the most frequent one, again and again, with counts that are kept up to date.
//
// (Gage 1994; Sennrich, Haddow, Birch 2016, section 3.2, with a queue and incremental counts.) Order and corner cases
// are those of Hugging Face tokenizers' BpeTrainer, so that the same pieces give the same merges: the highest count
// first, the pair of lower ids among equals; a pair whose merge spells a token that there is already gives that token.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <guild/io/bpe_vocabulary.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// Learns merges from pieces and how often each occurs. The result depends on nothing else: not on their order.
class MergeLearner {
 public:
  using Id = std::int32_t;  // 0..255: the bytes in alphabet_order
  struct Limits {
    std::size_t tokens = 256;         ///< stop at this many, bytes included
    std::int64_t min_frequency = 0;   ///< stop below this count
    std::size_t max_token_bytes = 0;  ///< make no longer token; 0: of any length
  };

  /// `forbidden`: bytes of tokens that must not come out of merges.
  MergeLearner(Limits limits, std::unordered_set<std::string> forbidden)
      : limits_(limits), forbidden_(std::move(forbidden)) {
    for (const std::uint8_t byte : alphabet_order()) {
      byte_ids_[byte] = static_cast<Id>(tokens_.size());
      add_token(std::string(1, static_cast<char>(byte)));
    }
  }

  void add(std::string_view piece, std::int64_t count) {
    if (piece.size() < 2) return;  // nothing to merge in it
    words_.push_back({symbols_.size(), piece.size(), count});
    for (const char byte : piece) symbols_.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  }

  /// After all `add`. Calls `step(tokens)` now and then, which may throw to stop.
  template <class Step>
  void learn(Step&& step) {
    count_pairs();
    for (std::size_t rounds = 0; tokens_.size() < limits_.tokens; ++rounds) {
      if (rounds % 64 == 0) step(tokens_.size());
      Candidate top;
      if (!next(top)) break;
      merge(top);
    }
    step(tokens_.size());
  }

  [[nodiscard]] const std::vector<std::string>& tokens() const noexcept { return tokens_; }
  /// By rank. A pair that was merged twice has its later rank, as in Hugging Face tokenizers.
  [[nodiscard]] std::vector<std::pair<Id, Id>> merges() const {
    std::vector<std::pair<Id, Id>> out;
    std::unordered_set<std::uint64_t> seen;
    for (std::size_t i = merges_.size(); i-- > 0;)
      if (seen.insert(key(merges_[i].first, merges_[i].second)).second) out.push_back(merges_[i]);
    std::reverse(out.begin(), out.end());
    return out;
  }

 private:
  struct Word {
    std::size_t begin = 0, size = 0;  // in symbols_; it shrinks
    std::int64_t count = 0;
  };
  struct Pair {
    std::int64_t count = 0;
    std::int64_t list = -1;  // of the words in which it was found since the queue saw it last
  };
  struct Candidate {
    std::int64_t count = 0;
    Id left = 0, right = 0;
    std::size_t list = 0;
  };

  static std::uint64_t key(Id left, Id right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
  }
  struct Hash {
    std::size_t operator()(std::uint64_t k) const noexcept {
      k *= 0x9E3779B97F4A7C15U;
      return static_cast<std::size_t>(k ^ (k >> 29));
    }
  };
  // The same pair can be in the queue twice, with different words; the list that was begun first goes first.
  static bool later(const Candidate& a, const Candidate& b) {
    if (a.count != b.count) return a.count < b.count;
    if (a.left != b.left) return a.left > b.left;
    return a.right != b.right ? a.right > b.right : a.list > b.list;
  }

  Id add_token(std::string bytes) {
    const auto [at, is_new] = id_of_.try_emplace(bytes, static_cast<Id>(tokens_.size()));
    if (is_new) tokens_.push_back(std::move(bytes));
    return at->second;
  }
  [[nodiscard]] std::size_t length(Id id) const { return tokens_[static_cast<std::size_t>(id)].size(); }
  [[nodiscard]] bool too_long(Id left, Id right) const {
    return limits_.max_token_bytes > 0 && length(left) + length(right) > limits_.max_token_bytes;
  }

  void found(Id left, Id right, std::size_t word) {
    if (too_long(left, right)) return;
    Pair& pair = pairs_[key(left, right)];
    pair.count += words_[word].count;
    if (pair.list < 0) {
      pair.list = static_cast<std::int64_t>(lists_.size());
      lists_.emplace_back();
      touched_.emplace_back(left, right);
    }
    std::vector<std::uint32_t>& list = lists_[static_cast<std::size_t>(pair.list)];
    if (list.empty() || list.back() != word) list.push_back(static_cast<std::uint32_t>(word));
  }
  void lost(Id left, Id right, std::size_t word) {
    if (const auto at = pairs_.find(key(left, right)); at != pairs_.end()) at->second.count -= words_[word].count;
  }
  // Moves what was found into the queue.
  void enqueue() {
    for (const auto& [left, right] : touched_) {
      Pair& pair = pairs_[key(left, right)];
      const auto list = static_cast<std::size_t>(std::exchange(pair.list, -1));
      if (pair.count > 0 && !is_forbidden(left, right)) {
        queue_.push_back({pair.count, left, right, list});
        std::push_heap(queue_.begin(), queue_.end(), later);
      } else {
        lists_[list] = {};
      }
    }
    touched_.clear();
  }
  [[nodiscard]] bool is_forbidden(Id left, Id right) const {
    return !forbidden_.empty() &&
           forbidden_.contains(tokens_[static_cast<std::size_t>(left)] + tokens_[static_cast<std::size_t>(right)]);
  }

  void count_pairs() {
    for (std::size_t w = 0; w < words_.size(); ++w)
      for (std::size_t i = words_[w].begin; i + 1 < words_[w].begin + words_[w].size; ++i)
        found(symbols_[i], symbols_[i + 1], w);
    enqueue();
  }
  // Counts in the queue are of when the pair was found: one that has changed since goes back to its new place.
  bool next(Candidate& top) {
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end(), later);
      top = queue_.back();
      queue_.pop_back();
      const std::int64_t count = pairs_[key(top.left, top.right)].count;
      if (count == top.count) return count >= limits_.min_frequency;
      if (count <= 0) continue;
      top.count = count;
      queue_.push_back(top);
      std::push_heap(queue_.begin(), queue_.end(), later);
    }
    return false;
  }
  void merge(const Candidate& top) {
    const Id id = add_token(tokens_[static_cast<std::size_t>(top.left)] + tokens_[static_cast<std::size_t>(top.right)]);
    merges_.emplace_back(top.left, top.right);
    const std::vector<std::uint32_t> words = std::exchange(lists_[top.list], {});
    for (const std::uint32_t word : words) merge_in(word, top.left, top.right, id);
    enqueue();
  }
  // The count of the merged pair itself is left as it is: it is not looked at again unless the pair is found anew.
  void merge_in(std::size_t word, Id left, Id right, Id id) {
    Id* const symbol = symbols_.data() + words_[word].begin;
    const std::size_t size = words_[word].size;
    std::size_t out = 0;
    for (std::size_t in = 0; in < size; ++out) {
      if (symbol[in] != left || in + 1 == size || symbol[in + 1] != right) {
        symbol[out] = symbol[in++];
        continue;
      }
      if (out > 0) {
        lost(symbol[out - 1], left, word);
        found(symbol[out - 1], id, word);
      }
      if (in + 2 < size) {
        lost(right, symbol[in + 2], word);
        found(id, symbol[in + 2], word);
      }
      symbol[out] = id;
      in += 2;
    }
    words_[word].size = out;
  }

  Limits limits_;
  std::unordered_set<std::string> forbidden_;
  std::array<Id, 256> byte_ids_{};
  std::vector<std::string> tokens_{};
  std::unordered_map<std::string, Id> id_of_{};
  std::vector<Word> words_{};
  std::vector<Id> symbols_{};
  std::unordered_map<std::uint64_t, Pair, Hash> pairs_{};
  std::vector<std::vector<std::uint32_t>> lists_{};
  std::vector<std::pair<Id, Id>> touched_{};
  std::vector<Candidate> queue_{};
  std::vector<std::pair<Id, Id>> merges_{};
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
