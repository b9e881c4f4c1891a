// Products of experts: each slot meets the weights of the expert that owns it. Bounds are known on the host, how many
// slots an expert has is read on the device.
#pragma once

#include <cstdint>
#include <guild/ops/cpu/experts.hpp>
#include <guild/ops/gated_linear.hpp>
#include <span>
#include <type_traits>

namespace guild::inline v1 {

/// y[s] = x[row of s] W^T (or x W) for every slot s, W = weight_of(e) of the expert e that owns s: offsets [E + 1] as
/// `assign_experts` gives them. The row of s is gather[s], or s itself without gather; y has a row for each slot.
/// `weight_of` is called on the host and returns a WeightView.
template <class Real, class WeightOf>
struct GroupedLinear {
  WeightOf weight_of;
  View<const std::int32_t> offsets;
  View<const Real, 2> x;
  View<Real, 2> y;
  const std::int32_t* gather = nullptr;
  Product product = Product::x_wt;
  Update update = Update::overwrite;
};

/// h[s] = silu(x Wgate^T) * (x Wup^T) for every slot, the first half of its expert's SwiGLU. `gate_out` and `up_out`,
/// as h, get both products where they have data.
template <class GateOf, class UpOf, class Real>
struct GroupedGated {
  GateOf gate_of;
  UpOf up_of;
  View<const std::int32_t> offsets;
  View<const Real, 2> x;
  View<Real, 2> h;
  const std::int32_t* gather = nullptr;
  View<Real, 2> gate_out{};
  View<Real, 2> up_out{};
};

/// dw(e) += sum over the slots s of expert e of dy[row of s]^T x[row of s]. `gradient_of(e)` returns the View of dw.
template <class Real, class GradientOf>
struct GroupedGradient {
  GradientOf gradient_of;
  View<const std::int32_t> offsets;
  View<const Real, 2> dy;
  View<const Real, 2> x;
  const std::int32_t* dy_gather = nullptr;
  const std::int32_t* x_gather = nullptr;
};

/// Runs the groups, and the jobs of `beside` with them, as one call of `linear`: numbers, errors and order are its.
template <class Real, class... WeightOf>
void grouped_linear(Cpu& device, std::span<const BasicLinearJob<Real>> beside,
                    const GroupedLinear<Real, WeightOf>&... groups) {
  Arena::Frame frame = device.scratch();
  Index most = static_cast<Index>(beside.size());
  ((most += groups.offsets.size), ...);
  cpu::JobList<BasicLinearJob<Real>> list(frame, most);
  for (const BasicLinearJob<Real>& job : beside) list.add(job);
  (cpu::for_each_used(groups.offsets,
                      [&](Index e, Index begin, Index rows) {
                        list.add({groups.weight_of(e), cpu::rows_of(groups.x, groups.gather, begin, rows),
                                  groups.y.middle_rows(begin, rows), cpu::gather_of(groups.gather, begin),
                                  groups.product, groups.update});
                      }),
   ...);
  linear(device, list.jobs());
}

namespace detail {
/// Two products for all groups, and one region that joins them.
template <class GateOf, class UpOf, class Real>
void grouped_gated_by_parts(Cpu& device, std::span<const BasicGatedJob<Real>> beside,
                            const GroupedGated<GateOf, UpOf, Real>& group) {
  GatedParts<Cpu, Real> parts(device, beside);
  const View<Real, 2> gate = parts.place(group.gate_out, group.h), up = parts.place(group.up_out, group.h);
  grouped_linear<Real>(device, parts.products(),
                       GroupedLinear<Real, GateOf>{group.gate_of, group.offsets, group.x, gate, group.gather},
                       GroupedLinear<Real, UpOf>{group.up_of, group.offsets, group.x, up, group.gather});
  parts.join();
  swiglu(device, gate, up, group.h);
}
}  // namespace detail

/// The same of `gated_linear`: the jobs of `beside` write both products if the groups do.
template <class GateOf, class UpOf, class Real>
void grouped_gated(Cpu& device, std::type_identity_t<std::span<const BasicGatedJob<Real>>> beside,
                   const GroupedGated<GateOf, UpOf, Real>& group) {
  if constexpr (std::is_same_v<Real, float>) {
    if (group.gate_out.data == nullptr) {
      Arena::Frame frame = device.scratch();
      cpu::JobList<GatedJob> list(frame, static_cast<Index>(beside.size()) + group.offsets.size);
      for (const GatedJob& job : beside) list.add(job);
      cpu::for_each_used(group.offsets, [&](Index e, Index begin, Index rows) {
        list.add({group.gate_of(e), group.up_of(e), cpu::rows_of(group.x, group.gather, begin, rows),
                  group.h.middle_rows(begin, rows), cpu::gather_of(group.gather, begin)});
      });
      gated_linear(device, list.jobs());
      return;
    }
  }
  detail::grouped_gated_by_parts(device, beside, group);
}

/// The same of `weight_gradient`.
template <class Real, class... GradientOf>
void grouped_gradient(Cpu& device, const GroupedGradient<Real, GradientOf>&... groups) {
  Arena::Frame frame = device.scratch();
  cpu::JobList<WeightGradientJob<Real>> list(frame, (groups.offsets.size + ...));
  (cpu::for_each_used(groups.offsets,
                      [&](Index e, Index begin, Index rows) {
                        list.add({rows, cpu::rows_of(groups.dy, groups.dy_gather, begin, rows),
                                  cpu::rows_of(groups.x, groups.x_gather, begin, rows), groups.gradient_of(e),
                                  cpu::gather_of(groups.dy_gather, begin), cpu::gather_of(groups.x_gather, begin)});
                      }),
   ...);
  weight_gradient(device, list.jobs());
}

}  // namespace guild::inline v1
