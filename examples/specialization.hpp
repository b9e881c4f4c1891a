// How much of a token's domain its experts know: tables of counts, and the information in them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/modules/routing_statistics.hpp>

namespace specialization {

using Table = std::vector<std::vector<double>>;

/// Counts become shares of one; no counts stay none.
inline std::vector<double> shares(std::vector<double> counts) {
  const double sum = std::accumulate(counts.begin(), counts.end(), 0.0);
  for (double& count : counts) count /= std::max(sum, 1.0);
  return counts;
}

/// The three that were counted most: "expert 3 0.41, expert 5 0.22, expert 0 0.11".
inline std::string leaders(const std::vector<double>& counts) {
  std::vector<double> left = shares(counts);
  std::string text;
  for (int i = 0; i < 3; ++i) {
    const auto most = std::max_element(left.begin(), left.end());
    char one[64];
    std::snprintf(one, sizeof one, "%sexpert %d %.2f", i > 0 ? ", " : "", static_cast<int>(most - left.begin()), *most);
    text += one;
    *most = -1;
  }
  return text;
}

/// The rows of a table together.
inline std::vector<double> sum(const Table& table) {
  std::vector<double> all(table.front().size());
  for (const auto& row : table)
    for (std::size_t c = 0; c < row.size(); ++c) all[c] += row[c];
  return all;
}

/// Bits that a count's row tells of its column, or its column of its row: sum p(r, c) log2(p(r, c) / (p(r) p(c))).
inline double information(const Table& table) {
  const std::vector<double> columns = sum(table);
  const double all = std::accumulate(columns.begin(), columns.end(), 0.0);
  double bits = 0;
  for (const auto& row : table) {
    const double of_row = std::accumulate(row.begin(), row.end(), 0.0);
    for (std::size_t c = 0; c < row.size(); ++c)
      if (row[c] > 0) bits += row[c] / all * std::log2(row[c] * all / (columns[c] * of_row));
  }
  return bits;
}

/// [domains, experts]: counts [samples, experts] added up, where sample i is of domain order[i] / samples of a domain.
inline Table by_domain(const Table& samples, const std::vector<std::size_t>& order, std::size_t domains) {
  Table table(domains, std::vector<double>(samples.front().size()));
  for (std::size_t i = 0; i < samples.size(); ++i)
    for (std::size_t e = 0; e < samples[i].size(); ++e) table[order[i] * domains / samples.size()][e] += samples[i][e];
  return table;
}

struct Specialization {
  guild::RoutingStatistics all{};
  Table loads{};      ///< [domains, experts]: of one layer
  double bits = 0;    ///< information between domain and expert
  double chance = 0;  ///< the same if samples had their domains by chance: what few samples show of none
};

using Samples = std::vector<guild::RoutingStatistics>;

/// Of a layer in as many samples of each domain, one domain after the other. Chance moves whole samples, because the
/// tokens of one resemble each other: it is the mean of 200 shuffles.
inline Specialization measure(const Samples& of_samples, int layer, std::size_t domains) {
  Specialization found;
  Table samples;  // [samples, experts]
  for (const guild::RoutingStatistics& sample : of_samples) {
    samples.emplace_back(sample.load(layer).begin(), sample.load(layer).end());
    found.all += sample;
  }
  std::vector<std::size_t> order(samples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  found.loads = by_domain(samples, order, domains);
  found.bits = information(found.loads);
  guild::Random random(5, 6);
  constexpr int rounds = 200;
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1], order[static_cast<std::size_t>(random.uniform() * static_cast<double>(i))]);
    found.chance += information(by_domain(samples, order, domains)) / rounds;
  }
  return found;
}

}  // namespace specialization
