// The sum of squares of many tensors together: the square of a global gradient norm.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/optimizer/rows/sum_of_squares.hpp>

namespace guild {
inline namespace v1 {

/// The sum of x^2 over all elements of all tensors, in double and in an order that depends on nothing but their sizes.
/// NaN or infinite if an element is: the squares of finite floats never overflow it.
template <class Device>
[[nodiscard]] double sum_of_squares(Device& device, std::span<const DeviceView<const float>> tensors) {
  auto scratch = device.scratch();
  Index pieces = 0;
  for (const auto& x : tensors) {
    detail::require_size(x, x.size, "sum_of_squares");
    pieces += pieces_of(x.size);
  }
  if (pieces == 0) return 0.0;
  const View partial = scratch.template take<double>(pieces);
  // The descriptions of the work stay in host memory whatever the device.
  std::span<const SumOfSquaresJob<float>> jobs;
  const auto fill = [&](SumOfSquaresJob<float>* job) {
    jobs = {job, tensors.size()};
    Index begin = 0;
    for (const auto& x : tensors) {
      *job++ = {x, partial.slice(begin, pieces_of(x.size))};
      begin += pieces_of(x.size);
    }
  };
  const View total = scratch.template take<double>(1);
  const SumOfPartialsJob last{partial, total};
  if constexpr (requires { copy_to_host(device, View<const double>(), View<double>()); }) {
    std::vector<SumOfSquaresJob<float>> host(tensors.size());
    fill(host.data());
    for_each_piece(device, jobs);
    for_each_piece(device, std::span<const SumOfPartialsJob>(&last, 1));
    double sum = 0.0;
    copy_to_host(device, View<const double>(total), View<double>(&sum, 1));
    return sum;
  } else {
    fill(scratch.template take<SumOfSquaresJob<float>>(static_cast<Index>(tensors.size())).data);
    for_each_piece(device, jobs);
    for_each_piece(device, std::span<const SumOfPartialsJob>(&last, 1));
    return total[0];
  }
}

}  // namespace v1
}  // namespace guild
