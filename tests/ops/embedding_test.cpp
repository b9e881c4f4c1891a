#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/embedding.hpp>

#include "ops_test_support.hpp"

namespace {
using namespace guild_test;

template <class Element>
void expect_rows() {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(1);
  const Index vocab = 300, dim = 21;
  std::vector<Element> table;
  for (float value : normal_vector<float>(random, vocab * dim)) table.push_back(Element(value));
  std::vector<float> scale = {0.5f, 2.0f, 3.0f};  // f8_e4m3: one block of columns, three of rows
  const guild::WeightView weight{guild::dtype_of<Element>, table.data(), vocab, dim, scale.data(), 1, 0};
  const std::vector<std::int32_t> ids = {0, 299, 7, 7, 128, 255, 256};
  Matrix<float> y(Index(ids.size()), dim, dim + 2);
  guild::embed(device, weight, view_of(ids), y.view());
  EXPECT_TRUE(y.padding_is_untouched());
  for (Index t = 0; t < y.rows; ++t)
    for (Index i = 0; i < dim; ++i) ASSERT_EQ(y(t, i), weight.at(ids[std::size_t(t)], i)) << t << ", " << i;
  // A part of a table counts its scale blocks from where it lies in the whole.
  const std::vector<std::int32_t> first = {0, 28};
  Matrix<float> part(2, dim);
  guild::embed(device, weight.middle_rows(100, 50), view_of(first), part.view());
  for (Index i = 0; i < dim; ++i) {
    ASSERT_EQ(part(0, i), weight.at(100, i));
    ASSERT_EQ(part(1, i), weight.at(128, i));
  }
}

TEST(Embedding, GathersRowsOfEveryStoredType) {
  expect_rows<float>();
  expect_rows<guild::bf16>();
  expect_rows<guild::f16>();
  expect_rows<guild::fp8_e4m3>();
}

TEST(Embedding, RefusesIdsOutsideOfTheTable) {
  guild::Cpu device({.threads = 1});
  const std::vector<float> table(12);
  const guild::WeightView weight{guild::DType::f32, table.data(), 3, 4};
  Matrix<float> y(2, 4), wide(2, 5);
  const auto code = [&](std::vector<std::int32_t> ids, Matrix<float>& out, guild::WeightView w) {
    return code_of([&] { guild::embed(device, w, view_of(std::as_const(ids)), out.view()); });
  };
  EXPECT_EQ(code({0, 2}, y, weight), guild::ErrorCode::count_);
  EXPECT_EQ(code({0, 3}, y, weight), guild::ErrorCode::in_token);
  EXPECT_EQ(code({-1, 0}, y, weight), guild::ErrorCode::in_token);
  EXPECT_EQ(code({0}, y, weight), guild::ErrorCode::op_shape);
  EXPECT_EQ(code({0, 1}, wide, weight), guild::ErrorCode::op_shape);
  guild::WeightView integers = weight;
  integers.type = guild::DType::i32;
  EXPECT_EQ(code({0, 1}, y, integers), guild::ErrorCode::wt_dtype);
}

}  // namespace
