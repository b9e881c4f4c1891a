// The tensors of a fixture: inputs to load, and results to compare with.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <guild/core/buffer.hpp>
#include <guild/io/checkpoint.hpp>

namespace guild_test {

class FrozenTensors {
 public:
  /// `folder` below tests/fixtures.
  explicit FrozenTensors(const std::string& folder)
      : file_(guild::Checkpoint::open(std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/" + folder)) {}

  [[nodiscard]] std::vector<float> floats(const std::string& name) const { return read<float>(name); }
  [[nodiscard]] std::vector<std::int32_t> integers(const std::string& name) const { return read<std::int32_t>(name); }
  template <class Real>
  void load(const std::string& name, guild::View<Real> to) const {
    const std::vector<float> values = floats(name);
    ASSERT_EQ(static_cast<guild::Index>(values.size()), to.size) << name;
    std::copy(values.begin(), values.end(), to.data);
  }
  /// The largest difference of any element from `name`, relative to its largest magnitude, which is above zero.
  template <class Real>
  [[nodiscard]] double error(guild::View<const Real> found, const std::string& name) const {
    const std::vector<float> expected = floats(name);
    if (static_cast<guild::Index>(expected.size()) != found.size) return INFINITY;
    double worst = 0.0, largest = 0.0;
    for (guild::Index i = 0; i < found.size; ++i) {
      const auto value = double(expected[static_cast<std::size_t>(i)]);
      const double difference = std::fabs(double(found[i]) - value);
      if (!(difference <= worst)) worst = difference;
      largest = std::max(largest, std::fabs(value));
    }
    return worst / largest;
  }

 private:
  template <class T>
  [[nodiscard]] std::vector<T> read(const std::string& name) const {
    const guild::TensorInfo* info = file_.find(name);
    if (info == nullptr || info->dtype != guild::dtype_of<T>) {
      ADD_FAILURE() << "the fixture has no " << name << " of this type";
      return {};
    }
    std::vector<T> values(info->bytes / sizeof(T));
    file_.read(*info, values.data());
    return values;
  }

  guild::Checkpoint file_;
};

}  // namespace guild_test
