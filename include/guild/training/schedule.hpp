// Learning-rate schedules: a factor of the base rate for each step.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// The course of a piece from its first factor to its last.
enum class Course : std::uint8_t { constant, linear, cosine };

/// `steps` steps during which the factor goes from `from` to `to`.
struct SchedulePiece {
  Index steps = 0;
  Course course = Course::constant;
  double from = 1.0;
  double to = 1.0;  ///< the same as `from` in a constant piece
};

/// Pieces one after the other; after the last the factor stays. Steps count from 0. A rising piece reaches `to` in its
/// last step, so that a warm-up from 0 wastes no step; a falling one begins with `from` in its first, and what follows
/// begins with its `to`. Factories throw op_argument for what is no schedule.
class Schedule {
 public:
  /// Always 1.
  Schedule() = default;
  [[nodiscard]] static Schedule constant() { return {}; }

  /// Any pieces. DeepSeek-V3's (report, section 4.2) are: linear 0 to 1, constant 1, cosine 1 to 0.1, constant 0.1, and
  /// constant 0.033.
  [[nodiscard]] static Schedule piecewise(std::vector<SchedulePiece> pieces) {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const SchedulePiece& piece = pieces[i];
      const auto fail = [&](detail::ErrorText message) {
        detail::refuse(ErrorCode::op_argument, message, detail::text_of({"Schedule: piece ", i}));
      };
      if (piece.steps < 0) fail({"the piece has ", piece.steps, " steps, expected 0 or more"});
      for (const double factor : {piece.from, piece.to})
        if (!(factor >= 0.0) || !std::isfinite(factor))
          fail({"a factor is ", factor, ", expected a finite number that is not negative"});
      if (piece.course == Course::constant && piece.from != piece.to)
        fail({"a constant piece goes from ", piece.from, " to ", piece.to, "; make it linear, or both factors equal"});
    }
    Schedule schedule;
    schedule.pieces_ = std::move(pieces);
    return schedule;
  }

  /// Linear from 0 to 1 in `warmup` steps, then along half a cosine to `final_fraction`, which is reached at step
  /// `total` (SGDR, arXiv 1608.03983, without restarts).
  [[nodiscard]] static Schedule warmup_cosine(Index warmup, Index total, double final_fraction = 0.1) {
    if (total < warmup)
      detail::refuse(ErrorCode::op_argument,
                     {"the schedule has ", total, " steps in all, but ", warmup, " of warm-up; make the total larger"},
                     "Schedule::warmup_cosine");
    return piecewise({{warmup, Course::linear, 0.0, 1.0}, {total - warmup, Course::cosine, 1.0, final_fraction}});
  }

  /// Linear from 0 to 1, constant, and linear to `final_fraction`, in so many steps each (arXiv 2404.06395).
  [[nodiscard]] static Schedule warmup_stable_decay(Index warmup, Index stable, Index decay,
                                                    double final_fraction = 0.0) {
    return piecewise({{warmup, Course::linear, 0.0, 1.0},
                      {stable, Course::constant, 1.0, 1.0},
                      {decay, Course::linear, 1.0, final_fraction}});
  }

  /// The factor for step 0, 1, ... Throws op_argument for a negative step.
  [[nodiscard]] double operator()(Index step) const {
    if (step < 0)
      detail::refuse(ErrorCode::op_argument, {"step ", step, " was asked for; steps count from 0"}, "Schedule");
    double factor = 1.0;
    for (const SchedulePiece& piece : pieces_) {
      if (step < piece.steps) return value(piece, step);
      step -= piece.steps;
      factor = piece.to;
    }
    return factor;
  }

  /// Steps until the factor stays what it is.
  [[nodiscard]] Index steps() const {
    Index sum = 0;
    for (const SchedulePiece& piece : pieces_) sum += piece.steps;
    return sum;
  }
  [[nodiscard]] const std::vector<SchedulePiece>& pieces() const { return pieces_; }

 private:
  static double value(const SchedulePiece& piece, Index step) {
    const Index done = piece.to > piece.from ? step + 1 : step;
    const double t = static_cast<double>(done) / static_cast<double>(piece.steps);
    switch (piece.course) {
      case Course::linear:
        return piece.from * (1.0 - t) + piece.to * t;
      case Course::cosine:
        return piece.to + (piece.from - piece.to) * 0.5 * (1.0 + std::cos(3.141592653589793 * t));
      case Course::constant:
        break;
    }
    return piece.from;
  }

  std::vector<SchedulePiece> pieces_;
};

}  // namespace v1
}  // namespace guild
