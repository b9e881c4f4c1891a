// From text without added tokens to ids: the splits of the pre-tokenizer, then the merges.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <guild/io/bpe.hpp>
#include <guild/io/pretokenizer.hpp>
#include <guild/io/regex.hpp>
#include <guild/io/tokenizer_file.hpp>

namespace guild {
inline namespace v1 {

/// Splits and merges, remembering recent pieces, because words repeat. One for each call that encodes.
class PieceEncoder {
 public:
  /// Appends to `out`. `bytes`: about how many will be encoded in all. File and `out` must outlive the encoder.
  PieceEncoder(const TokenizerFile& file, std::size_t bytes, std::vector<int>& out)
      : file_(file), merger_(file.merges, file.byte_ids), out_(out) {
    std::size_t slots = 1;
    while (slots < 16384 && slots * 16 < bytes) slots *= 2;
    if (slots > 1) memory_.resize(slots);
  }

  /// The text must outlive the encoder.
  void encode(std::string_view text) {
    file_.splitter.for_each_piece(text, scratch_, [this](std::string_view piece) { encode_piece(piece); });
  }

 private:
  struct Remembered {
    std::string_view piece{};          // points into the text, which outlives this
    std::size_t begin = 0, count = 0;  // its tokens, in out_
  };

  void encode_piece(std::string_view piece) {
    if (piece.size() == 1) return out_.push_back(file_.byte_ids[static_cast<unsigned char>(piece[0])]);
    Remembered* slot = nullptr;
    if (!memory_.empty() && piece.size() <= 64) {
      slot = &memory_[std::hash<std::string_view>{}(piece) & (memory_.size() - 1)];
      if (slot->piece == piece) {
        const std::size_t end = slot->begin + slot->count;
        for (std::size_t i = slot->begin; i < end; ++i) out_.push_back(int{out_[i]});
        return;
      }
    }
    const std::size_t begin = out_.size();
    bool whole = false;
    if (file_.ignore_merges) {
      if (const auto it = file_.whole_pieces.find(std::string(piece)); it != file_.whole_pieces.end()) {
        out_.push_back(it->second);
        whole = true;
      }
    }
    if (!whole) merger_.encode(piece, out_);
    if (slot != nullptr) *slot = {piece, begin, out_.size() - begin};
  }

  const TokenizerFile& file_;
  BpeMerger merger_;
  Regex::Scratch scratch_;
  std::vector<int>& out_;
  std::vector<Remembered> memory_;
};

}  // namespace v1
}  // namespace guild
