// Frozen goldens, one line each: fields between tabs, \xHH for what is not printable.
#pragma once

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "io_fixture.hpp"

namespace guild_test {

inline std::vector<std::string_view> fields(std::string_view line) {
  std::vector<std::string_view> out;
  for (std::size_t tab = 0; (tab = line.find('\t')) != std::string_view::npos; line.remove_prefix(tab + 1))
    out.push_back(line.substr(0, tab));
  out.push_back(line);
  return out;
}
inline std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    int value = 0;
    std::from_chars(text.data() + i + 2, text.data() + i + 4, value, 16);
    out += static_cast<char>(value);
    i += 3;
  }
  return out;
}
inline std::vector<int> ids(std::string_view text) {
  std::vector<int> out;
  const char* at = text.data();
  while (at < text.data() + text.size()) {
    int value = 0;
    at = std::from_chars(at, text.data() + text.size(), value).ptr + 1;
    out.push_back(value);
  }
  return out;
}
template <class F>
int for_each_line(const std::string& file, F&& f) {
  const std::string text = fixture("tokenizer/" + file);
  int count = 0;
  for (std::size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1, ++count)
    f(fields(std::string_view(text).substr(begin, end - begin)));
  return count;
}

}  // namespace guild_test
