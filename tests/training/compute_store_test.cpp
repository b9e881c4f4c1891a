// Rounded copies of the weights: every value as the element type rounds it, and no memory after the first time.
#include <guild/cpu.hpp>
#include <guild/training/compute_store.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include <guild/models/transformer.hpp>
#include <guild/training/initialize.hpp>

#include "../support/random_weights.hpp"
#include "optimizer_support.hpp"

namespace compute_store_test {

using guild::bf16;
using guild::ErrorCode;
using namespace guild_test;

struct TinySpec : SmallSpec {};
using Model = guild::Transformer<TinySpec>;

TEST(ComputeStore, RoundsMatricesAndCopiesVectors) {
  guild::Cpu device({.threads = 2});
  Model::Weights<guild::Dense<float>> masters;
  masters.mtp.resize(1);
  guild::initialize<Model>(device, masters, {.seed = 2});
  masters.final_norm.weight.data[3] = 1.0f + 0x1p-20f;
  Model::Weights<guild::ComputeStore<bf16>> copies;
  guild::round_to<Model>(device, masters, copies);
  ASSERT_EQ(copies.mtp.size(), 1U);
  guild::for_each_tensor<Model>(
      [&]<class T>(const Path& path, const TensorShape&, TensorRole, const Buffer& master,
                   const guild::Buffer<T>& copy) {
        ASSERT_EQ(master.size(), copy.size()) << path.str();
        for (Index i = 0; i < master.size(); ++i) ASSERT_EQ(copy[i], static_cast<T>(master[i])) << path.str();
      },
      masters, copies);
  EXPECT_EQ(copies.final_norm.weight.data[3], 1.0f + 0x1p-20f);
  EXPECT_EQ(copies.head.weight.rows, 97);
  const void* const before = copies.head.weight.data.data();
  masters.head.weight.data[1] = 2.0f;
  guild::round_to<Model>(device, masters, copies);
  EXPECT_EQ(static_cast<float>(copies.head.weight.data[1]), 2.0f);
  EXPECT_EQ(copies.head.weight.data.data(), before);
}

TEST(ComputeStore, RoundsToNearestEven) {
  using Line = guild::Linear<1, 8>;
  guild::Cpu device({.threads = 1});
  Line::Weights<guild::Dense<float>> masters;
  guild::allocate<Line>(masters);
  const float infinity = std::numeric_limits<float>::infinity();
  const float values[8] = {
      1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 1.0f + 0x1.1p-8f, -1.0f - 0x1p-8f, infinity, 0x1p-140f, -0.0f, 3.5f};
  const float expected[8] = {1.0f, 1.0f + 0x1p-6f, 1.0f + 0x1p-7f, -1.0f, infinity, 0x0p0f, -0.0f, 3.5f};
  std::copy_n(values, 8, masters.weight.data.data());
  Line::Weights<guild::ComputeStore<bf16>> copies;
  guild::round_to<Line>(device, masters, copies);
  for (Index i = 0; i < 8; ++i)
    EXPECT_EQ(std::bit_cast<std::uint32_t>(static_cast<float>(copies.weight.data[i])),
              std::bit_cast<std::uint32_t>(expected[i]))
        << values[i];
}

TEST(ComputeStore, RefusesMastersWithoutMemoryAndOtherCopies) {
  guild::Cpu device({.threads = 1});
  NetWeights masters;
  Net::Weights<guild::ComputeStore<bf16>> copies;
  EXPECT_EQ(code_of([&] { guild::round_to<Net>(device, masters, copies); }), ErrorCode::op_shape);
  EXPECT_TRUE(copies.wide.weight.data.empty());
  masters = filled_net(1.0f);
  copies.head.weight.data = guild::Buffer<bf16>(3);
  EXPECT_EQ(code_of([&] { guild::round_to<Net>(device, masters, copies); }), ErrorCode::op_shape);
  EXPECT_TRUE(copies.wide.weight.data.empty());
}

}  // namespace compute_store_test
