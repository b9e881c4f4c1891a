// Lists that the host writes for one call of an operation.
#pragma once

#include <new>
#include <span>
#include <type_traits>

#include <guild/device/arena.hpp>

namespace guild {
inline namespace v1 {

/// At most `most` jobs in host memory that the device lends for the list's life: allocates nothing once warmed up.
/// Scratch is no place for them: on a GPU it is memory that the host cannot write. Lists end in the reverse order of
/// their beginning, as local variables do.
template <class Device, class Job>
class Staged {
  static_assert(std::is_trivially_destructible_v<Job>,
                "Staged: a job holds views and numbers only: nobody destroys it");

 public:
  Staged(Device& device, Index most) : frame_(device.staging()), jobs_(frame_.template take<Job>(most)) {}

  void add(const Job& job) { new (jobs_.data + used_++) Job(job); }
  [[nodiscard]] Index size() const { return used_; }
  /// The jobs so far, as operations take them.
  [[nodiscard]] std::span<const Job> ready() const { return {jobs_.data, static_cast<std::size_t>(used_)}; }

 private:
  Arena::Frame frame_;
  View<Job> jobs_;
  Index used_ = 0;
};

}  // namespace v1
}  // namespace guild
