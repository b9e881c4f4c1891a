#include <cmath>
#include <cstdio>

#include <guild/guild.hpp>

// [begin]
/// y = x / |x| for each row. Written once: on a CPU the team is one thread, under nvcc a warp or a block.
struct Normalize {
  guild::View<const float, 2> x;
  guild::View<float, 2> y;

  template <class Team>
  GUILD_HD void operator()(Team team, guild::Index row) const {
    const float* in = &x(row, 0);
    float* out = &y(row, 0);
    const float squares = team.sum(x.cols, [=](guild::Index i) { return in[i] * in[i]; });
    const float scale = squares > 0.0f ? 1.0f / std::sqrt(squares) : 0.0f;
    team.for_each(x.cols, [=](guild::Index i) { out[i] = in[i] * scale; });
  }
};

void normalize(guild::Cpu& device, guild::DeviceView<const float, 2> x, guild::DeviceView<float, 2> y) {
  guild::for_each_row(device, x.rows, x.cols, Normalize{x, y});
}
// [end]

int main() {
  guild::Cpu device{{.threads = 2}};
  guild::Buffer<float> x(8), y(8);
  for (guild::Index i = 0; i < 8; ++i) x[i] = i < 4 ? 2.0f : 0.0f;
  normalize(device, x.view(2, 4), y.view(2, 4));
  std::printf("%g %g\n", static_cast<double>(y[0]), static_cast<double>(y[4]));
  return y[0] == 0.5f && y[4] == 0.0f ? 0 : 1;
}
