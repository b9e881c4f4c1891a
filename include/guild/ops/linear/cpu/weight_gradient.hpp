// Gradients of weight matrices on the CPU: each chunk of the one parallel region computes a block of one dw, over all
// rows of its job.
#pragma once

#include <guild/ops/linear/cpu/linear.hpp>
#include <guild/ops/linear/cpu/plain.hpp>

namespace guild {
inline namespace v1 {
namespace cpu {

/// How one dw is cut: chunk i of the job covers part i % col_parts of the columns and part i / col_parts of the rows.
struct GradientPlan {
  Index first_chunk = 0;
  Index row_step = 1;
  Index col_step = 1;
  Index row_parts = 0;
  Index col_parts = 0;
};

/// Cuts a job into chunks of about `chunk_products` multiply-adds. Where it is cut changes no result.
inline GradientPlan plan_of(const WeightGradientJob<float>& job, Index first_chunk, Index chunk_products) {
  GradientPlan plan{first_chunk};
  if (job.rows == 0 || job.dw.rows == 0 || job.dw.cols == 0) return plan;
  constexpr Index row_unit = 12, col_unit = 32;  // whole tiles, whole panels
  plan.row_parts = (job.dw.rows + gemm_tokens - 1) / gemm_tokens;
  plan.col_parts = (job.dw.cols + gemm_rows - 1) / gemm_rows;
  for (;;) {
    plan.row_step = std::min(round_up((job.dw.rows + plan.row_parts - 1) / plan.row_parts, row_unit), gemm_tokens);
    plan.col_step = round_up((job.dw.cols + plan.col_parts - 1) / plan.col_parts, col_unit);
    // Smaller blocks spend more of their time on packing.
    const bool rows_divide = plan.row_step >= 6 * row_unit, cols_divide = plan.col_step >= 3 * col_unit;
    if (job.rows * plan.row_step * plan.col_step <= chunk_products || (!rows_divide && !cols_divide)) break;
    if (rows_divide && (plan.row_step > plan.col_step || !cols_divide))
      ++plan.row_parts;
    else
      ++plan.col_parts;
  }
  plan.row_parts = (job.dw.rows + plan.row_step - 1) / plan.row_step;
  plan.col_parts = (job.dw.cols + plan.col_step - 1) / plan.col_step;
  return plan;
}

inline void run_chunk(const WeightGradientJob<float>& job, const GradientPlan& plan, Index chunk, float* scratch,
                      const LinearKernels& kernels) {
  GradientBlock block;
  block.dy = {job.dy.data, job.dy.pitch, job.dy_gather, job.rows, job.dy.cols};
  block.x = {job.x.data, job.x.pitch, job.x_gather, job.rows, job.x.cols};
  block.row_begin = chunk / plan.col_parts * plan.row_step;
  block.row_end = std::min(block.row_begin + plan.row_step, job.dw.rows);
  block.col_begin = chunk % plan.col_parts * plan.col_step;
  block.col_end = std::min(block.col_begin + plan.col_step, job.dw.cols);
  block.dw = job.dw.data + block.row_begin * job.dw.pitch + block.col_begin;
  block.pitch = job.dw.pitch;
  block.scratch = scratch;
  kernels.gradient(block);
}

}  // namespace cpu

/// The CPU's side of `weight_gradient`; shapes are checked by the front door.
inline void run_weight_gradient(Cpu& device, std::span<const WeightGradientJob<float>> jobs, Isa isa) {
  const cpu::LinearKernels& kernels = cpu::linear_kernels(isa);
  Arena::Frame frame = device.scratch();
  const View plans = frame.take<cpu::GradientPlan>(static_cast<Index>(jobs.size()));
  Index products = 0, chunks = 0;
  for (const auto& job : jobs) products += job.rows * job.dw.rows * job.dw.cols;
  // Fewer chunks than of other products: each packs its own inputs, over all rows of the job.
  const Index chunk_products =
      device.threads() == 1 ? products : std::max(products / (4 * device.threads()), Index{4} << 20);
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    cpu::GradientPlan& plan = plans[static_cast<Index>(i)] = cpu::plan_of(jobs[i], chunks, chunk_products);
    chunks += plan.row_parts * plan.col_parts;
  }
  if (chunks == 0) return;
  const View scratch = frame.take<float>(device.threads(), cpu::gemm_scratch);
  device.run(chunks, [&](Index chunk, int worker) {
    const Index job = cpu::job_of(chunk, plans);
    cpu::run_chunk(jobs[static_cast<std::size_t>(job)], plans[job], chunk - plans[job].first_chunk,
                   scratch.data + worker * cpu::gemm_scratch, kernels);
  });
}
inline void run_weight_gradient(Cpu& device, std::span<const WeightGradientJob<float>> jobs) {
  run_weight_gradient(device, jobs, device.isa());
}

}  // namespace v1
}  // namespace guild
