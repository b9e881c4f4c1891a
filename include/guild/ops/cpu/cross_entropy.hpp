// Cross entropy's rows on the CPU: the row kernel, or a variant for the instruction set.
#pragma once

#include <guild/ops/cpu/cross_entropy_avx2.hpp>
#include <guild/ops/cpu/wide_rows.hpp>

#if defined(__x86_64__)
namespace guild::inline v1 {

inline void run_rows(Cpu& device, Index rows, Index row_work, const CrossEntropyRow<float>& row) {
  detail::run_wide_rows<cpu::avx2::CrossEntropyRow8>(device, rows, row_work, row);
}

}  // namespace guild::inline v1
#endif
