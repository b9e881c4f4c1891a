// Stacks of equal matrices: evenly spaced or scattered, stored or dense.
#include <guild/core/stack_view.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/core/weight.hpp>

namespace stack_view_test {

using guild::Buffer;
using guild::DType;
using guild::Index;
using guild::StackView;
using guild::StoredMatrix;
using guild::StoredStack;

// They are copied to devices byte by byte.
static_assert(std::is_trivially_copyable_v<StackView> && std::is_standard_layout_v<StackView>);
static_assert(std::is_trivially_copyable_v<guild::View<float, 3>>);

/// One matrix [2, 3] of floats begin, begin + 1, ...
StoredMatrix counting(float begin) {
  StoredMatrix matrix{DType::f32, 2, 3, Buffer<std::byte>(6 * 4), {}};
  for (Index i = 0; i < 6; ++i, begin += 1.0f) std::memcpy(matrix.data.data() + 4 * i, &begin, 4);
  return matrix;
}

TEST(StackView, FindsMatricesByTheirStep) {
  const Buffer<float> numbers = [] {
    Buffer<float> all(4 * 12);
    for (Index i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i);
    return all;
  }();
  // Three matrices [2, 3] out of a fused tensor [4, 4, 3]: rows 2 and 3 of each.
  const StackView up{{DType::f32, numbers.data() + 6, 2, 3}, 3, 12 * 4};
  for (Index e = 0; e < 3; ++e)
    for (Index r = 0; r < 2; ++r) EXPECT_EQ(up[e].at(r, 1), static_cast<float>(12 * e + 6 + 3 * r + 1));
}

TEST(StackView, ScalesHaveAStepOfTheirOwn) {
  const std::vector<guild::fp8_e4m3> ones(2 * 3, guild::fp8_e4m3(1.0f));
  const std::vector<float> scales{2.0f, 0.0f, 3.0f};
  const StackView stack{{DType::f8_e4m3, ones.data(), 1, 3, scales.data(), 1}, 2, 3, 8};
  EXPECT_EQ(stack[0].at(0, 2), 2.0f);
  EXPECT_EQ(stack[1].at(0, 2), 3.0f);
}

TEST(StoredStack, KeepsScatteredMatricesWhereTheyAreWhenMoved) {
  std::vector<StoredMatrix> matrices;
  for (const float begin : {0.0f, 10.0f, 20.0f}) matrices.push_back(counting(begin));
  const void* const third = matrices[2].data.data();
  StoredStack made(std::move(matrices));
  const StoredStack stack = std::move(made);
  EXPECT_EQ(stack.view().count, 3);
  EXPECT_EQ(stack.view()[2].data, third) << "nothing is copied";
  EXPECT_EQ(stack.view()[2].at(1, 2), 25.0f);
  EXPECT_EQ(stack.view().first.at(0, 1), 1.0f);
  EXPECT_EQ(stack.bytes(), 3 * 6 * 4);
  EXPECT_EQ(StoredStack().view().count, 0);
}

TEST(DenseStack, IsOneMatrixUnderTheOther) {
  guild::DenseStack<float> stack{3, 2, 4, Buffer<float>(24)};
  for (Index i = 0; i < 24; ++i) stack.data[i] = static_cast<float>(i);
  EXPECT_EQ(guild::View(stack.matrices())[2](1, 3), 23.0f);
  EXPECT_EQ(stack.view()[2].at(1, 3), 23.0f);
  EXPECT_EQ(guild::View(std::as_const(stack).matrices())[1](0, 0), 8.0f);
  guild::View(stack.matrices())[1](0, 0) = -1.0f;
  EXPECT_EQ(stack.data[8], -1.0f);
}

TEST(Buffer, APartIsTheSameMemoryAndKeepsItAlive) {
  Buffer<float> part;
  {
    Buffer<float> all(10);
    part = all.part(4, 3);
    all[5] = 7.0f;
    EXPECT_FALSE(part.is_shared());
  }
  EXPECT_EQ(part.size(), 3);
  EXPECT_EQ(part[1], 7.0f);
  const float constants[4] = {};
  const auto shared = Buffer<float>::share(nullptr, constants, 4);
  EXPECT_TRUE(shared.part(1, 2).is_shared()) << "what must not be written stays so in parts";
}

}  // namespace stack_view_test
