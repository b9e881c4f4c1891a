// What experiments share: options, processor time, and logs that are resumed arm by arm. Programs print one JSON object
// a line into a log; a line that is there is not run again.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/core/refuse.hpp>

namespace runs {

using guild::Index;

/// Seconds of this process on its processors: other work on the machine hardly touches them.
inline double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Parts of a text between commas.
inline std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(','), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

/// Pairs "--name value" of a command line, over the defaults of a program. Throws op_argument for other names.
class Options {
 public:
  Options(std::map<std::string, std::string> defaults, int argc, char** argv) : values_(std::move(defaults)) {
    for (int i = 1; i < argc; i += 2) {
      const std::string_view name = argv[i];
      const auto known = name.substr(0, 2) == "--" ? values_.find(std::string(name.substr(2))) : values_.end();
      if (known == values_.end() || i + 1 == argc)
        guild::detail::refuse(guild::ErrorCode::op_argument,
                              {name, " is no option, or has no value; there are: ", names()});
      known->second = argv[i + 1];
    }
  }
  [[nodiscard]] const std::string& operator[](const std::string& name) const { return values_.at(name); }
  [[nodiscard]] double number(const std::string& name) const { return std::atof(values_.at(name).c_str()); }
  [[nodiscard]] Index integer(const std::string& name) const { return std::atoll(values_.at(name).c_str()); }
  [[nodiscard]] std::vector<std::string> list(const std::string& name) const { return split(values_.at(name)); }

 private:
  [[nodiscard]] std::string names() const {
    std::string all;
    for (const auto& [name, value] : values_) all.append(all.empty() ? "--" : " --").append(name);
    return all;
  }
  std::map<std::string, std::string> values_;
};

/// Lines of JSON in a file, and on the screen.
class Log {
 public:
  explicit Log(std::string path) : path_(std::move(path)) {
    std::ifstream file(path_);
    bool cut_off = false;
    for (std::string line; std::getline(file, line); cut_off = file.eof())
      if (line.ends_with('}')) lines_.push_back(line);
    if (cut_off) std::ofstream(path_, std::ios::app) << "\n";  // by the end of a run: its line is written again
  }
  /// Whole ones.
  [[nodiscard]] const std::vector<std::string>& lines() const { return lines_; }
  /// Whether a line begins as this one does.
  [[nodiscard]] bool has(std::string_view begin) const {
    for (const std::string& line : lines_)
      if (line.starts_with(begin)) return true;
    return false;
  }
  void add(const std::string& line) {
    std::ofstream(path_, std::ios::app) << line << "\n";
    lines_.push_back(line);
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

 private:
  std::string path_;
  std::vector<std::string> lines_{};
};

/// One line in the making.
class Line {
 public:
  Line(std::string_view arm, std::uint64_t seed, Index steps) {
    text_ = guild::detail::text_of(
        {"{\"arm\": \"", arm, "\", \"seed\": ", static_cast<Index>(seed), ", \"steps\": ", steps});
  }
  /// What tells a line from others: its arm, its seed, its steps.
  [[nodiscard]] std::string begin() const { return text_ + ","; }
  void add(std::string_view name, double value, int digits = 4) {
    char number[64];
    std::snprintf(number, sizeof number, "%.*f", digits, value);
    text_.append(", \"").append(name).append("\": ").append(number);
  }
  /// A list of numbers, as text.
  void list(std::string_view name, std::string_view numbers) {
    text_.append(", \"").append(name).append("\": [").append(numbers).append("]");
  }
  [[nodiscard]] std::string text() const { return text_ + "}"; }

 private:
  std::string text_;
};

/// A model to be trained under a name.
template <class Setting>
struct Arm {
  const char* name;
  void (*run)(Log&, const char*, const Setting&);
};

}  // namespace runs
