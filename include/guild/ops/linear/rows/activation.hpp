// What joins gate and up of a gated network, or follows up in one without a gate, element by element, and its slopes.
#pragma once

#include <guild/core/config/activation.hpp>
#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>
#include <guild/ops/common/normal.hpp>
#include <limits>

namespace guild {
inline namespace v1 {
namespace detail {

/// silu(g) and its derivative: with s = sigmoid(g), g s and s (1 + g (1 - s)). Finite for every finite g.
template <class Real>
GUILD_HD inline void silu_and_slope(Real g, Real& silu, Real& slope) {
  const Real below = Real(1) + exponential(-g);
  silu = g / below;
  const Real s = Real(1) / below;
  slope = s * (Real(1) + g * (Real(1) - s));
}

/// h = act * up, and by what changes of gate and up change `act` and `up`.
template <class Real>
struct GatedValue {
  Real act, act_slope, up, up_slope;
};

/// silu(gate) * up.
template <class Real>
struct SiluGate {
  GUILD_HD explicit SiluGate(const ActivationConfig&) {}
  GUILD_HD GatedValue<Real> operator()(Real g, Real u) const {
    GatedValue<Real> out{Real(0), Real(0), u, Real(1)};
    silu_and_slope(g, out.act, out.act_slope);
    return out;
  }
};

/// Gate and up within their limits; both have no slope outside, as those of torch.clamp. NaN stays NaN.
template <class Real>
struct GateLimits {
  Real limit, offset;
  GUILD_HD explicit GateLimits(const ActivationConfig& c)
      : limit(c.limit > 0.0 ? static_cast<Real>(c.limit) : std::numeric_limits<Real>::infinity()),
        offset(static_cast<Real>(c.up_offset)) {}
  [[nodiscard]] GUILD_HD Real gate(Real g) const { return g > limit ? limit : g; }
  [[nodiscard]] GUILD_HD Real up(Real u) const { return (u > limit ? limit : u < -limit ? -limit : u) + offset; }
  [[nodiscard]] GUILD_HD Real gate_slope(Real g) const { return g > limit ? Real(0) : Real(1); }
  [[nodiscard]] GUILD_HD Real up_slope(Real u) const { return u > limit || u < -limit ? Real(0) : Real(1); }
};

/// z * sigmoid(alpha * z) * (up + offset), both within limits: the slope is s (1 + alpha z (1 - s)).
template <class Real>
struct LimitedSiluGate {
  GateLimits<Real> limits;
  Real alpha;
  GUILD_HD explicit LimitedSiluGate(const ActivationConfig& c) : limits(c), alpha(static_cast<Real>(c.alpha)) {}
  GUILD_HD GatedValue<Real> operator()(Real g, Real u) const {
    const Real z = limits.gate(g), scaled = alpha * z;
    const Real below = Real(1) + exponential(-scaled), s = Real(1) / below;
    return {z / below, limits.gate_slope(g) * s * (Real(1) + scaled * (Real(1) - s)), limits.up(u), limits.up_slope(u)};
  }
};

/// gelu(z) * (up + offset), both within limits. 0.5 (1 + tanh(a)) is sigmoid(2 a). Beyond +-20 gelu is z or 0.
template <class Real>
struct GeluGate {
  GateLimits<Real> limits;
  GUILD_HD explicit GeluGate(const ActivationConfig& c) : limits(c) {}
  GUILD_HD GatedValue<Real> operator()(Real g, Real u) const {
    constexpr Real twice_root = Real(1.5957691216057308), cubic = Real(0.044715);  // 2 sqrt(2 / pi)
    const Real z = limits.gate(g);
    const Real near = z > Real(20) ? Real(20) : z < Real(-20) ? Real(-20) : z, square = near * near;
    const Real below = Real(1) + exponential(-twice_root * near * (Real(1) + cubic * square)), s = Real(1) / below;
    const Real inner = twice_root * (Real(1) + Real(3) * cubic * square);
    return {z / below, limits.gate_slope(g) * s * (Real(1) + near * inner * (Real(1) - s)), limits.up(u),
            limits.up_slope(u)};
  }
};

/// z Phi(z) * (up + offset), both within limits: the slope is Phi + z phi. Beyond +-20 gelu is z or 0.
template <class Real>
struct ExactGeluGate {
  GateLimits<Real> limits;
  GUILD_HD explicit ExactGeluGate(const ActivationConfig& c) : limits(c) {}
  GUILD_HD GatedValue<Real> operator()(Real g, Real u) const {
    const Real z = limits.gate(g);
    const Real near = z > Real(20) ? Real(20) : z < Real(-20) ? Real(-20) : z;
    const Real below = normal_below(near);
    return {z * below, limits.gate_slope(g) * (below + near * normal_density(near)), limits.up(u), limits.up_slope(u)};
  }
};

/// max(z, 0)^2, without a gate.
template <class Real>
struct ReluSquared {
  GUILD_HD explicit ReluSquared(const ActivationConfig&) {}
  GUILD_HD GatedValue<Real> operator()(Real z, Real) const {
    const Real above = z > Real(0) ? z : Real(0);
    return {above * above, Real(2) * above, Real(1), Real(0)};
  }
};

/// Calls f with the gate that a config means: one loop for each, and none that decides by element.
template <class Real, class F>
GUILD_TEAM_INLINE GUILD_HD inline void with_gate(const ActivationConfig& config, F&& f) {
  if (config.kind == Activation::gelu_tanh)
    f(GeluGate<Real>(config));
  else if (config.kind == Activation::gelu)
    f(ExactGeluGate<Real>(config));
  else if (config.alpha == 1.0 && config.limit == 0.0 && config.up_offset == 0.0)
    f(SiluGate<Real>(config));
  else
    f(LimitedSiluGate<Real>(config));
}

/// The same of an activation without a gate: its value for up = 1.
template <class Real, class F>
GUILD_TEAM_INLINE GUILD_HD inline void with_activation(const ActivationConfig& config, F&& f) {
  if (config.kind == Activation::relu_squared)
    f(ReluSquared<Real>(config));
  else if (config.kind == Activation::gelu)
    f(ExactGeluGate<Real>(config));
  else if (config.kind == Activation::gelu_tanh)
    f(GeluGate<Real>(config));
  else
    f(LimitedSiluGate<Real>(config));
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
