// The CUDA half of a program of two translation units; see link_cpu.cpp.
#include <guild/cuda.cuh>

#include "link.hpp"

float norm_on_cuda(float value) {
  guild::Cuda device;
  auto memory = guild::CudaBuffer<float>::uninitialized(8);
  float host[8] = {value, value, value, value, 1, 1, 1, 1};
  guild::copy_to_device<float>(device, {host, 8}, memory.view());
  guild::rms_norm(device, memory.view().slice(4, 4), guild::View<float, 2>{memory.data(), 1, 4},
                  guild::View<float, 2>{memory.data(), 1, 4}, 0.5);
  guild::copy_to_host<float>(device, memory.view(), {host, 8});
  return host[0];
}
