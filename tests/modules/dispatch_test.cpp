// Experts elsewhere: a double of several ranks that exchange rows gives the bits of experts at home.
#include <guild/cpu.hpp>
#include <guild/modules/dispatch.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include <guild/models/spec.hpp>
#include <guild/modules/moe.hpp>
#include <guild/modules/parameters.hpp>

#include "../support/gradient_check.hpp"
#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace dispatch_test {

using guild::Assignment;
using guild::DeviceView;
using guild::Index;
using guild::View;
using namespace guild_test;

/// Three ranks in one process, tokens and experts dealt out in turn. Every slot's row is sent on its own, as an
/// all-to-all would: rows arrive by destination, then by source, and buffers are longer than what arrives.
struct Ranks {
  static constexpr Index ranks = 3, unused = 5;
  struct Route {
    Assignment assignment;            ///< S + unused slots; token[s] is the row that arrives for slot s
    DeviceView<std::int32_t> token_of_row;  ///< [S + unused]; -1: nothing arrives
    Index slots = 0;                  ///< S
  };
  static inline int sent = 0, collected = 0;

  template <class Device, class Memory>
  static Route route(Device& device, const Assignment& home, Memory& memory) {
    const Index slots = home.slots(), experts = home.experts();
    Route to{Assignment::take(memory, slots + unused, 1, experts), memory.template take<std::int32_t>(slots + unused),
             slots};
    const auto offsets = host_view(device, home.offsets), token = host_view(device, home.token),
               offsets_there = host_view(device, to.assignment.offsets),
               row_of = host_view(device, to.assignment.token), token_of_row = host_view(device, to.token_of_row);
    for (Index e = 0; e <= experts; ++e) offsets_there[e] = offsets[e];
    for (Index s = 0; s < slots + unused; ++s) row_of[s] = token_of_row[s] = -1;
    std::int32_t row = 0;
    for (Index destination = 0; destination < ranks; ++destination)
      for (Index source = 0; source < ranks; ++source)
        for (Index e = destination; e < experts; e += ranks)
          for (Index s = offsets[e]; s < offsets[e + 1]; ++s)
            if (token[s] % ranks == source) {
              token_of_row[row] = token[s];
              row_of[s] = row++;  // the slots of an expert keep their order
            }
    return to;
  }
  template <class Device, class Real, class Memory>
  static DeviceView<Real, 2> send(Device& device, const Route& route, DeviceView<Real, 2> x_td, Memory& memory) {
    ++sent;
    const auto x = host_view(device, x_td);
    const auto token_of_row = host_view(device, route.token_of_row);
    const auto rows = numbers<Real>(memory, route.token_of_row.size, x.cols);
    for (Index r = 0; r < route.slots; ++r)
      for (Index c = 0; c < x.cols; ++c) rows(r, c) = x(token_of_row[r], c);
    return rows;
  }
  template <class Device, class Real, class Memory>
  static DeviceView<Real> send_slots(Device& device, const Route& route, DeviceView<Real> w_s, Memory& memory) {
    const auto w = host_view(device, w_s);
    const auto out = numbers<Real>(memory, 1, route.assignment.slots());
    for (Index s = 0; s < route.slots; ++s) out(0, s) = w[s];
    return out.row(0);
  }
  /// Rows go back in the order in which they came, and are put in place at home.
  template <class Device, class Real, class Memory>
  static DeviceView<Real, 2> collect(Device& device, const Route& route, DeviceView<Real, 2> y_sd, Memory& memory) {
    ++collected;
    const auto y = host_view(device, y_sd);
    const auto row_of = host_view(device, route.assignment.token);
    const auto back = numbers<Real>(memory, route.slots, y.cols), rows = numbers<Real>(memory, route.slots, y.cols);
    for (Index s = 0; s < route.slots; ++s)
      for (Index c = 0; c < y.cols; ++c) back(row_of[s], c) = y(s, c);
    for (Index s = 0; s < route.slots; ++s)
      for (Index c = 0; c < y.cols; ++c) rows(s, c) = back(row_of[s], c);
    return rows;
  }
  template <class Device, class Real, class Memory>
  static DeviceView<Real> collect_slots(Device& device, const Route& route, DeviceView<Real> w_s, Memory& memory) {
    const auto w = host_view(device, w_s);
    const auto out = numbers<Real>(memory, 1, route.slots);
    for (Index s = 0; s < route.slots; ++s) out(0, s) = w[s];
    return out.row(0);
  }

 private:
  /// Memory full of NaN: who reads what did not arrive, fails.
  template <class Real, class Memory>
  static auto numbers(Memory& memory, Index rows, Index cols) {
    using Number = std::remove_const_t<Real>;
    const View<Number, 2> all = memory.template take<Number>(rows, cols);
    for (Index r = 0; r < rows; ++r)
      for (Number& value : all.row(r)) value = std::numeric_limits<Number>::quiet_NaN();
    return all;
  }
};
static_assert(guild::Dispatch<Ranks> && guild::Dispatch<guild::Here>);
static_assert(!guild::Dispatch<guild::Observer>);
static_assert(std::is_empty_v<guild::Here>);

struct HereSpec : SmallSpec {};
struct RanksSpec : HereSpec {
  template <class S>
  using Dispatch = Ranks;
};

/// What a pass gives: outputs, and what backward gives for fixed gradients of them.
struct Results {
  std::vector<float> y, dx, gradients;
  friend bool operator==(const Results& a, const Results& b) {
    const auto same = [](const std::vector<float>& u, const std::vector<float>& v) {
      return u.size() == v.size() && std::memcmp(u.data(), v.data(), u.size() * sizeof(float)) == 0;
    };
    return same(a.y, b.y) && same(a.dx, b.dx) && same(a.gradients, b.gradients);
  }
};

template <class S>
Results train(Index tokens) {
  using Moe = guild::Moe<S>;
  using Weights = typename Moe::template Weights<guild::Dense<float>>;
  guild::Cpu device({.threads = 2});
  guild::Random random(4);
  Weights weights, gradients;
  guild::allocate<Moe>(weights);
  guild::allocate<Moe>(gradients);
  Moe::visit(FillRandom{&random}, guild::Path{}, weights);
  const auto x = random_values(tokens * 48, 1), dy = random_values(tokens * 48, 2);
  guild::Buffer<float> y(tokens * 48), dx(tokens * 48);
  RaggedPass ragged(device, {tokens}, 1, 97);
  guild::Arena arena;
  guild::Arena::Frame memory(arena);
  const auto pass = ragged.pass.with(memory);
  typename Moe::template Saved<float> saved;
  Moe::forward(pass, weights, x.view(tokens, 48), y.view(tokens, 48), &saved);
  Moe::backward(pass, weights, x.view(tokens, 48), saved, dy.view(tokens, 48), dx.view(tokens, 48), gradients);
  Results results{{y.data(), y.data() + y.size()}, {dx.data(), dx.data() + dx.size()}, {}};
  guild::for_each_tensor<Moe>(
      [&](const guild::Path&, const guild::TensorShape&, guild::TensorRole, const guild::Buffer<float>& data) {
        results.gradients.insert(results.gradients.end(), data.data(), data.data() + data.size());
      },
      gradients);
  return results;
}

TEST(Dispatch, ExpertsOnOtherRanksTrainWithTheSameBits) {
  for (const Index tokens : {1, 2, 7, 40}) {
    Ranks::sent = Ranks::collected = 0;
    const Results here = train<HereSpec>(tokens);
    EXPECT_EQ(Ranks::sent, 0);
    EXPECT_TRUE(train<RanksSpec>(tokens) == here) << tokens << " tokens";
    EXPECT_EQ(Ranks::sent, 3) << "x forward; x and dy backward";
    EXPECT_EQ(Ranks::collected, 2);
    EXPECT_NE(here.y[0], 0.0f);
    EXPECT_NE(here.dx[0], 0.0f);
  }
}

TEST(Dispatch, ExpertsOnOtherRanksInferWithTheSameBits) {
  const auto weights = random_weights<guild::Moe<HereSpec>>();
  const auto elsewhere = random_weights<guild::Moe<RanksSpec>>();
  guild::Cpu device({.threads = 2});
  const guild::Pass<guild::Cpu> pass{.device = device, .layer = 3};
  for (const Index tokens : {1, 8, 33}) {
    Matrix x(tokens, 48), y(tokens, 48), expected(tokens, 48);
    const auto values = random_values(tokens * 48, 7);
    std::copy(values.view().begin(), values.view().end(), x.values.begin());
    guild::Moe<HereSpec>::forward(pass, weights, x.view(), expected.view());
    guild::Moe<RanksSpec>::forward(pass, elsewhere, x.view(), y.view());
    EXPECT_TRUE(same_bits(y, expected)) << tokens << " tokens";
  }
}

TEST(Dispatch, ASpecInheritsHere) {
  static_assert(std::is_same_v<typename HereSpec::Dispatch<HereSpec>, guild::Here>);
  static_assert(std::is_same_v<typename RanksSpec::Dispatch<RanksSpec>, Ranks>);
}

}  // namespace dispatch_test
