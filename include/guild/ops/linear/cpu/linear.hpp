// Matrix products on the CPU: one parallel region cuts all jobs of a call into chunks of about equal work.
#pragma once

#include <algorithm>
#include <guild/device/cpu.hpp>
#include <guild/device/isa.hpp>
#include <guild/ops/linear/cpu/axpy_avx512.hpp>
#include <guild/ops/linear/cpu/baseline.hpp>
#include <guild/ops/linear/cpu/dot_avx512.hpp>
#include <guild/ops/linear/cpu/gemm_avx2.hpp>
#include <guild/ops/linear/cpu/gemm_avx512.hpp>
#include <guild/ops/linear/cpu/gemm_avx512_bf16.hpp>
#include <guild/ops/linear/job.hpp>
#include <span>

namespace guild {
inline namespace v1 {
namespace cpu {

#if defined(__x86_64__)
namespace avx512 {
inline constexpr LinearKernels kernels = {dot, gemm, axpy, gradient, gate};
}
namespace avx512_bf16 {
inline constexpr LinearKernels kernels = {avx512::dot, gemm, avx512::axpy, avx512::gradient, avx512::gate};
}
#endif

/// The kernels of a variant, which must run here.
[[nodiscard]] inline const LinearKernels& linear_kernels(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16) return avx512_bf16::kernels;
  if (isa == Isa::avx512) return avx512::kernels;
  if (isa == Isa::avx2) return avx2::kernels;
#endif
  static_cast<void>(isa);
  return baseline::kernels;
}

/// True if all variants have kernels that expand this format in registers.
[[nodiscard]] inline bool has_kernels(const Format& format) {
  return format == DType::f32 || format == DType::bf16 || format == DType::f16 || format == DType::f8_e4m3;
}

/// How one job is cut: chunk i of the job covers part i % row_parts of the outputs and part i / row_parts of the
/// inputs.
struct LinearPlan {
  Index first_chunk = 0;
  Index row_parts = 0;
  Index row_step = 0;
  Index token_parts = 0;
  Index token_step = 0;
};

struct LinearWork {
  int matrices = 1;
  const WeightView* weight[2] = {};
  Product product = Product::x_wt;
  InputRows x;
  View<float, 2> y;
  Update update = Update::overwrite;
};

inline LinearWork work_of(const LinearJob& job) {
  return {1,           {&job.weight, nullptr},
          job.product, {job.x.data, job.x.pitch, job.gather, job.y.rows, job.x.cols},
          job.y,       job.update};
}
inline LinearWork work_of(const GatedJob& job) {
  return {2, {&job.gate, &job.up}, Product::x_wt, {job.x.data, job.x.pitch, job.gather, job.h.rows, job.x.cols}, job.h};
}

/// Multiply-adds of a job.
inline Index products_of(const LinearWork& work) { return work.y.rows * work.y.cols * work.x.cols * work.matrices; }

inline bool is_gemm(const LinearWork& work) { return is_gemm(work.product, work.weight[0]->format, work.y.rows); }

/// Cuts a job. Where it is cut changes no result: every output is summed in the same order in any block.
inline LinearPlan plan_of(const LinearWork& work, Index first_chunk, Index chunk_products) {
  constexpr Index chunk_bytes = 128 << 10;  // some microseconds of reading
  const Index tokens = work.y.rows, outputs = work.y.cols;
  LinearPlan plan{first_chunk, 0, 1, 0, 1};
  if (tokens == 0 || outputs == 0) return plan;
  const WeightView& w = *work.weight[0];
  const Index depth = std::max(Index{1}, work.x.cols) * work.matrices;
  const Index streamed =
      std::clamp(chunk_bytes / std::max(Index{1}, depth * bits(w.format.element) / 8), Index{1}, outputs);
  if (is_gemm(work)) {
    plan.token_step = gemm_tokens;
    plan.row_step = std::clamp(chunk_products / (std::min(tokens, gemm_tokens) * depth) / 32 * 32, Index{32},
                               gemm_rows / work.matrices);
    if (work.x.cols <= gemm_depth)
      plan.token_step *= std::clamp(chunk_products / (gemm_tokens * depth * std::min(outputs, plan.row_step)), Index{1},
                                    most_gemm_blocks);
  } else if (work.product == Product::x_w) {
    plan.token_step = 64;
    plan.row_step = round_up(streamed, axpy_cols);
  } else {
    plan.token_step = tokens;
    plan.row_step = round_up(streamed, 4);
  }
  // Equal parts: 226 rows are 126 + 100, not 224 + 2. Only the last part may end within a tile of 14.
  plan.token_parts = (tokens + plan.token_step - 1) / plan.token_step;
  plan.token_step = round_up((tokens + plan.token_parts - 1) / plan.token_parts, is_gemm(work) ? 14 : 1);
  plan.token_parts = (tokens + plan.token_step - 1) / plan.token_step;
  plan.row_parts = (outputs + plan.row_step - 1) / plan.row_step;
  if (is_gemm(work)) plan.row_step = round_up((outputs + plan.row_parts - 1) / plan.row_parts, 32);
  plan.row_parts = (outputs + plan.row_step - 1) / plan.row_step;
  return plan;
}

/// The second matrix of a gated job, or a small product that is to be added, is finished in scratch.
inline bool has_buffer(const LinearWork& work) {
  return work.matrices == 2 || (work.update == Update::add && !is_gemm(work));
}

inline Index scratch_of(const LinearWork& work, const LinearPlan& plan) {
  Index floats = 0;
  if (is_gemm(work))
    floats = gemm_scratch;
  else if (work.product == Product::x_wt)
    floats = dot_scratch(work.y.rows, work.x.cols);
  if (has_buffer(work)) floats += round_up(plan.token_step * plan.row_step, 16);
  return round_up(floats, 16);
}

inline void run_chunk(const LinearWork& work, const LinearPlan& plan, Index chunk, float* scratch,
                      const LinearKernels& variant) {
  const bool special =
      has_kernels(work.weight[0]->format) && (work.matrices == 1 || has_kernels(work.weight[1]->format));
  const LinearKernels& kernels = special ? variant : baseline::kernels;
  const Index token = chunk / plan.row_parts * plan.token_step;
  const Index tokens = std::min(plan.token_step, work.y.rows - token);
  LinearBlock block;
  block.product = work.product;
  block.update = work.update;
  block.matrices = work.matrices;
  block.weight[0] = work.weight[0];
  block.weight[1] = work.weight[1];
  block.begin = chunk % plan.row_parts * plan.row_step;
  block.end = std::min(block.begin + plan.row_step, work.y.cols);
  block.x = work.x.middle_rows(token, tokens);
  block.out[0] = work.y.data + token * work.y.pitch + block.begin;
  block.pitch[0] = work.y.pitch;
  if (has_buffer(work)) {
    block.out[work.matrices - 1] = scratch;
    block.pitch[work.matrices - 1] = plan.row_step;
    scratch += round_up(plan.token_step * plan.row_step, 16);
  }
  block.scratch = scratch;
  if (is_gemm(work))
    kernels.gemm(block);
  else if (work.product == Product::x_w)
    kernels.axpy(block);
  else
    kernels.dot(block);
  if (work.update == Update::add && has_buffer(work)) {
    for (Index t = 0; t < tokens; ++t) {
      float* y = work.y.data + (token + t) * work.y.pitch + block.begin;
      const float* product = block.out[0] + t * block.pitch[0];
      for (Index r = 0; r < block.end - block.begin; ++r) y[r] += product[r];
    }
  }
  if (work.matrices == 2) {
    for (Index t = 0; t < tokens; ++t)
      kernels.gate(block.out[0] + t * block.pitch[0], block.out[1] + t * block.pitch[1], block.end - block.begin);
  }
}

/// Multiply-adds of a chunk: at least eight chunks a thread where there is enough work, each of at most a millisecond
/// or two.
inline Index chunk_products_of(Index products, int threads) {
  return std::clamp(products / (8 * threads), Index{4} << 20, Index{128} << 20);
}

/// The job to which a chunk belongs.
template <class Plan>
Index job_of(Index chunk, View<Plan> plans) {
  const auto after = std::upper_bound(plans.begin(), plans.end(), chunk,
                                      [](Index c, const Plan& plan) { return c < plan.first_chunk; });
  return after - plans.begin() - 1;
}

template <class Job>
void run_jobs(Cpu& device, std::span<const Job> jobs, const LinearKernels& kernels) {
  Arena::Frame frame = device.scratch();
  const auto count = static_cast<Index>(jobs.size());
  const View<LinearPlan> plans = frame.take<LinearPlan>(count);
  Index products = 0, chunks = 0, floats = 0;
  for (const Job& job : jobs) products += products_of(work_of(job));
  const Index chunk_products = chunk_products_of(products, device.threads());
  for (Index i = 0; i < count; ++i) {
    const LinearWork work = work_of(jobs[static_cast<std::size_t>(i)]);
    plans[i] = plan_of(work, chunks, chunk_products);
    const Index parts = plans[i].row_parts * plans[i].token_parts;
    if (parts > 0) floats = std::max(floats, scratch_of(work, plans[i]));
    chunks += parts;
  }
  if (chunks == 0) return;
  const View<float, 2> scratch = frame.take<float>(device.threads(), floats);
  device.run(chunks, [&](Index chunk, int worker) {
    const Index job = job_of(chunk, plans);
    run_chunk(work_of(jobs[static_cast<std::size_t>(job)]), plans[job], chunk - plans[job].first_chunk,
              scratch.data + worker * floats, kernels);
  });
}

}  // namespace cpu

/// The CPU's side of `linear` and `gated_linear`; shapes are checked by the front doors.
inline void run_linear(Cpu& device, std::span<const LinearJob> jobs, Isa isa) {
  cpu::run_jobs(device, jobs, cpu::linear_kernels(isa));
}
inline void run_gated_linear(Cpu& device, std::span<const GatedJob> jobs, Isa isa) {
  cpu::run_jobs(device, jobs, cpu::linear_kernels(isa));
}
inline void run_linear(Cpu& device, std::span<const LinearJob> jobs) { run_linear(device, jobs, device.isa()); }
inline void run_gated_linear(Cpu& device, std::span<const GatedJob> jobs) {
  run_gated_linear(device, jobs, device.isa());
}

}  // namespace v1
}  // namespace guild
