// JSON Lines: one JSON value a line, as data sets and logs are kept.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/io/file.hpp>
#include <guild/io/json.hpp>

namespace guild {
inline namespace v1 {

/// Where a line lies in its file.
struct LinePlace {
  std::int64_t number = 1;  ///< counts from 1
  std::int64_t byte = 0;    ///< of its first character
};

/// Cuts a text that arrives in pieces into lines. A line ends with "\n" or with the text; "\r\n" leaves the "\r", which
/// is white space to JSON.
class LineCutter {
 public:
  /// Calls f(std::string_view line, LinePlace) for each line that ends in `piece`. What is left is kept.
  template <class F>
  void push(std::string_view piece, F&& f) {
    for (std::size_t end = 0; (end = piece.find('\n')) != std::string_view::npos; piece.remove_prefix(end + 1)) {
      if (held_.empty()) {
        emit(piece.substr(0, end), f);
      } else {
        held_ += piece.substr(0, end);
        emit(held_, f);
        held_.clear();
      }
      ++place_.byte;
    }
    held_ += piece;
  }
  /// Calls f for the last line if the text ended without a line end.
  template <class F>
  void finish(F&& f) {
    if (!held_.empty()) emit(held_, f);
    held_.clear();
  }
  /// Bytes of the unfinished line.
  [[nodiscard]] std::size_t held() const { return held_.size(); }
  [[nodiscard]] const LinePlace& place() const { return place_; }

 private:
  template <class F>
  void emit(std::string_view line, F& f) {
    f(line, std::as_const(place_));
    ++place_.number;
    place_.byte += static_cast<std::int64_t>(line.size());
  }

  LinePlace place_;
  std::string held_;
};

/// JSON Lines from a file or a text. Every error names `path:line`.
struct JsonLines {
  std::size_t max_line = std::size_t{64} << 20;   ///< bytes; a longer line throws io_too_large
  std::size_t read_bytes = std::size_t{1} << 20;  ///< how much of the file is held at a time

  /// Calls f(Json value, LinePlace) for each line of a file that is not blank. `rules.path` is set to `path:line`.
  /// Throws io_* and the codes of the rules; what f throws passes through.
  template <class F>
  void read(const std::string& path, const JsonRules& rules, F&& f) const {
    const File file = File::open(path);
    std::string piece;
    LineCutter cutter;
    const auto parse = [&](std::string_view line, const LinePlace& place) { value(path, line, place, rules, f); };
    for (std::uint64_t done = 0; done < file.size(); done += piece.size()) {
      piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(read_bytes, file.size() - done)));
      file.read_at(done, piece.data(), piece.size());
      cutter.push(piece, parse);
      if (cutter.held() > max_line) too_long(path, cutter.place());
    }
    cutter.finish(parse);
  }
  /// The same for a text in memory; `name` stands for the path in messages.
  template <class F>
  void parse(std::string_view text, const std::string& name, const JsonRules& rules, F&& f) const {
    LineCutter cutter;
    const auto one = [&](std::string_view line, const LinePlace& place) { value(name, line, place, rules, f); };
    cutter.push(text, one);
    cutter.finish(one);
  }

  /// How messages name a line.
  [[nodiscard]] static std::string name_of(const std::string& path, const LinePlace& place) {
    return path + ":" + std::to_string(place.number);
  }

 private:
  template <class F>
  void value(const std::string& path, std::string_view line, const LinePlace& place, JsonRules rules, F& f) const {
    if (line.size() > max_line) too_long(path, place);
    if (place.byte == 0 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);  // a byte order mark
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
    rules.path = name_of(path, place);
    rules.first_line = place.number;
    rules.first_byte = place.byte;
    f(Json::parse(line, std::move(rules)), place);
  }
  [[noreturn]] void too_long(const std::string& path, const LinePlace& place) const {
    detail::refuse(ErrorCode::io_too_large,
                   {"the line has more than ", max_line,
                    " bytes. JSON Lines hold one value a line: check that this is the right file"},
                   detail::At{name_of(path, place), {}, place.byte});
  }
};

}  // namespace v1
}  // namespace guild
