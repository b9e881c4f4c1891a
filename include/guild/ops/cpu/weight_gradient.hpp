// Gradients of weight matrices on the CPU.
#pragma once

#include <guild/ops/cpu/linear_plain.hpp>

namespace guild::inline v1 {

inline void run_weight_gradient(Cpu& device, std::span<const WeightGradientJob<float>> jobs) {
  cpu::plain::weight_gradient(device, jobs);
}

}  // namespace guild::inline v1
