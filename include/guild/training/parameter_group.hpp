// Which rate, decay and rule each tensor is trained with: a function of its path and shape.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include <guild/modules/parameters.hpp>

namespace guild {
inline namespace v1 {

/// Which of an optimizer's rules trains a tensor. It matters for Muon alone.
enum class UpdateRule : std::uint8_t {
  automatic,  ///< Muon for the matrices of hidden layers, AdamW for vectors, embedding, head and routers
  adamw,
  muon,  ///< of a matrix
};

/// How a tensor is trained.
struct ParameterGroup {
  double lr_scale = 1.0;     ///< times the optimizer's learning rate; 0: the tensor stays as it is and has no moments
  double decay_scale = 1.0;  ///< times the optimizer's weight decay
  UpdateRule rule = UpdateRule::automatic;
};

/// Chooses the group of a tensor. A function of one's own starts from `default_group(path, shape)` and changes what
/// differs. Called once for each tensor, when the optimizer is made.
using ParameterGroups = std::function<ParameterGroup(const Path& path, const TensorShape& shape)>;

/// Matrices decay, vectors do not.
[[nodiscard]] inline ParameterGroup default_group(const Path&, const TensorShape& shape) {
  return {.decay_scale = shape.dimensions >= 2 ? 1.0 : 0.0};
}

/// True if a step of the path has this name.
[[nodiscard]] inline bool passes_through(const Path& path, std::string_view name) {
  for (const Path* step = &path; step != nullptr; step = step->parent())
    if (step->name() == name) return true;
  return false;
}

/// True for the matrices that Muon is made for: not embeddings, heads, routers and what mixes residual streams, whose
/// rows stand for themselves.
[[nodiscard]] inline bool is_hidden_matrix(const Path& path, const TensorShape& shape) {
  if (shape.dimensions < 2) return false;
  for (const std::string_view name : {"embedding", "head", "mtp_embedding", "mtp_head", "router", "mixer_residual",
                                      "feed_forward_residual", "stream_head"})
    if (passes_through(path, name)) return false;
  return true;
}

}  // namespace v1
}  // namespace guild
