// Declares the public types of training/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/core/fwd.hpp>

namespace guild {
inline namespace v1 {

// guild/training/adamw.hpp
struct AdamW;

// guild/training/allocate.hpp
struct Allocate;
struct AllocateTrained;

// guild/training/chat_dataset.hpp
class ChatDataset;

// guild/training/chat_encoder.hpp
class ChatEncoder;
enum class AssistantText : std::uint8_t;
struct ChatOptions;

// guild/training/compute_store.hpp
template <class T> struct ComputeStore;

// guild/training/curriculum.hpp
enum class CurriculumUnit : std::uint8_t;
struct Curriculum;
struct CurriculumStage;

// guild/training/data_loader.hpp
class DataLoader;
enum class LongSamples : std::uint8_t;
struct LoaderOptions;

// guild/training/data_position.hpp
struct DataPosition;
struct SourcePosition;

// guild/training/dataset.hpp
class AnyDataset;
class SampleList;
struct Sample;

// guild/training/generated_dataset.hpp
template <class Make> class GeneratedChats;
template <class Make> class GeneratedDataset;

// guild/training/initialize.hpp
struct InitializeOptions;

// guild/training/masking.hpp
struct MaskOptions;

// guild/training/mixture.hpp
class MixtureWalk;
enum class SampleOrder : std::uint8_t;
struct Mixture;
struct Source;

// guild/training/muon.hpp
enum class MuonScale : std::uint8_t;
struct Muon;

// guild/training/objective.hpp
struct LossReport;
struct StepSize;
template <class Model, class Real, class Memory> class Objective;

// guild/training/objective_options.hpp
struct ObjectiveOptions;

// guild/training/optimizer.hpp
enum class PredictionLayers : std::uint8_t;
template <class Model> class Optimizer;

// guild/training/parameter_group.hpp
enum class UpdateRule : std::uint8_t;
struct ParameterGroup;

// guild/training/refresh_shared.hpp
struct AllocateMissing;

// guild/training/save_training.hpp
struct SaveTrainingOptions;

// guild/training/schedule.hpp
class Schedule;
enum class Course : std::uint8_t;
struct SchedulePiece;

// guild/training/shuffle.hpp
class Permutation;

// guild/training/span_counts.hpp
struct SpanCounts;

// guild/training/step_report.hpp
enum class StepOutcome : std::uint8_t;
struct StepReport;

// guild/training/text_tokens.hpp
class TextEncoder;
struct TextOptions;

// guild/training/token_array.hpp
class TokenArray;

// guild/training/token_stream.hpp
class TokenStream;
struct TokenStreamOptions;

// guild/training/trainer.hpp
struct TrainerOptions;
template <class Model, class Device, class Compute> class Trainer;

// guild/training/training_batch.hpp
struct TrainingBatch;

// guild/training/training_log.hpp
class TrainingLog;

}  // namespace v1
}  // namespace guild
