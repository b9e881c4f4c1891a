// Row kernels that have a variant for an instruction set of the CPU.
#pragma once

#include <guild/device/cpu.hpp>

namespace guild::inline v1 {

/// Runs a row kernel: this one where nothing better is known. Overloads for a device and a kernel run variants of it.
template <class Device, class Row>
void run_rows(Device& device, Index rows, Index row_work, const Row& row) {
  for_each_row(device, rows, row_work, row);
}

namespace detail {
/// Runs `Wide`, made of `row`, where the Cpu's kernels are AVX2 or better; or else `row`.
template <class Wide, class Row>
void run_wide_rows(Cpu& device, Index rows, Index row_work, const Row& row) {
  if (device.isa() != Isa::baseline)
    for_each_row(device, rows, row_work, Wide{row});
  else
    for_each_row(device, rows, row_work, row);
}
}  // namespace detail

}  // namespace guild::inline v1
