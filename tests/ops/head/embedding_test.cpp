#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/head/embedding.hpp>

#include "../gradient_check.hpp"

namespace embedding_test {
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
  guild::embed(device, weight, view_of(ids), y.view(), 6.5);
  for (Index t = 0; t < y.rows; ++t)
    for (Index i = 0; i < dim; ++i) ASSERT_EQ(y(t, i), 6.5f * weight.at(ids[std::size_t(t)], i)) << t << ", " << i;
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
  integers.format = guild::DType::i32;
  EXPECT_EQ(code({0, 1}, y, integers), guild::ErrorCode::wt_dtype);
}

TEST(Embedding, TakesTablesOfDouble) {
  guild::Cpu device({.threads = 1});
  guild::DenseMatrix<double> table{2, 3, guild::Buffer<double>(6)};
  for (Index i = 0; i < 6; ++i) table.data[i] = 1.0 / double(3 + i);  // no float
  Matrix<double> y(2, 3);
  const std::vector<std::int32_t> ids = {1, 0};
  guild::embed(device, table.view(), view_of(ids), y.view());
  for (Index t = 0; t < 2; ++t)
    for (Index i = 0; i < 3; ++i) EXPECT_EQ(y(t, i), table.data[(1 - t) * 3 + i]);
}

TEST(Embedding, BackwardAddsTheRowsOfEachIdInTheOrderOfTokens) {
  for (Index dim : {1, 15, 16, 17, 70}) {
    std::mt19937 random(static_cast<unsigned>(dim));
    const Index vocab = 11, tokens = 90;
    Matrix<float> dy(tokens, dim, dim + 1), dtable(vocab, dim, dim + 3);
    dy.fill_normal(random);
    dtable.fill_normal(random);
    std::vector<std::int32_t> ids;
    for (Index t = 0; t < tokens; ++t) ids.push_back(std::int32_t(random() % 10));  // 10 never comes
    auto expected = dtable;
    for (Index t = 0; t < tokens; ++t)
      for (Index i = 0; i < dim; ++i) expected(ids[std::size_t(t)], i) += dy(t, i);
    for (int threads : {1, 3}) {
      guild::Cpu device({.threads = threads});
      auto got = dtable;
      guild::embedding_backward(device, view_of(std::as_const(ids)), dy.view(), got.view());
      EXPECT_EQ(got.data, expected.data) << dim << " columns, " << threads << " threads";
      guild::embedding_backward(device, view_of(std::as_const(ids)), dy.view(), got.view(), -1.0);
      for (Index i = 0; i < dim; ++i) ASSERT_NEAR(got(ids[0], i), dtable(ids[0], i), 1e-5) << "added and taken away";
    }
  }
}

TEST(Embedding, BackwardEqualsCentralDifferences) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(1);
  Matrix<double> table(5, 19), dy(4, 19), dtable(5, 19);
  table.fill_normal(random);
  dy.fill_normal(random);
  for (double& value : dtable.data) value = 0;
  const std::vector<std::int32_t> ids = {4, 1, 1, 0};
  guild::embedding_backward(device, view_of(ids), dy.view(), dtable.view());
  expect_gradient(
      table, dtable,
      [&] {
        Matrix<double> y(4, 19);
        guild::embed(device, {guild::DType::f64, table.data.data(), 5, 19}, view_of(ids), y.view());
        return dot(y, dy);
      },
      "table");
}

TEST(Embedding, BackwardRefusesWhatDoesNotFit) {
  guild::Cpu device({.threads = 1});
  Matrix<float> dy(2, 4), wide(2, 5), dtable(3, 4);
  const auto code = [&](std::vector<std::int32_t> ids, Matrix<float>& of) {
    return code_of([&] { guild::embedding_backward(device, view_of(std::as_const(ids)), of.view(), dtable.view()); });
  };
  for (auto* matrix : {&dy, &wide, &dtable})
    for (float& value : matrix->data) value = 1;
  EXPECT_EQ(code({0, 2}, dy), guild::ErrorCode::count_);
  const auto before = dtable;
  EXPECT_EQ(code({0, 3}, dy), guild::ErrorCode::in_token);
  EXPECT_EQ(code({0, -1}, dy), guild::ErrorCode::in_token);
  EXPECT_EQ(code({0}, dy), guild::ErrorCode::op_shape);
  EXPECT_EQ(code({0, 1}, wide), guild::ErrorCode::op_shape);
  EXPECT_EQ(dtable.data, before.data);  // nothing half-done
}

}  // namespace embedding_test
