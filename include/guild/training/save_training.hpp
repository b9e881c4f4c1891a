// Saving a training run and going on from it, bit by bit, in the layout of a published model.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/checkpoint/save_model.hpp>
#include <guild/checkpoint/training_state.hpp>
#include <guild/io/atomic_folder.hpp>
#include <guild/io/manifest.hpp>
#include <guild/training/trainer.hpp>

namespace guild {
inline namespace v1 {

struct SaveTrainingOptions {
  std::string companions{};                    ///< a folder whose tokenizer files are copied (SaveOptions::companions)
  std::map<std::string, std::string> texts{};  ///< the caller's own state by name: data positions, settings
  std::uint64_t max_shard_bytes = 5'000'000'000;
  std::shared_ptr<FileSystem> system = std::make_shared<FileSystem>();  ///< what writes; tests let its calls fail
};

namespace detail {
template <class Trainer>
StateTensors state_of(Trainer& trainer) {
  StateTensors tensors;
  trainer.optimizer().visit_state(tensors);
  if (trainer.options().average > 0.0) tensors.template add<typename Trainer::ModelType>("average", trainer.average());
  return tensors;
}
}  // namespace detail

/// Saves the weights (in float, as model.safetensors with config.json: any loader of published models reads them),
/// moments, averages and counters as one folder, in place of an older one: whole or not at all (AtomicFolder).
template <class Trainer>
void save_training(const std::string& path, Trainer& trainer, const SaveTrainingOptions& options = {}) {
  AtomicFolder folder(path, options.system);
  SaveOptions model;
  model.dtype = DType::f32;
  model.max_shard_bytes = options.max_shard_bytes;
  model.companions = options.companions;
  save_model<typename Trainer::ModelType>(folder, trainer.weights(), model);
  StateRecord record;
  record.integers = {{"steps", trainer.steps()},
                     {"skipped_steps", trainer.skipped_steps()},
                     {"optimizer_steps", trainer.optimizer().steps()}};
  for (const auto& [name, text] : options.texts) record.strings.emplace("user." + name, text);
  write_state(folder, detail::state_of(trainer), record);
  folder.commit();
}

/// Brings a trainer of the same model and options to a saved state, after checking every file against the manifest.
/// Returns the caller's own texts. The next step is, bit by bit, the one that the saved run would have done next. If it
/// throws (ck_*, wt_*, cf_*, io_*), construct the trainer anew: moments may be half read.
template <class Trainer>
std::map<std::string, std::string> resume_training(const std::string& path, Trainer& trainer) {
  using Model = typename Trainer::ModelType;
  recover_folder(path);
  (void)verify_manifest(path);
  LoadOptions options;
  options.mtp = !trainer.weights().mtp.empty();
  auto weights = load_dense<Model>(path, options);
  const StateTensors tensors = detail::state_of(trainer);
  const StateRecord record = read_state(path, tensors, Verification::done);
  std::map<std::string, std::string> texts;
  for (const auto& [name, text] : record.strings)
    if (name.starts_with("user.")) texts.emplace(name.substr(5), text);
  const Index steps = record.integer("steps"), skipped = record.integer("skipped_steps");
  trainer.optimizer().set_steps(record.integer("optimizer_steps"));
  trainer.weights() = std::move(weights);
  trainer.set_steps(steps, skipped);
  return texts;
}

}  // namespace v1
}  // namespace guild
