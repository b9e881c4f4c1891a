// Attention on the CPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <guild/device/cpu.hpp>
#include <guild/ops/attention_job.hpp>
#include <span>

namespace guild::inline v1 {

/// Called by latent_attention after its checks.
inline void run_latent_attention(Cpu& device, std::span<const LatentAttentionJob> jobs,
                                 const LatentAttentionSizes& sizes) {
  for (const LatentAttentionJob& job : jobs) {
    const Index width = sizes.latent + sizes.rope;
    const auto element = [&job](Index row, Index c) {
      return job.cache_type == DType::f32
                 ? static_cast<const float*>(job.cache)[row * job.cache_pitch + c]
                 : static_cast<float>(static_cast<const bf16*>(job.cache)[row * job.cache_pitch + c]);
    };
    device.run(job.q.rows * sizes.heads, [&](Index task, int) {
      const Index t = task / sizes.heads, h = task % sizes.heads;
      const float* q = &job.q(t, h * width);
      float* out = &job.out(t, h * sizes.latent);
      float peak = -1e30f, sum = 0.0f;
      std::fill(out, out + sizes.latent, 0.0f);
      for (Index s = 0; s <= job.first_position + t; ++s) {
        float dot = 0.0f;
        for (Index c = 0; c < width; ++c) dot += q[c] * element(s, c);
        dot *= sizes.scale;
        const float next = std::max(peak, dot);
        const float keep = std::exp(peak - next), p = std::exp(dot - next);
        peak = next;
        sum = sum * keep + p;
        for (Index c = 0; c < sizes.latent; ++c) out[c] = out[c] * keep + p * element(s, c);
      }
      for (Index c = 0; c < sizes.latent; ++c) out[c] /= sum;
    });
  }
}

/// Called by expanded_attention after its checks.
inline void run_expanded_attention(Cpu& device, std::span<const ExpandedAttentionJob> jobs,
                                   const ExpandedAttentionSizes& sizes) {
  for (const ExpandedAttentionJob& job : jobs) {
    const Index key_stride = job.key_head_stride > 0 ? job.key_head_stride : sizes.nope;
    const Index value_stride = job.value_head_stride > 0 ? job.value_head_stride : sizes.value;
    device.run(job.q.rows * sizes.heads, [&](Index task, int) {
      const Index t = task / sizes.heads, h = task % sizes.heads;
      const float* q = &job.q(t, h * (sizes.nope + sizes.rope));
      float* out = &job.out(t, h * sizes.value);
      float peak = -1e30f, sum = 0.0f;
      std::fill(out, out + sizes.value, 0.0f);
      for (Index s = 0; s <= job.first_position + t; ++s) {
        float dot = 0.0f;
        for (Index c = 0; c < sizes.nope; ++c) dot += q[c] * job.k_nope(s, h * key_stride + c);
        for (Index c = 0; c < sizes.rope; ++c) dot += q[sizes.nope + c] * job.k_rope(s, c);
        dot *= sizes.scale;
        const float next = std::max(peak, dot);
        const float keep = std::exp(peak - next), p = std::exp(dot - next);
        peak = next;
        sum = sum * keep + p;
        for (Index c = 0; c < sizes.value; ++c) out[c] = out[c] * keep + p * job.v(s, h * value_stride + c);
      }
      for (Index c = 0; c < sizes.value; ++c) out[c] /= sum;
    });
  }
}

}  // namespace guild::inline v1
