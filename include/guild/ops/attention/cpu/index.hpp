// The index of sparse attention on the CPU.
#pragma once

#include <guild/device/cpu.hpp>
#include <guild/ops/attention/cpu/index_plain.hpp>
#include <guild/ops/attention/index_job.hpp>
#include <span>

namespace guild {
inline namespace v1 {

inline void run_index_scores(Cpu& device, std::span<const BasicIndexScoresJob<float, float>> jobs,
                             const IndexSizes& sizes) {
  cpu::plain_index_scores(device, jobs, sizes);
}
inline void run_index_scores(Cpu& device, std::span<const BasicIndexScoresJob<float, bf16>> jobs,
                             const IndexSizes& sizes) {
  cpu::plain_index_scores(device, jobs, sizes);
}
inline void run_index_scores(Cpu& device, std::span<const BasicIndexScoresJob<double, double>> jobs,
                             const IndexSizes& sizes) {
  cpu::plain_index_scores(device, jobs, sizes);
}

inline void run_index_scores_backward(Cpu& device, std::span<const IndexScoresGradientJob<float>> jobs,
                                      const IndexSizes& sizes) {
  cpu::plain_index_scores_backward(device, jobs, sizes);
}
inline void run_index_scores_backward(Cpu& device, std::span<const IndexScoresGradientJob<double>> jobs,
                                      const IndexSizes& sizes) {
  cpu::plain_index_scores_backward(device, jobs, sizes);
}

inline void run_index_loss(Cpu& device, std::span<const IndexLossJob<float>> jobs, const ExpandedAttentionSizes& sizes,
                           float weight) {
  cpu::plain_index_loss(device, jobs, sizes, weight);
}
inline void run_index_loss(Cpu& device, std::span<const IndexLossJob<double>> jobs,
                           const BasicExpandedAttentionSizes<double>& sizes, double weight) {
  cpu::plain_index_loss(device, jobs, sizes, weight);
}

}  // namespace v1
}  // namespace guild
