// Gradients of expanded attention on the CPU.
#pragma once

#include <guild/ops/cpu/attention_plain.hpp>
#include <span>

namespace guild::inline v1 {

inline void run_expanded_attention_backward(Cpu& device, std::span<const ExpandedAttentionGradientJob<float>> jobs,
                                            const ExpandedAttentionSizes& sizes) {
  cpu::plain_expanded_attention_backward(device, jobs, sizes);
}
inline void run_expanded_attention_backward(Cpu& device, std::span<const ExpandedAttentionGradientJob<double>> jobs,
                                            const BasicExpandedAttentionSizes<double>& sizes) {
  cpu::plain_expanded_attention_backward(device, jobs, sizes);
}

}  // namespace guild::inline v1
