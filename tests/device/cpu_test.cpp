#include <guild/device/cpu.hpp>

#include <gtest/gtest.h>

namespace cpu_test {

using guild::Cpu;
using guild::Isa;

TEST(Cpu, RunsKernelsWithFloatActivationsUnlessTold) {
  EXPECT_NE(Cpu({.threads = 1}).isa(), Isa::avx512_bf16);
  EXPECT_TRUE(guild::runs_here(Cpu({.threads = 1}).isa()));
}

TEST(Cpu, AForkAndACopyKeepTheKernelsAndShareThePool) {
  const Cpu device({.threads = 3, .isa = Isa::baseline});
  EXPECT_EQ(device.fork().isa(), Isa::baseline);
  EXPECT_EQ(device.fork().threads(), 3);
  Cpu other({.threads = 1});
  other = device;
  EXPECT_EQ(other.isa(), Isa::baseline);
  EXPECT_EQ(other.threads(), 3);
}

TEST(Cpu, RefusesKernelsThatDoNotRunHere) {
  if (guild::runs_here(Isa::avx512_bf16)) GTEST_SKIP() << "this machine runs all kernels";
  try {
    const Cpu device({.threads = 1, .isa = Isa::avx512_bf16});
    FAIL();
  } catch (const guild::Error& error) { EXPECT_EQ(name(error.code()), "dev_unavailable"); }
}

}  // namespace cpu_test
