// The normalizer of tokenizer.json: what is done to a text before it is split. Form C or nothing.
#pragma once

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/io/json.hpp>
#include <guild/io/utf8.hpp>

namespace guild {
inline namespace v1 {

/// Bytes [begin, end) of a text.
struct TextRange {
  std::size_t begin = 0, end = 0;
};

namespace detail {

/// Normalization form C (Unicode annex 15) with the tables of utf8proc. A text is looked through once; only where a
/// character may change or join another one is the stretch between two starters taken apart, ordered and composed.
class Nfc {
 public:
  static const Nfc& shared() {
    static const Nfc nfc;  // about 10 ms, once a process
    return nfc;
  }

  /// Calls f(begin, end, composed) for each stretch of valid UTF-8 that is not in form C, in order.
  template <class F>
  void for_each_change(std::string_view text, F&& f) const {
    std::string composed;
    int before = 0;  // combining class of the last character
    for (std::size_t at = 0, done = 0; at < text.size();) {
      if (const std::size_t plain = ascii(text, at); plain > 0) {
        at += plain, before = 0;
        continue;
      }
      const Utf8Char c = utf8_next(text, at);
      const int own = is_starter(c.code) ? 0 : combining_class(c.code);
      if (is_starter(c.code) || (!joins(c.code) && own >= before)) {
        at += c.length, before = own;
        continue;
      }
      const std::size_t begin = starter_before(text, done, at);
      at = done = starter_after(text, at + c.length), before = 0;
      const std::string_view stretch = text.substr(begin, done - begin);
      compose(stretch, composed);
      if (composed != stretch) f(begin, done, std::string_view(composed));
    }
  }

 private:
  // Nothing below is a mark or joins what is before it; no plane above the third holds letters or marks.
  static constexpr char32_t first_ = 0x300, end_ = 0x40000;
  static constexpr std::size_t longest_ = 32;  // characters that one comes apart into; 4 in Unicode 17

  // Derived from what utf8proc does with single characters, which its interface promises, and not from its tables,
  // whose layout has changed between versions.
  Nfc() : joins_(end_), starter_(end_, true) {
    std::array<utf8proc_int32_t, longest_> parts{};
    for (char32_t c = 0xC0; c < end_; ++c) {
      if (combining_class(c) != 0) starter_[c] = false;
      std::size_t count = take_apart(c, parts);
      if (count == 1 && parts[0] == static_cast<utf8proc_int32_t>(c)) continue;
      const auto last = static_cast<std::size_t>(parts[count - 1]);
      count = join(std::span(parts).first(count));
      const std::size_t changes = count == 1 && parts[0] == static_cast<utf8proc_int32_t>(c) ? last : c;
      joins_[changes] = true, starter_[changes] = false;
    }
  }

  /// Changes by itself or may join a character before it: NFC_Quick_Check is not yes.
  [[nodiscard]] bool joins(char32_t c) const { return c >= first_ && c < end_ && joins_[c]; }
  /// Neither a mark nor joins: what is before and what follows are composed independently.
  [[nodiscard]] bool is_starter(char32_t c) const { return c < first_ || c >= end_ || starter_[c]; }
  static int combining_class(char32_t c) {
    return static_cast<int>(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class);
  }
  // How many bytes from `at` on are surely ASCII: 8 or 0.
  static std::size_t ascii(std::string_view text, std::size_t at) {
    std::uint64_t eight = 0;
    if (at + 8 > text.size()) return 0;
    std::memcpy(&eight, text.data() + at, 8);
    return (eight & 0x8080808080808080U) == 0 ? 8 : 0;
  }
  [[nodiscard]] std::size_t starter_before(std::string_view text, std::size_t floor, std::size_t at) const {
    while (at > floor) {
      do --at;
      while ((static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U);
      if (is_starter(utf8_next(text, at).code)) break;
    }
    return at;
  }
  [[nodiscard]] std::size_t starter_after(std::string_view text, std::size_t at) const {
    while (at < text.size()) {
      const Utf8Char c = utf8_next(text, at);
      if (is_starter(c.code)) break;
      at += c.length;
    }
    return at;
  }

  static std::size_t take_apart(char32_t c, std::span<utf8proc_int32_t> parts) {
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                static_cast<utf8proc_ssize_t>(parts.size()), UTF8PROC_DECOMPOSE, nullptr);
    if (count > 0 && static_cast<std::size_t>(count) <= parts.size()) return static_cast<std::size_t>(count);
    parts[0] = static_cast<utf8proc_int32_t>(c);  // not a character
    return 1;
  }
  // Composes parts that are in canonical order, in place; returns how many are left.
  static std::size_t join(std::span<utf8proc_int32_t> parts) {
    constexpr auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    return static_cast<std::size_t>(
        utf8proc_normalize_utf32(parts.data(), static_cast<utf8proc_ssize_t>(parts.size()), options));
  }
  // Canonical order: each row of marks by class, those of one class as they stood. utf8proc's own ordering takes
  // quadratic time, which a hostile row of marks would use.
  static void order(std::vector<utf8proc_int32_t>& all) {
    struct Mark {
      int rank;
      std::size_t place;
      utf8proc_int32_t code;
    };
    std::vector<Mark> row;
    for (std::size_t i = 0; i <= all.size(); ++i) {
      const int rank = i < all.size() ? combining_class(static_cast<char32_t>(all[i])) : 0;
      if (rank != 0) {
        row.push_back({rank, i, all[i]});
        continue;
      }
      std::sort(row.begin(), row.end(),
                [](const Mark& a, const Mark& b) { return a.rank != b.rank ? a.rank < b.rank : a.place < b.place; });
      for (std::size_t j = 0; j < row.size(); ++j) all[i - row.size() + j] = row[j].code;
      row.clear();
    }
  }
  static void compose(std::string_view text, std::string& out) {
    std::vector<utf8proc_int32_t> all;
    std::array<utf8proc_int32_t, longest_> parts{};
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Char c = utf8_next(text, at);
      all.insert(all.end(), parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(take_apart(c.code, parts)));
      at += c.length;
    }
    order(all);
    all.resize(join(all));
    out.clear();
    for (const utf8proc_int32_t c : all) append_utf8(out, static_cast<char32_t>(c));
  }

  std::vector<bool> joins_, starter_;
};

}  // namespace detail

/// Read: null, `NFC`, a `Sequence` of these. Everything else is refused with tk_unsupported, because leaving it out
/// silently gives other tokens.
class Normalizer {
 public:
  /// Reads the value of the key `normalizer`.
  static Normalizer parse(const Json& json) {
    Normalizer result;
    result.add(json, 0);
    return result;
  }

  /// The normalized text: `text` itself, uncopied, if nothing changes, else `storage`. The text is valid UTF-8, the
  /// ranges in it ascend. They come back as ranges of the result, without a character that is partly outside of them.
  [[nodiscard]] std::string_view normalize(std::string_view text, std::span<TextRange> ranges,
                                           std::string& storage) const {
    if (nfc_ == nullptr) return text;
    bool changed = false;
    std::size_t done = 0, edge = 0;  // edges are begin and end of each range in turn
    storage.clear();
    const auto position = [&](std::size_t i) -> std::size_t& {
      return i % 2 ? ranges[i / 2].end : ranges[i / 2].begin;
    };
    const auto move_edges = [&](std::size_t to) {  // those at `to` or before: nothing changes between `done` and there
      for (; edge < 2 * ranges.size() && position(edge) <= to; ++edge) position(edge) += storage.size() - done;
    };
    nfc_->for_each_change(text, [&](std::size_t begin, std::size_t end, std::string_view composed) {
      changed = true;
      storage.reserve(text.size());
      move_edges(begin);
      storage.append(text.substr(done, begin - done)).append(composed);
      for (; edge < 2 * ranges.size() && position(edge) < end; ++edge)
        position(edge) = edge % 2 ? storage.size() - composed.size() : storage.size();
      done = end;
    });
    if (!changed) return text;
    move_edges(text.size());
    storage.append(text.substr(done));
    for (TextRange& range : ranges) range.end = std::max(range.begin, range.end);
    return storage;
  }
  [[nodiscard]] std::string normalize(std::string_view text) const {
    std::string storage;
    return std::string(normalize(text, {}, storage));
  }

  /// Of the utf8proc that is linked in, such as "15.0.0".
  [[nodiscard]] static std::string unicode_version() { return utf8proc_unicode_version(); }

 private:
  void add(const Json& json, int depth) {
    if (json.is_null()) return;
    const std::string_view type = json["type"].string();
    if (type == "NFC") {
      nfc_ = &detail::Nfc::shared();
    } else if (type == "Sequence" && depth <= 4) {
      json["normalizers"].for_each_element([&](const Json& step) { add(step, depth + 1); });
    } else {
      json.fail(
          ErrorCode::tk_unsupported,
          {"the normalizer \"", type,
           "\" is not supported (NFC, none and a Sequence of these are); leaving it out would give other tokens"});
    }
  }

  const detail::Nfc* nfc_ = nullptr;
};

}  // namespace v1
}  // namespace guild
