// The checks of operations whose answer lies in the memory of the GPU.
#pragma once

#include <cstdint>
#include <guild/device/cuda.cuh>
#include <string>
#include <vector>

namespace guild::inline v1 {

/// As for host memory, but waits for the router's result: the one point of a step where an error of the data becomes
/// known.
inline void refuse_unrouted(Cuda& device, View<const std::int32_t, 2> indices) {
  if (indices.rows == 0 || indices.cols == 0) return;
  std::vector<std::int32_t> first(static_cast<std::size_t>(indices.rows));
  device.use();
  device.check(cudaMemcpy2DAsync(first.data(), sizeof(std::int32_t), indices.data,
                                 static_cast<std::size_t>(indices.pitch) * sizeof(std::int32_t), sizeof(std::int32_t),
                                 static_cast<std::size_t>(indices.rows), cudaMemcpyDeviceToHost, device.stream()),
               "copy routes from the GPU");
  device.synchronize();
  for (std::size_t t = 0; t < first.size(); ++t)
    if (first[t] < 0)
      throw Error(ErrorCode::op_nonfinite,
                  "a router logit of token " + std::to_string(t) +
                      " of the batch is NaN or infinite, expected finite logits; check the weights and the layers "
                      "before this one",
                  Where{.key = "route: logits"});
}

/// Given choices were checked on the host; the kernel gives weight 0 to an expert that does not exist.
inline void refuse_unknown_experts(Cuda&, View<const std::int32_t, 2>, Index) {}

/// Ids in the memory of the GPU were checked on the host; the kernel gives NaN rows for bad ones.
inline void refuse_unknown_ids(Cuda&, View<const std::int32_t>, Index) {}

/// So were targets; the kernel ignores bad ones.
inline void refuse_unknown_targets(Cuda&, View<const std::int32_t>, Index) {}

}  // namespace guild::inline v1
