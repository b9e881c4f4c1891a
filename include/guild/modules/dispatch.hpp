// How the rows of tokens reach the experts that serve them, and how what experts make comes home.
#pragma once

#include <concepts>

#include <guild/core/view.hpp>
#include <guild/ops/experts/assignment.hpp>

namespace guild {
inline namespace v1 {

/// Between routing and experts. At home T tokens have S slots, as `assign_experts` sorted them; with the experts there
/// are T' rows and S' slots (bounds, known on the host), which `Route` tells. Static functions, D columns each:
///
///   Route route(device, const Assignment& home, memory);   // once for each choice; backward gets the same
///   DeviceView<const Real, 2> send(device, route, x, memory);        // [T, D] -> [T', D]: the rows of tokens
///   DeviceView<const Real> send_slots(device, route, w_s, memory);   // [S] -> [S']: a number for each slot
///   DeviceView<const Real, 2> collect(device, route, y_s, memory);   // [S', D] -> [S, D]: the rows of slots
///   DeviceView<const Real> collect_slots(device, route, w_s, memory);  // [S'] -> [S]
///
/// Results may be views of the argument, or of what is taken from `memory`. Rows are copied, never changed, and the
/// slots of an expert keep their order: so sums keep theirs, and the bits do not depend on where experts live. Backward
/// sends x again instead of keeping what arrived: memory is scarcer than the way.
template <class D>
concept Dispatch = requires(const typename D::Route& route) {
  { route.assignment } -> std::convertible_to<const Assignment&>;  // rows and slots where the experts are
};

/// The experts are on this device: nothing moves.
struct Here {
  struct Route {
    Assignment assignment;
  };
  template <class Device, class Memory>
  static Route route(Device&, const Assignment& home, Memory&) {
    return {home};
  }
  template <class Device, class Real, class Memory>
  static DeviceView<Real, 2> send(Device&, const Route&, DeviceView<Real, 2> x, Memory&) {
    return x;
  }
  template <class Device, class Real, class Memory>
  static DeviceView<Real> send_slots(Device&, const Route&, DeviceView<Real> w_s, Memory&) {
    return w_s;
  }
  template <class Device, class Real, class Memory>
  static DeviceView<Real, 2> collect(Device&, const Route&, DeviceView<Real, 2> y_s, Memory&) {
    return y_s;
  }
  template <class Device, class Real, class Memory>
  static DeviceView<Real> collect_slots(Device&, const Route&, DeviceView<Real> w_s, Memory&) {
    return w_s;
  }
};

}  // namespace v1
}  // namespace guild
