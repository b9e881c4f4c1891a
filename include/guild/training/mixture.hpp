// Several data sets at once, each with its share.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/training/curriculum.hpp>
#include <guild/training/data_position.hpp>
#include <guild/training/dataset.hpp>
#include <guild/training/shuffle.hpp>

namespace guild {
inline namespace v1 {

/// In which order a source's samples are drawn. Endless sources are always sequential.
enum class SampleOrder : std::uint8_t {
  shuffled,    ///< each once an epoch, in a new order every epoch
  sequential,  ///< 0, 1, 2, ..., and again
};

/// A data set and its share of the draws.
struct Source {
  AnyDataset data;
  double weight = 1;   ///< only proportions count; without use if there is a curriculum
  std::string name{};  ///< for messages
  SampleOrder order = SampleOrder::shuffled;
};

/// What training draws from. Shares count samples, not tokens. They are met as closely as can be: each draw pays every
/// source its share and takes from the one that is owed most (ties: the first), which then pays one draw. So after any
/// number of draws of fixed shares a source is less than one draw above its share, and less than the number of sources
/// below. (Smooth weighted round robin, as of the nginx load balancer; here in integers of 2^-32.)
struct Mixture {
  std::vector<Source> sources{};
  Curriculum curriculum{};
};

/// Which sample comes next, as a function of a DataPosition.
class MixtureWalk {
 public:
  struct Draw {
    std::size_t source = 0;
    Index sample = 0;
    friend bool operator==(const Draw&, const Draw&) = default;
  };

  /// Throws in_param (weights, curriculum) and dt_empty (no source, a source without samples).
  MixtureWalk(Mixture mixture, std::uint64_t seed) : mixture_(std::move(mixture)), seed_(seed) {
    const auto& sources = mixture_.sources;
    if (sources.empty()) detail::refuse(ErrorCode::dt_empty, "the mixture has no source; give at least one");
    std::vector<double> weights;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      sizes_.push_back(sources[i].data.size());
      if (sizes_.back() < 1) detail::refuse(ErrorCode::dt_empty, "has no samples", detail::At{{}, name(i)});
      weights.push_back(sources[i].weight);
    }
    mixture_.curriculum.check(sources.size());
    if (mixture_.curriculum.stages.empty()) {
      Curriculum::check_weights(weights);
      mixture_.curriculum.stages = {{.at = 0, .weights = std::move(weights)}};
      mixture_.curriculum.length = 1;
    }
    shares_.resize(sources.size());
    pay_.resize(sources.size());
  }

  [[nodiscard]] std::size_t size() const { return sizes_.size(); }
  [[nodiscard]] const AnyDataset& data(std::size_t source) const { return mixture_.sources[source].data; }
  [[nodiscard]] Index samples(std::size_t source) const { return sizes_[source]; }
  [[nodiscard]] std::string name(std::size_t source) const {
    const std::string& given = mixture_.sources[source].name;
    return given.empty() ? "source " + std::to_string(source) : given;
  }

  /// The draw that follows a position.
  [[nodiscard]] Draw peek(const DataPosition& position) {
    mixture_.curriculum.shares(progress(position), shares_);
    std::size_t largest = 0;
    std::int64_t left = one_;
    for (std::size_t i = 0; i < size(); ++i) {
      pay_[i] = std::llround(shares_[i] * static_cast<double>(one_));
      left -= pay_[i];
      if (pay_[i] > pay_[largest]) largest = i;
    }
    pay_[largest] += left;  // what rounding left over, so that all that is paid is one draw
    std::size_t chosen = largest;
    for (std::size_t i = size(); i-- > 0;)
      if (shares_[i] > 0 && owed(position, i) >= owed(position, chosen)) chosen = i;
    return {chosen, sample(chosen, position.sources[chosen].drawn)};
  }
  /// Moves the position on by the draw that `peek` has just given for it.
  void take(const Draw& draw, DataPosition& position) const {
    for (std::size_t i = 0; i < size(); ++i) position.sources[i].credit += pay_[i];
    position.sources[draw.source].credit -= one_;
    ++position.sources[draw.source].drawn;
    ++position.samples;
  }

  [[nodiscard]] DataPosition begin() const {
    DataPosition position;
    position.fingerprint = fingerprint();
    position.sources.resize(size());
    return position;
  }
  /// Throws dt_position unless the position can be one of this data and seed.
  void check(const DataPosition& position) const {
    const auto bad = [](const std::string& message) {
      detail::refuse(ErrorCode::dt_position, {message, ". Resume with the data and the seed of the saved run"});
    };
    if (position.sources.size() != size())
      bad("the position is of " + std::to_string(position.sources.size()) + " sources, the data have " +
          std::to_string(size()));
    if (position.fingerprint != fingerprint())
      bad("the position is of data with another seed, order or number of samples");
    Index drawn = 0;
    for (const SourcePosition& source : position.sources) {
      const std::int64_t limit = one_ * (4 * static_cast<std::int64_t>(size()) + 4);
      if (source.drawn < 0 || source.drawn > position.samples - drawn || source.credit > limit ||
          source.credit < -limit)
        bad("the position has impossible counts");
      drawn += source.drawn;
    }
    if (drawn != position.samples || position.batches < 0 || position.tokens < 0 || position.cut < 0 ||
        position.dropped < 0)
      bad("the position has impossible counts");
  }

 private:
  static constexpr std::int64_t one_ = std::int64_t{1} << 32;

  [[nodiscard]] std::int64_t owed(const DataPosition& position, std::size_t i) const {
    return position.sources[i].credit + pay_[i];
  }
  [[nodiscard]] Index progress(const DataPosition& position) const {
    switch (mixture_.curriculum.unit) {
      case CurriculumUnit::samples:
        return position.samples;
      case CurriculumUnit::tokens:
        return position.tokens;
      case CurriculumUnit::batches:
        break;
    }
    return position.batches;
  }
  // The n-th draw of a source.
  [[nodiscard]] Index sample(std::size_t source, Index n) const {
    const Index size = sizes_[source];
    if (size == endless || mixture_.sources[source].order == SampleOrder::sequential) return n % size;
    return Permutation(size, derive_seed(seed_, source), static_cast<std::uint64_t>(n / size))(n % size);
  }
  [[nodiscard]] Index fingerprint() const {  // FNV-1a
    std::uint64_t hash = 0xCBF29CE484222325U;
    const auto add = [&](std::uint64_t value) {
      for (int i = 0; i < 8; ++i) hash = (hash ^ (value >> (8 * i) & 0xFFU)) * 0x100000001B3U;
    };
    add(seed_);
    for (std::size_t i = 0; i < size(); ++i) {
      add(static_cast<std::uint64_t>(sizes_[i]));
      add(static_cast<std::uint64_t>(mixture_.sources[i].order));
    }
    return static_cast<Index>(hash >> 1);
  }

  Mixture mixture_;
  std::uint64_t seed_;
  std::vector<Index> sizes_;
  std::vector<double> shares_;     // of the last peek
  std::vector<std::int64_t> pay_;  // the same in integers
};

}  // namespace v1
}  // namespace guild
