// expect: the host does not read a device's memory: see host_view
// A module that reads its input on the host: the memory is the device's.
#include <guild/device/cpu.hpp>
#include <guild/modules/pass.hpp>

struct Doubling {
  template <class Device, class Real>
  static void forward(const guild::Pass<Device>& pass, guild::DeviceView<const Real, 2> x_td,
                      guild::DeviceView<Real, 2> y_td) {
#if defined(GUILD_FIXED)
    const auto x = host_view(pass.device, x_td);
    const auto y = host_view(pass.device, y_td);
#else
    const auto x = x_td;
    const auto y = y_td;
    (void)pass;
#endif
    for (guild::Index t = 0; t < x.rows; ++t)
      for (guild::Index i = 0; i < x.cols; ++i) y(t, i) = 2 * x(t, i);
  }
};

void run(guild::Cpu& device, guild::View<const float, 2> x, guild::View<float, 2> y) {
  Doubling::forward(guild::Pass{.device = device}, guild::DeviceView<const float, 2>(x), y);
}
