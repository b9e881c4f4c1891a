// Grouped products: the bits of one product for each expert, in any grouping.
#include <guild/cpu.hpp>
#include <guild/ops/experts/grouped.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include <guild/core/random.hpp>

#include "../../core/code_of.hpp"

namespace experts_test {

using guild::Buffer;
using guild::Index;
using guild::StackView;
using guild::View;
using guild::WeightView;

Buffer<float> numbers(Index count, std::uint64_t stream) {
  guild::Random random(3, stream);
  Buffer<float> x(count);
  for (float& value : x.view()) value = static_cast<float>(random.uniform() - 0.5);
  return x;
}
bool same(const Buffer<float>& a, const Buffer<float>& b) {
  return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * 4) == 0;
}

/// Four experts, the second of which serves nobody; slots 0..13 read 9 rows of x.
struct GroupedProducts : testing::Test {
  static constexpr Index experts = 4, in = 24, out = 20, tokens = 9, slots = 14;
  guild::Cpu device{guild::CpuOptions{.threads = 2}};
  const std::vector<std::int32_t> offsets_{0, 3, 3, 13, 14};
  const std::vector<std::int32_t> token{0, 4, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2};
  Buffer<float> weights = numbers(experts * out * in, 1), second = numbers(experts * out * in, 2),
                x = numbers(tokens * in, 3);
  View<const std::int32_t> offsets{offsets_.data(), experts + 1};

  static StackView of(const Buffer<float>& all) {
    return {{guild::DType::f32, all.data(), out, in}, experts, out * in * Index{sizeof(float)}};
  }
};

TEST_F(GroupedProducts, GiveEachSlotTheProductOfItsExpert) {
  for (const auto update : {guild::Update::overwrite, guild::Update::add}) {
    Buffer<float> y = numbers(slots * out, 4), expected = numbers(slots * out, 4), beside(out), beside_expected(out);
    const guild::LinearJob job{of(second)[0], x.view(tokens, in).middle_rows(0, 1), beside.view(1, out)};
    guild::grouped_linear<float>(
        device, std::span<const guild::LinearJob>(&job, 1),
        {{of(weights), offsets, x.view(tokens, in), y.view(slots, out), token.data(), guild::Product::x_wt, update}});
    for (const Index e : {0, 2, 3}) {
      const Index begin = offsets[e], rows = offsets[e + 1] - begin;
      const guild::LinearJob one{
          of(weights)[e],       x.view(tokens, in),   expected.view(slots, out).middle_rows(begin, rows),
          token.data() + begin, guild::Product::x_wt, update};
      guild::linear(device, std::span<const guild::LinearJob>(&one, 1));
    }
    guild::linear(device, of(second)[0], View<const float, 2>(x.data(), 1, in), beside_expected.view(1, out));
    EXPECT_TRUE(same(y, expected));
    EXPECT_TRUE(same(beside, beside_expected)) << "what runs beside is computed too";
  }
}

TEST_F(GroupedProducts, GatedOnesAreTheGatedProductOfTheExpert) {
  Buffer<float> h(slots * out), expected(slots * out);
  guild::grouped_gated<float>(
      device, {},
      {of(weights), of(second), offsets, View<const float, 2>(x.data(), tokens, in), h.view(slots, out), token.data()});
  for (const Index e : {0, 2, 3}) {
    const Index begin = offsets[e], rows = offsets[e + 1] - begin;
    const guild::GatedJob one{of(weights)[e], of(second)[e], x.view(tokens, in),
                              expected.view(slots, out).middle_rows(begin, rows), token.data() + begin};
    guild::gated_linear(device, std::span<const guild::GatedJob>(&one, 1));
  }
  EXPECT_TRUE(same(h, expected));
}

TEST_F(GroupedProducts, GradientsReachTheExpertThatServedTheSlotAndNoOther) {
  const Buffer<float> dy = numbers(slots * out, 5);
  Buffer<float> dw(experts * out * in);
  guild::grouped_gradient<float>(device, {{View<float, 3>(dw.data(), experts, out, in), offsets, dy.view(slots, out),
                                           x.view(tokens, in), nullptr, token.data()}});
  for (Index e = 0; e < experts; ++e)
    for (Index o = 0; o < out; ++o)
      for (Index i = 0; i < in; ++i) {
        double sum = 0.0;
        for (Index s = offsets[e]; s < offsets[e + 1]; ++s)
          sum += double(dy[s * out + o]) * double(x[token[static_cast<std::size_t>(s)] * in + i]);
        ASSERT_NEAR(dw[e * out * in + o * in + i], sum, 1e-6) << "expert " << e;
      }
}

TEST_F(GroupedProducts, DoNotDependOnWhereTheMatricesLie) {
  Buffer<float> even(slots * out), scattered(slots * out);
  std::vector<Buffer<float>> apart;
  std::vector<WeightView> table;
  for (Index e = 0; e < experts; ++e) {
    Buffer<float>& own = apart.emplace_back(Buffer<float>(out * in));
    std::memcpy(own.data(), of(weights)[e].data, static_cast<std::size_t>(out * in) * 4);
    table.push_back({guild::DType::f32, own.data(), out, in});
  }
  for (const auto& [stack, y] :
       {std::pair{of(weights), &even}, std::pair{StackView{table[0], experts, 0, 0, table.data()}, &scattered}})
    guild::grouped_linear<float>(device, {}, {{stack, offsets, x.view(tokens, in), y->view(slots, out), token.data()}});
  EXPECT_TRUE(same(even, scattered));
  EXPECT_NE(even[13 * out], 0.0f);
}

TEST_F(GroupedProducts, RefuseAStackWithoutAMatrixForEachExpert) {
  Buffer<float> y(slots * out);
  StackView few = of(weights);
  few.count = experts - 1;
  const View<const float, 2> rows(x.data(), tokens, in);
  EXPECT_EQ(guild_test::code_of([&] {
              guild::grouped_linear<float>(device, {}, {{few, offsets, rows, y.view(slots, out), token.data()}});
            }),
            guild::ErrorCode::op_shape);
  EXPECT_EQ(
      guild_test::code_of([&] {
        guild::grouped_gated<float>(device, {}, {of(weights), few, offsets, rows, y.view(slots, out), token.data()});
      }),
      guild::ErrorCode::op_shape);
  EXPECT_EQ(guild_test::code_of([&] {
              guild::grouped_gradient<float>(device, {{View<float, 3>(weights.data(), experts - 1, out, in), offsets,
                                                       y.view(slots, out), rows, nullptr, token.data()}});
            }),
            guild::ErrorCode::op_shape);
}

}  // namespace experts_test
