#include <guild/modules/embedding.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include <guild/cpu.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace embedding_test {

using guild::DType;
using guild::EmbeddingScale;
using guild::Index;
using namespace guild_test;

using Plain = guild::Embedding<19, 1152>;
using Scaled = guild::Embedding<19, 1152, EmbeddingScale::root_of_hidden>;

TEST(Embedding, ItsScaleIsRoundedToTheTypeOfItsTable) {
  // sqrt(1152) = 33.9411...; bf16 keeps 8 bits of it, f16 11. Source: torch.tensor(1152**0.5).to(torch.bfloat16)
  EXPECT_EQ(Scaled::scale(DType::bf16), 34.0);
  EXPECT_EQ(Scaled::scale(DType::f16), 33.9375);
  EXPECT_NEAR(Scaled::scale(DType::f32), 33.94112549695428, 1e-12);
  for (const DType type : {DType::f32, DType::bf16}) EXPECT_EQ(Plain::scale(type), 1.0);
}

TEST(Embedding, RowsAreScaledForwardAndBackward) {
  guild::Cpu device({.threads = 2});
  const std::vector<std::int32_t> tokens = {3, 18, 3};
  const guild::DeviceView<const std::int32_t> ids(tokens.data(), 3);
  for (const DType type : {DType::f32, DType::bf16}) {
    const auto plain = random_weights<Plain>(type);
    const auto scaled = random_weights<Scaled>(type);
    Matrix one(3, 1152), times(3, 1152);
    Plain::forward(device, plain, ids, one.view());
    Scaled::forward(device, scaled, ids, times.view());
    const auto factor = static_cast<float>(Scaled::scale(type));
    for (std::size_t i = 0; i < one.values.size(); ++i) ASSERT_EQ(times.values[i], factor * one.values[i]);
    Scaled::Weights<guild::Dense<float>> gradients{{19, 1152, guild::Buffer<float>(19 * 1152)}};
    Scaled::backward(device, scaled, ids, guild::DeviceView<const float, 2>(one.view()), gradients);
    for (Index i = 0; i < 1152; ++i) {
      ASSERT_EQ(gradients.weight.matrix().data[18 * 1152 + i], factor * one.view()(1, i));
      ASSERT_NEAR(gradients.weight.matrix().data[3 * 1152 + i], 2 * factor * one.view()(0, i), 1e-4);
    }
  }
}

}  // namespace embedding_test
