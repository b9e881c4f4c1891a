// The CUDA side of guild, for nvcc: `guild::Cuda`, and the operations that run on it so far (those on rows). Operations
// find their kernels for a device by argument-dependent lookup, so include this before or after ops/*.hpp as you like.
#pragma once

#include <guild/device/cuda.cuh>
#include <guild/ops/bias.hpp>
#include <guild/ops/combine.hpp>
#include <guild/ops/copy_rows.hpp>
#include <guild/ops/cross_entropy.hpp>
#include <guild/ops/embedding.hpp>
#include <guild/ops/expert_backward.hpp>
#include <guild/ops/fault.hpp>
#include <guild/ops/rms_norm.hpp>
#include <guild/ops/rope.hpp>
#include <guild/ops/route_backward.hpp>
#include <guild/ops/router.hpp>
#include <guild/ops/scatter_rows.hpp>
#include <guild/ops/swiglu_backward.hpp>
