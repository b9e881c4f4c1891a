#include <guild/device/transfer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include <guild/cpu.hpp>

#include "../support/far_device.hpp"

namespace transfer_test {

using guild::DeviceView;
using guild::Download;
using guild::Index;

TEST(Transfer, NothingIsCopiedWhereTheDeviceComputesInTheHostsMemory) {
  guild::Cpu device({.threads = 1});
  auto scratch = device.scratch();
  std::array<float, 6> values = {0, 1, 2, 3, 4, 5};
  EXPECT_EQ(guild::upload(device, std::span<const float>(values), scratch).data, values.data());
  const Download there(device, DeviceView<float, 2>(values.data(), 2, 2, 3));
  EXPECT_EQ(there.view().data, values.data());
  EXPECT_EQ(there.view()(1, 1), 4.0f);
}

TEST(Transfer, OtherDevicesHaveCopies) {
  guild_test::FarDevice device(guild::CpuOptions{.threads = 1});
  auto scratch = device.scratch();
  std::array<float, 6> values = {0, 1, 2, 3, 4, 5};
  const DeviceView<const float> up = guild::upload(device, std::span<const float>(values), scratch);
  EXPECT_NE(up.data, values.data());
  const Download row(device, up.slice(1, 3));
  const Download matrix(device, DeviceView<const float, 2>(up.data, 2, 2, 3));  // the last row has no third element
  const Download nothing(device, DeviceView<const float, 2>());
  values = {};
  EXPECT_EQ(std::vector<float>(row.view().begin(), row.view().end()), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(matrix.view()(0, 1), 1.0f);
  EXPECT_EQ(matrix.view()(1, 1), 4.0f);
  EXPECT_EQ(nothing.view().rows, 0);
  EXPECT_EQ(device.to_device, 1);
  EXPECT_EQ(device.to_host, 3);
}

TEST(Transfer, ZerosAreZerosWhereverTheyLie) {
  guild::Cpu near({.threads = 1});
  guild_test::FarDevice far(guild::CpuOptions{.threads = 1});
  const auto expect_zeros = [](auto& device, auto&& fill_with_ones) {
    {
      auto frame = device.scratch();  // what is taken next held something else
      fill_with_ones(frame.template take<double>(5));
    }
    auto frame = device.scratch();
    const Download zeros(device, guild::zeros<double>(device, 5, frame));
    EXPECT_EQ(std::vector<double>(zeros.view().begin(), zeros.view().end()), std::vector<double>(5, 0.0));
  };
  const std::vector<double> ones(5, 1.0);
  expect_zeros(near, [&](DeviceView<double> to) { std::copy(ones.begin(), ones.end(), to.data); });
  expect_zeros(far, [&](DeviceView<double> to) { copy_to_device(far, guild::View<const double>(ones.data(), 5), to); });
  EXPECT_EQ(far.to_device, 1) << "the ones: zeros are written where they lie";
}

}  // namespace transfer_test
