// What the objective of an index owes: gradients of its own tensors alone, and the model's loss those of all others.
#pragma once

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "exact_pass.hpp"

namespace guild_test {

/// The gradients of the model's loss: none of the index, those of all else by central differences. `Of` is an ExactPass
/// without arguments, at most `Of::most` elements of a tensor are looked at.
template <class Of>
void expect_no_gradient_of_the_models_loss() {
  Of one;
  EXPECT_EQ(one.backward(), 0.0);
  for (const Differentiated& tensor : one.tensors(true))
    for (Index i = 0; i < tensor.count; ++i) ASSERT_EQ(tensor.gradient[i], 0.0) << tensor.name;
  auto list = one.tensors(false);
  list.push_back({"x", one.x.data(), one.dx.data(), one.x.size()});
  expect_gradients(list, [&] { return one.loss(); }, {.most = Of::most});
}

/// The gradients of the objective: none of what is outside of the index, those of its `tensors` by central differences.
/// Of::chosen() is how many keys were chosen, if it can be told: none where all are seen.
template <class Of>
void expect_the_gradient_of_its_objective_alone(guild::KeySight sight, std::size_t tensors) {
  Of one;
  one.ragged.pass.indexing = {.weight = 0.7, .sight = sight};
  one.ragged.pass.balance_scale = 0.5;
  std::fill(one.dy.view().begin(), one.dy.view().end(), 0.0);
  EXPECT_GT(one.backward(), 0.01);
  for (const Differentiated& tensor : one.tensors(false))
    for (Index i = 0; i < tensor.count; ++i) ASSERT_EQ(tensor.gradient[i], 0.0) << tensor.name;
  for (const double value : one.dx.view()) ASSERT_EQ(value, 0.0);
  if constexpr (requires { one.chosen(); }) { EXPECT_EQ(one.chosen() == 0, sight == guild::KeySight::all); }
  auto list = one.tensors(true);
  ASSERT_EQ(list.size(), tensors);
  std::vector<guild::Buffer<double>> kept;
  for (Differentiated& tensor : list) {  // further backwards add to the gradients
    guild::Buffer<double> copy(tensor.count);
    std::copy_n(tensor.gradient, tensor.count, copy.data());
    kept.push_back(std::move(copy));
    tensor.gradient = kept.back().data();
  }
  expect_gradients(list, [&] { return 0.7 * one.backward(); }, {.most = Of::most});
}

/// The objective changes no bit of the gradients of what is outside of the index.
template <class Of>
void expect_its_objective_changes_no_other_bit() {
  Of without, with;
  without.backward();
  with.ragged.pass.indexing.weight = 0.7;
  with.backward();
  const auto a = without.tensors(false), b = with.tensors(false);
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(std::equal(a[i].gradient, a[i].gradient + a[i].count, b[i].gradient)) << a[i].name;
  EXPECT_TRUE(std::equal(without.dx.data(), without.dx.data() + without.dx.size(), with.dx.data()));
}

}  // namespace guild_test
