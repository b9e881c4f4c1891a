// Networks' activations, with a gate and without one, against torch's values and slopes.
#include <guild/ops/linear/activate.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <guild/device/cpu.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <string>

#include "../gradient_check.hpp"

namespace activate_test {
using namespace guild_test;

struct Known {
  guild::Activation kind;
  double z, value, slope;
};
constexpr Known known[] = {
#include "../../fixtures/activations.inc"
};

/// Float within an ulp or so of the argument, double within that of the library's functions.
template <class Real>
void expect_torch(double tolerance) {
  guild::Cpu device({.threads = 1});
  for (const Known& k : known) {
    const std::string what = std::string(name(k.kind)) + " of " + std::to_string(k.z);
    const double near = tolerance * (1.0 + std::abs(k.z));
    Matrix<Real> z(1, 1), h(1, 1), dh(1, 1), up(1, 1), dweights(1, 1), weights(1, 1);
    z(0, 0) = static_cast<Real>(k.z), dh(0, 0) = Real(2), up(0, 0) = Real(3), weights(0, 0) = Real(0.5);
    const auto once = z;
    guild::activate(device, z.view(), h.view(), {.kind = k.kind, .gated = false});
    EXPECT_NEAR(double(h(0, 0)), k.value, near) << what;
    guild::activate_backward(device, z.view(), dh.view(), {.kind = k.kind, .gated = false}, weights.view().row(0),
                             dweights.view().row(0));
    EXPECT_NEAR(double(z(0, 0)), k.slope, near) << what;  // 0.5 * 2 of it
    EXPECT_NEAR(double(dh(0, 0)), 0.5 * k.value, near) << what;
    EXPECT_NEAR(double(dweights(0, 0)), 2.0 * k.value, 2.0 * near) << what;
    if (k.kind == guild::Activation::relu_squared) continue;
    z = once, dh(0, 0) = Real(2);
    guild::swiglu(device, z.view(), up.view(), h.view(), {.kind = k.kind});
    EXPECT_NEAR(double(h(0, 0)), 3.0 * k.value, 3.0 * near) << what;
    guild::swiglu_backward(device, z.view(), up.view(), dh.view(), h.view(), {.kind = k.kind});
    EXPECT_NEAR(double(z(0, 0)), 6.0 * k.slope, 6.0 * near) << what;
    EXPECT_NEAR(double(up(0, 0)), 2.0 * k.value, 2.0 * near) << what;
  }
}

TEST(Activate, IsTorchsInDouble) { expect_torch<double>(1e-15); }
TEST(Activate, IsTorchsInFloat) { expect_torch<float>(4e-7); }

TEST(Activate, OfGeluKeepsItsTailInFloat) {
  guild::Cpu device({.threads = 1});
  for (const double z : {-4.5, -2.0, -0.7}) {
    Matrix<float> x(1, 1), h(1, 1);
    x(0, 0) = static_cast<float>(z);
    guild::activate(device, x.view(), h.view(), {.kind = guild::Activation::gelu, .gated = false});
    const double exact = 0.5 * double(x(0, 0)) * std::erfc(-double(x(0, 0)) / std::sqrt(2.0));
    EXPECT_NEAR(double(h(0, 0)) / exact, 1.0, 3e-6) << z;
  }
}

TEST(Activate, RefusesOtherShapes) {
  guild::Cpu device({.threads = 1});
  Matrix<float> z(2, 3), h(2, 4), three(1, 3);
  EXPECT_THROW(guild::activate(device, z.view(), h.view(), {.gated = false}), guild::Error);
  EXPECT_THROW(guild::activate_backward(device, z.view(), h.view(), {.gated = false}), guild::Error);
  EXPECT_THROW(guild::activate_backward(device, z.view(), z.view(), {.gated = false}, three.view().row(0)),
               guild::Error);
}

}  // namespace activate_test
