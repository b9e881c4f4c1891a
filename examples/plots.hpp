// Pictures of a training run from its log: curves of loss, rate and gradient norm, and a heat map of expert loads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <guild/io/file.hpp>
#include <guild/io/json.hpp>

namespace plots {

struct Curve {
  std::string title;
  std::vector<double> x, y;
};

inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, std::abs(value) >= 0.01 && std::abs(value) < 1e4 ? "%.3g" : "%.1e", value);
  return value == 0.0 ? "0" : text;
}

/// A line chart, 800 x 300. Many points are thinned to one per pixel: the least and largest of what falls together.
inline std::string line_chart(const Curve& curve) {
  constexpr double left = 70, right = 780, top = 40, bottom = 260;
  double low = INFINITY, high = -INFINITY;
  for (const double y : curve.y) low = std::min(low, y), high = std::max(high, y);
  if (!(high > low)) low -= 0.5, high += 0.5;
  const double first = curve.x.empty() ? 0.0 : curve.x.front(),
               last = std::max(curve.x.empty() ? 1.0 : curve.x.back(), first + 1);
  const auto px = [&](double x) { return left + (x - first) / (last - first) * (right - left); };
  const auto py = [&](double y) { return bottom - (y - low) / (high - low) * (bottom - top); };
  std::string svg =
      "<svg xmlns='http://www.w3.org/2000/svg' width='800' height='300' font-family='sans-serif' font-size='12'>\n"
      "<rect width='800' height='300' fill='white'/>\n<text x='70' y='24' font-size='15'>" +
      curve.title + "</text>\n";
  for (int i = 0; i <= 4; ++i) {
    const double y = low + (high - low) * i / 4, x = first + (last - first) * i / 4;
    svg += "<line x1='70' x2='780' y1='" + number(py(y)) + "' y2='" + number(py(y)) + "' stroke='#ddd'/>\n";
    svg += "<text x='64' y='" + number(py(y) + 4) + "' text-anchor='end'>" + number(y) + "</text>\n";
    svg +=
        "<text x='" + number(px(x)) + "' y='280' text-anchor='middle'>" + std::to_string(std::lround(x)) + "</text>\n";
  }
  svg +=
      "<text x='425' y='296' text-anchor='middle'>step</text>\n<polyline fill='none' stroke='#1a5fb4' "
      "stroke-width='1.2' points='";
  const std::size_t stride = std::max<std::size_t>(1, curve.y.size() / 700);
  char point[48];
  for (std::size_t i = 0; i < curve.y.size(); i += stride) {
    const auto end = curve.y.begin() + static_cast<std::ptrdiff_t>(std::min(i + stride, curve.y.size()));
    const auto [least, most] = std::minmax_element(curve.y.begin() + static_cast<std::ptrdiff_t>(i), end);
    for (const double y : {*least, *most}) {
      std::snprintf(point, sizeof point, "%.1f,%.1f ", px(curve.x[i]), py(y));
      svg += point;
      if (stride == 1) break;
    }
  }
  return svg + "'/>\n</svg>\n";
}

/// Rows: layers; columns: experts; colour: the expert's share of its layer's tokens times the number of experts, so
/// that white is balance, red is too many and blue too few. Rows may have names of their own.
inline std::string heat_map(const std::string& title, const std::vector<std::vector<double>>& loads,
                            const std::vector<std::string>& names = {}) {
  std::size_t experts = 0;
  for (const auto& layer : loads) experts = std::max(experts, layer.size());
  const double cell = experts > 32 ? 18 : 40, width = 90 + cell * static_cast<double>(experts) + 10;
  const double height = 60 + cell * static_cast<double>(loads.size());
  std::string svg = "<svg xmlns='http://www.w3.org/2000/svg' width='" + std::to_string(static_cast<int>(width)) +
                    "' height='" + std::to_string(static_cast<int>(height)) +
                    "' font-family='sans-serif' font-size='11'>\n<rect width='100%' height='100%' fill='white'/>\n"
                    "<text x='10' y='22' font-size='15'>" +
                    title + "</text>\n";
  char text[256];
  for (std::size_t l = 0; l < loads.size(); ++l) {
    const double y = 40 + cell * static_cast<double>(l);
    const std::string name = l < names.size() ? names[l] : std::string("layer ").append(std::to_string(l));
    std::snprintf(text, sizeof text, "<text x='10' y='%.0f'>%s%s</text>\n", y + cell / 2 + 4, name.c_str(),
                  loads[l].empty() ? ": dense" : "");
    svg += text;
    for (std::size_t e = 0; e < loads[l].size(); ++e) {
      const double load = loads[l][e] * static_cast<double>(loads[l].size());
      const double away = std::min(1.0, std::abs(load - 1.0));
      const int faint = static_cast<int>(255 - 190 * away);
      std::snprintf(text, sizeof text,
                    "<rect x='%.0f' y='%.0f' width='%.0f' height='%.0f' fill='rgb(%d,%d,%d)' stroke='#ccc'/>\n"
                    "<text x='%.0f' y='%.0f' text-anchor='middle'>%.2f</text>\n",
                    90 + cell * static_cast<double>(e), y, cell, cell, load >= 1 ? 255 : faint, faint,
                    load >= 1 ? faint : 255, 90 + cell * (static_cast<double>(e) + 0.5), y + cell / 2 + 4, load);
      svg += text;
    }
  }
  return svg + "</svg>\n";
}

/// Reads a log of guild::TrainingLog and writes loss.svg, rate.svg, gradient_norm.svg and expert_load.svg (the mean
/// over the last tenth of the steps) into a folder.
inline void write_all(const std::string& log, const std::string& folder) {
  Curve loss{"loss", {}, {}}, rate{"learning rate", {}, {}}, norm{"gradient norm", {}, {}};
  std::vector<std::vector<std::vector<double>>> loads;
  const std::string text = guild::read_text(log, std::size_t{1} << 32);
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const guild::Json json = guild::Json::parse(std::string_view(text).substr(begin, end - begin), {.path = log});
    const auto step = json.find("step"), found = json.find("loss");
    if (!step || !found || found->is_null()) continue;
    for (auto& [curve, key] : {std::pair<Curve&, const char*>{loss, "loss"}, {rate, "rate"}, {norm, "gradient_norm"}})
      if (const auto value = json.find(key); value && !value->is_null()) {
        curve.x.push_back(static_cast<double>(step->integer()));
        curve.y.push_back(value->number());
      }
    auto& layers = loads.emplace_back();
    json["expert_load"].for_each_element([&](const guild::Json& layer) {
      auto& row = layers.emplace_back();
      layer.for_each_element([&](const guild::Json& load) { row.push_back(load.number()); });
    });
  }
  std::vector<std::vector<double>> mean;
  const std::size_t last = std::max<std::size_t>(1, loads.size() / 10);
  for (std::size_t i = loads.size() - std::min(last, loads.size()); i < loads.size(); ++i) {
    mean.resize(std::max(mean.size(), loads[i].size()));
    for (std::size_t l = 0; l < loads[i].size(); ++l) {
      mean[l].resize(std::max(mean[l].size(), loads[i][l].size()));
      for (std::size_t e = 0; e < loads[i][l].size(); ++e) mean[l][e] += loads[i][l][e] / static_cast<double>(last);
    }
  }
  const auto write = [&](const char* name, const std::string& svg) { std::ofstream(folder + "/" + name) << svg; };
  write("loss.svg", line_chart(loss));
  write("rate.svg", line_chart(rate));
  write("gradient_norm.svg", line_chart(norm));
  write("expert_load.svg", heat_map("expert load, 1 is balance", mean));
}

}  // namespace plots
