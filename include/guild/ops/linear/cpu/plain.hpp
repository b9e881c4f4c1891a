// Matrix products in double with plain loops: what gradients are checked with. Not made for speed.
#pragma once

#include <algorithm>
#include <guild/device/cpu.hpp>
#include <guild/ops/linear/job.hpp>
#include <span>

namespace guild {
inline namespace v1 {
namespace cpu::plain {

inline constexpr Index chunk_rows = 16;  ///< rows of output of a chunk

/// Calls run(job number, first row, end row, worker) for all pieces of `rows_of(job)` rows of all jobs.
template <class Job, class RowsOf, class Run>
void for_each_piece(Cpu& device, std::span<const Job> jobs, RowsOf rows_of, Run run) {
  Arena::Frame frame = device.scratch();
  const View first = frame.take<Index>(static_cast<Index>(jobs.size()) + 1);
  first[0] = 0;
  for (std::size_t i = 0; i < jobs.size(); ++i)
    first[static_cast<Index>(i) + 1] = first[static_cast<Index>(i)] + (rows_of(jobs[i]) + chunk_rows - 1) / chunk_rows;
  device.run(first[first.size - 1], [&](Index chunk, int worker) {
    const Index job = std::upper_bound(first.begin(), first.end(), chunk) - first.begin() - 1;
    const Job& it = jobs[static_cast<std::size_t>(job)];
    const Index begin = (chunk - first[job]) * chunk_rows;
    run(it, begin, std::min(begin + chunk_rows, rows_of(it)), worker);
  });
}

/// Row r of the weight in double; `buffer` holds it unless it is stored so.
inline const double* weight_row(const WeightView& w, Index r, double* buffer) {
  if (w.format == DType::f64) return w.row<double>(r);
  expand_row(w, r, 0, w.cols, buffer);
  return buffer;
}

}  // namespace cpu::plain

inline void run_linear(Cpu& device, std::span<const BasicLinearJob<double>> jobs) {
  using Job = BasicLinearJob<double>;
  Arena::Frame frame = device.scratch();
  Index longest = 0;
  for (const Job& job : jobs) longest = std::max(longest, job.weight.cols);
  const View rows = frame.take<double>(device.threads(), longest);
  const View sums = frame.take<double>(device.threads() * cpu::plain::chunk_rows, longest);  // of x W
  const auto piece = [&](const Job& job, Index begin, Index end, int worker) {
    const WeightView& w = job.weight;
    const bool transposed = job.product == Product::x_wt;
    const auto put = [&](Index t, Index i, double value) {
      job.y(t, i) = job.update == Update::add ? job.y(t, i) + value : value;
    };
    double* sum = sums.data + worker * cpu::plain::chunk_rows * longest;
    if (!transposed) std::fill_n(sum, (end - begin) * longest, 0.0);
    for (Index r = 0; r < w.rows; ++r) {
      const double* row = cpu::plain::weight_row(w, r, rows.data + worker * longest);
      for (Index t = begin; t < end; ++t) {
        const double* x = job.x.data + (job.gather != nullptr ? Index{job.gather[t]} : t) * job.x.pitch;
        double product = 0.0;
        if (transposed) {
          for (Index c = 0; c < w.cols; ++c) product += x[c] * row[c];
          put(t, r, product);
        } else {
          for (Index c = 0; c < w.cols; ++c) sum[(t - begin) * longest + c] += x[r] * row[c];
        }
      }
    }
    for (Index t = begin; !transposed && t < end; ++t)
      for (Index c = 0; c < w.cols; ++c) put(t, c, sum[(t - begin) * longest + c]);
  };
  cpu::plain::for_each_piece(device, jobs, [](const Job& job) { return job.y.rows; }, piece);
}

inline void run_weight_gradient(Cpu& device, std::span<const WeightGradientJob<double>> jobs) {
  using Job = WeightGradientJob<double>;
  constexpr Index most_rows = cpu::plain::chunk_rows;
  Arena::Frame frame = device.scratch();
  Index longest = 0;
  for (const Job& job : jobs) longest = std::max(longest, job.dw.cols);
  const View sums = frame.take<double>(device.threads() * most_rows, longest);
  const auto piece = [&](const Job& job, Index begin, Index end, int worker) {
    double* sum = sums.data + worker * most_rows * longest;
    std::fill_n(sum, (end - begin) * longest, 0.0);
    for (Index t = 0; t < job.rows; ++t) {
      const double* dy = job.dy.data + (job.dy_gather != nullptr ? Index{job.dy_gather[t]} : t) * job.dy.pitch;
      const double* x = job.x.data + (job.x_gather != nullptr ? Index{job.x_gather[t]} : t) * job.x.pitch;
      for (Index o = begin; o < end; ++o)
        for (Index i = 0; i < job.dw.cols; ++i) sum[(o - begin) * longest + i] += dy[o] * x[i];
    }
    for (Index o = begin; o < end; ++o)
      for (Index i = 0; i < job.dw.cols; ++i) job.dw(o, i) += sum[(o - begin) * longest + i];
  };
  cpu::plain::for_each_piece(device, jobs, [](const Job& job) { return job.rows > 0 ? job.dw.rows : 0; }, piece);
}

}  // namespace v1
}  // namespace guild
