// The CPU side of guild: `guild::Cpu`, and its kernels for the operations that need more than rows. Whatever runs on a
// `Cpu` includes it, or guild/guild.hpp; the modules and models that it runs do not, as guild/cuda.cuh may stand here.
// Kernels are found by argument-dependent lookup, so include this before or after them as you like.
#pragma once

#include <guild/device/cpu.hpp>
#include <guild/ops/attention/cpu/attention.hpp>
#include <guild/ops/attention/cpu/backward.hpp>
#include <guild/ops/attention/cpu/index.hpp>
#include <guild/ops/attention/cpu/index_backward.hpp>
#include <guild/ops/attention/cpu/index_loss.hpp>
#include <guild/ops/experts/cpu/assignment.hpp>
#include <guild/ops/experts/cpu/grouped.hpp>
#include <guild/ops/linear/cpu/linear.hpp>
#include <guild/ops/linear/cpu/plain.hpp>
#include <guild/ops/linear/cpu/weight_gradient.hpp>
#include <guild/ops/optimizer/cpu/adamw.hpp>

namespace guild {
inline namespace v1 {

/// Stands for the kernels above, see ops/common/twins.hpp.
struct CpuTwins {};

}  // namespace v1
}  // namespace guild
