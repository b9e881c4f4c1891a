// The CUDA side of guild, for nvcc: `guild::Cuda`, and the operations that run on it so far (those on rows). Operations
// find their kernels for a device by argument-dependent lookup, so include this before or after ops/*.hpp as you like.
#pragma once

#include <guild/device/cuda.cuh>
#include <guild/ops/common/add.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/common/fault.hpp>
#include <guild/ops/common/scatter_rows.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/head/cross_entropy.hpp>
#include <guild/ops/head/embedding.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <guild/ops/norm/rms_norm.hpp>
#include <guild/ops/rope/rope.hpp>
#include <guild/ops/route/balance.hpp>
#include <guild/ops/route/route.hpp>
