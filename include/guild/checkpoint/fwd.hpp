// Declares the public types of checkpoint/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/core/fwd.hpp>

namespace guild {
inline namespace v1 {

// guild/checkpoint/load_options.hpp
enum class Residence : std::uint8_t;
struct LoadOptions;
struct Progress;

// guild/checkpoint/save_model.hpp
struct SaveOptions;

// guild/checkpoint/training_state.hpp
class StateTensors;
enum class Verification : std::uint8_t;
struct StateRecord;

}  // namespace v1
}  // namespace guild
