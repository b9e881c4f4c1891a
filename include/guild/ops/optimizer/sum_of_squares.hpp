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
  Staged<Device, SumOfSquaresJob<float>> jobs(device, static_cast<Index>(tensors.size()));
  Index begin = 0;
  for (const auto& x : tensors) {
    jobs.add({x, partial.slice(begin, pieces_of(x.size))});
    begin += pieces_of(x.size);
  }
  const View total = scratch.template take<double>(1);
  const SumOfPartialsJob last{partial, total};
  for_each_piece(device, jobs.ready());
  for_each_piece(device, std::span<const SumOfPartialsJob>(&last, 1));
  return Download(device, total).view()[0];
}

}  // namespace v1
}  // namespace guild
