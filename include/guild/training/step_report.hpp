// What one step of training did.
#pragma once

#include <cstdint>

#include <guild/training/objective.hpp>

namespace guild {
inline namespace v1 {

enum class StepOutcome : std::uint8_t {
  applied,  ///< the weights have changed
  skipped,  ///< a gradient or a selection bias was not finite: weights, moments, biases and average are as before
};

struct StepReport {
  Index step = 0;  ///< from 1
  StepOutcome outcome = StepOutcome::applied;
  LossReport losses;           ///< sums over the supervised tokens of the step
  BalanceTerms balance{};      ///< summed over the layers, times their coefficients
  double rate = 0.0;           ///< the schedule's factor times the optimizer's rate
  double gradient_norm = 0.0;  ///< before clipping
  double busiest = 0.0;        ///< load of the busiest expert over the mean, of the worst layer; 0 without experts
  Index idle_experts = 0;      ///< experts that served no token of this step
  Index tokens = 0;            ///< of this step
  Index skipped_steps = 0;     ///< so far
  Index memory_bytes = 0;      ///< weights, gradients, moments, activations and scratch
  double seconds = 0.0;

  [[nodiscard]] double tokens_per_second() const { return seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0; }
};

}  // namespace v1
}  // namespace guild
