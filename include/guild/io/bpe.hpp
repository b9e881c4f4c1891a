// Byte-pair merging: from the bytes of one piece to token ids, lowest rank first, leftmost first among equals.
//
// (Sennrich et al. 2016; ranks and ties as in Hugging Face tokenizers.) Short pieces are merged in place, long ones
// with a heap over a linked list, so that the cost stays O(n log n) whatever the text.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace guild {
inline namespace v1 {

/// A hash table of the merges of a vocabulary. Ids and ranks are below 2^31.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = none;  ///< `none` if the two do not merge
    std::int32_t id = -1;       ///< what they become
  };
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  MergeTable() : MergeTable(0) {}
  explicit MergeTable(std::size_t count) {
    std::size_t slots = 16;
    while (slots < count * 2) slots *= 2, --shift_;
    slots_.resize(slots);
  }

  /// A pair that is there already takes the later rank.
  void set(std::int32_t left, std::int32_t right, Merge merge) {
    Slot& slot = slots_[index_of(key(left, right))];
    slot = {key(left, right), merge};
  }
  [[nodiscard]] Merge find(std::int32_t left, std::int32_t right) const {
    return slots_[index_of(key(left, right))].merge;
  }

 private:
  struct Slot {
    std::uint64_t key = ~std::uint64_t{0};
    Merge merge{};
  };
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
  }
  // The slot of the key, or the free one where it belongs; at least half of the slots are free.
  [[nodiscard]] std::size_t index_of(std::uint64_t key) const {
    auto i = static_cast<std::size_t>((key * 0x9E3779B97F4A7C15U) >> shift_);
    while (slots_[i].key != key && slots_[i].key != ~std::uint64_t{0}) i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  int shift_ = 60;  // 64 - log2(slots)
  std::vector<Slot> slots_;
};

/// Merges pieces. Holds scratch memory: one for each call that encodes.
class BpeMerger {
 public:
  /// `byte_ids` are the tokens of the 256 single bytes. Both must outlive the merger.
  BpeMerger(const MergeTable& merges, const std::array<std::int32_t, 256>& byte_ids)
      : merges_(merges), byte_ids_(byte_ids) {}

  /// Appends the tokens of `piece`, which must be shorter than 2^31 bytes.
  void encode(std::string_view piece, std::vector<int>& out) {
    if (piece.size() <= short_piece_) {
      encode_short(piece, out);
    } else {
      encode_long(piece, out);
    }
  }

 private:
  static constexpr std::size_t short_piece_ = 48;

  void encode_short(std::string_view piece, std::vector<int>& out) {
    std::array<std::int32_t, short_piece_> id;          // the tokens so far
    std::array<MergeTable::Merge, short_piece_> merge;  // of token i with token i + 1
    std::size_t n = piece.size();
    for (std::size_t i = 0; i < n; ++i) id[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
    for (std::size_t i = 0; i + 1 < n; ++i) merge[i] = merges_.find(id[i], id[i + 1]);
    while (n > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < n; ++i)
        if (merge[i].rank < merge[best].rank) best = i;
      if (merge[best].rank == MergeTable::none) break;
      id[best] = merge[best].id;
      std::copy(id.begin() + static_cast<std::ptrdiff_t>(best) + 2, id.begin() + static_cast<std::ptrdiff_t>(n),
                id.begin() + static_cast<std::ptrdiff_t>(best) + 1);
      std::copy(merge.begin() + static_cast<std::ptrdiff_t>(best) + 1,
                merge.begin() + static_cast<std::ptrdiff_t>(n) - 1, merge.begin() + static_cast<std::ptrdiff_t>(best));
      --n;
      if (best + 1 < n) merge[best] = merges_.find(id[best], id[best + 1]);
      if (best > 0) merge[best - 1] = merges_.find(id[best - 1], id[best]);
    }
    out.insert(out.end(), id.begin(), id.begin() + static_cast<std::ptrdiff_t>(n));
  }

  void encode_long(std::string_view piece, std::vector<int>& out) {
    const auto n = static_cast<std::int32_t>(piece.size());
    symbols_.resize(piece.size());
    heap_.clear();
    for (std::int32_t i = 0; i < n; ++i)
      at(i) = {byte_ids_[static_cast<unsigned char>(piece[static_cast<std::size_t>(i)])], i - 1,
               i + 1 < n ? i + 1 : -1};
    for (std::int32_t i = 0; i + 1 < n; ++i) consider(i);
    std::make_heap(heap_.begin(), heap_.end(), later);
    while (!heap_.empty()) {
      const Candidate top = heap_.front();
      std::pop_heap(heap_.begin(), heap_.end(), later);
      heap_.pop_back();
      Symbol& left = at(top.position);
      // An entry is stale if one of its two tokens was merged since.
      if (left.id < 0 || left.next < 0) continue;
      const MergeTable::Merge merge = merges_.find(left.id, at(left.next).id);
      if (merge.rank != top.rank || merge.id != top.id) continue;
      Symbol& right = at(left.next);
      left.id = merge.id;
      left.next = right.next;
      right.id = -1;
      if (left.next >= 0) at(left.next).previous = top.position;
      push(top.position);
      if (left.previous >= 0) push(left.previous);
    }
    for (std::int32_t i = 0; i >= 0; i = at(i).next) out.push_back(at(i).id);
  }

  struct Symbol {
    std::int32_t id, previous, next;
  };  // id -1: merged into the one before
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position, id;
  };
  static bool later(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  }
  Symbol& at(std::int32_t i) { return symbols_[static_cast<std::size_t>(i)]; }
  bool consider(std::int32_t i) {
    if (at(i).next < 0) return false;
    const MergeTable::Merge merge = merges_.find(at(i).id, at(at(i).next).id);
    if (merge.rank == MergeTable::none) return false;
    heap_.push_back({merge.rank, i, merge.id});
    return true;
  }
  void push(std::int32_t i) {
    if (consider(i)) std::push_heap(heap_.begin(), heap_.end(), later);
  }

  const MergeTable& merges_;
  const std::array<std::int32_t, 256>& byte_ids_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace v1
}  // namespace guild
