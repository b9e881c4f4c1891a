// SwiGLU's rows on the CPU: the row kernels, or variants for the instruction set.
#pragma once

#include <guild/ops/cpu/swiglu_avx2.hpp>
#include <guild/ops/cpu/wide_rows.hpp>

#if defined(__x86_64__)
namespace guild::inline v1 {

inline void run_rows(Cpu& device, Index rows, Index row_work, const SwigluRow<float>& row) {
  detail::run_wide_rows<cpu::avx2::SwigluRow8>(device, rows, row_work, row);
}
inline void run_rows(Cpu& device, Index rows, Index row_work, const SwigluBackwardRow<float>& row) {
  detail::run_wide_rows<cpu::avx2::SwigluBackwardRow8>(device, rows, row_work, row);
}
inline void run_rows(Cpu& device, Index rows, Index row_work, const ExpertSwigluBackwardRow<float>& row) {
  detail::run_wide_rows<cpu::avx2::ExpertSwigluBackwardRow8>(device, rows, row_work, row);
}

}  // namespace guild::inline v1
#endif
