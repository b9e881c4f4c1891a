// How the shares of the sources change while a model is trained.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// The shares at one moment.
struct CurriculumStage {
  double at = 0;                  ///< 0: the beginning, 1: the end of the curriculum
  std::vector<double> weights{};  ///< one for each source; only their proportions count, 0: not drawn
};

/// What a curriculum is measured in.
enum class CurriculumUnit : std::uint8_t { batches, samples, tokens };

/// Shares that change linearly from stage to stage; before the first and after the last they stand still. Two stages at
/// one place make a jump. Without stages the weights of the sources hold throughout.
struct Curriculum {
  std::vector<CurriculumStage> stages{};
  Index length = 0;  ///< units from at = 0 to at = 1
  CurriculumUnit unit = CurriculumUnit::batches;

  /// Throws in_param unless the stages come in order within 0..1, each with `sources` weights that are finite, not
  /// negative and not all 0, and the length is positive.
  void check(std::size_t sources) const {
    if (stages.empty()) return;
    const auto bad = [](const std::string& message) { detail::refuse(ErrorCode::in_param, message, "curriculum"); };
    if (length < 1)
      bad("has the length " + std::to_string(length) + ", expected the number of batches (or of its unit)");
    double last = 0;
    for (const CurriculumStage& stage : stages) {
      if (!(stage.at >= last && stage.at <= 1))
        bad("has a stage at " + std::to_string(stage.at) + ", expected places from 0 to 1 in ascending order");
      last = stage.at;
      if (stage.weights.size() != sources)
        bad("has a stage with " + std::to_string(stage.weights.size()) + " weights for " + std::to_string(sources) +
            " sources");
      check_weights(stage.weights);
    }
  }
  /// Throws in_param unless all weights are finite and not negative, and one of them is positive.
  static void check_weights(std::span<const double> weights) {
    double sum = 0;
    for (const double weight : weights) {
      if (!(weight >= 0) || !std::isfinite(weight))
        detail::refuse(ErrorCode::in_param, {"has the weight ", weight, ", expected 0 or more"}, "mixture");
      sum += weight;
    }
    if (!(sum > 0) || !std::isfinite(sum))
      detail::refuse(ErrorCode::in_param, {"has weights with the sum ", sum, "; one must be positive"}, "mixture");
  }

  /// The shares (their sum is 1) after `done` units. Needs stages.
  void shares(Index done, std::span<double> out) const {
    const double place = static_cast<double>(done) / static_cast<double>(length);
    std::size_t next = 0;  // the first stage that is still to come
    while (next < stages.size() && stages[next].at <= place) ++next;
    const CurriculumStage& from = stages[next == 0 ? 0 : next - 1];
    const CurriculumStage& to = stages[std::min(next, stages.size() - 1)];
    const double way = to.at > from.at ? (place - from.at) / (to.at - from.at) : 0;
    const double from_scale = (1 - way) / sum(from.weights), to_scale = way / sum(to.weights);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = from.weights[i] * from_scale + to.weights[i] * to_scale;
  }

 private:
  static double sum(std::span<const double> weights) {
    double total = 0;
    for (const double weight : weights) total += weight;
    return total;
  }
};

}  // namespace v1
}  // namespace guild
