// The record of a training run: one line of JSON a step, on the disk as soon as the step is done.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <guild/core/error.hpp>
#include <guild/io/durable_file.hpp>
#include <guild/io/file.hpp>
#include <guild/io/json.hpp>
#include <guild/io/json_writer.hpp>
#include <guild/modules/routing_statistics.hpp>
#include <guild/training/step_report.hpp>

namespace guild {
inline namespace v1 {

/// {"step":1,"outcome":"applied","loss":..,...,"expert_load":[[..],..]}: loads as shares of a layer's tokens, layer by
/// layer, [] for layers without experts; "routing_entropy":[..],"dead_experts":[..]: RoutingStatistics::entropy and how
/// many dead_experts, layer by layer, 0 for those without experts; "slot_share":[..]: slots a token, span by span, of
/// models that merge. A number that is not finite is null.
[[nodiscard]] inline std::string json_line(const StepReport& report, const RoutingStatistics& routing) {
  JsonWriter writer({.indent = -1});
  const auto finite = [&](double value) {
    if (std::isfinite(value))
      writer.value(value);
    else
      writer.value(nullptr);
  };
  const auto number = [&](const char* key, double value) {
    writer.key(key);
    finite(value);
  };
  writer.begin_object().member("step", report.step);
  writer.member("outcome", report.outcome == StepOutcome::applied ? "applied" : "skipped");
  number("loss", report.losses.loss());
  number("accuracy", report.losses.accuracy());
  if (report.losses.second.count > 0) number("second_loss", report.losses.second_loss());
  if (report.losses.index > 0.0) number("index_loss", report.losses.index);
  if (report.losses.spans.size() > 0) {
    number("merging_loss", report.losses.merging);
    writer.key("slot_share").begin_array();
    for (std::size_t i = 0; i < report.losses.spans.size(); ++i)
      writer.value(std::round(report.losses.spans[i].share() * 1e5) / 1e5);
    writer.end_array();
  }
  number("importance_loss", report.balance.importance);
  number("load_loss", report.balance.load);
  number("auxiliary_loss", report.balance.auxiliary);
  number("sequence_loss", report.balance.sequence);
  number("router_z_loss", report.balance.router_z);
  if (report.balance.entropy != 0.0) number("entropy_loss", report.balance.entropy);
  number("rate", report.rate);
  number("gradient_norm", report.gradient_norm);
  writer.member("tokens", report.tokens).member("supervised", report.losses.next.count);
  number("seconds", report.seconds);
  number("tokens_per_second", report.tokens_per_second());
  writer.member("memory_bytes", report.memory_bytes).member("skipped_steps", report.skipped_steps);
  number("busiest_expert", report.busiest);
  writer.member("idle_experts", report.idle_experts);
  writer.key("expert_load").begin_array();
  for (int layer = 0; layer < routing.layers(); ++layer) {
    double sum = 0.0;
    for (const double served : routing.load(layer)) sum += served;
    writer.begin_array();
    if (sum > 0.0)
      for (const double served : routing.load(layer)) writer.value(std::round(served / sum * 1e5) / 1e5);
    writer.end_array();
  }
  writer.end_array().key("routing_entropy").begin_array();
  for (int layer = 0; layer < routing.layers(); ++layer) finite(std::round(routing.entropy(layer) * 1e5) / 1e5);
  writer.end_array().key("dead_experts").begin_array();
  for (int layer = 0; layer < routing.layers(); ++layer)
    writer.value(static_cast<std::int64_t>(routing.dead_experts(layer).size()));
  return writer.end_array().end_object().take();
}

/// "step 120/2000  loss 1.2340  rate 3.0e-03  norm 0.98  busiest 1.20  51234 tokens/s  left 3:20": for a line that is
/// rewritten.
[[nodiscard]] inline std::string progress_line(const StepReport& report, Index steps, double seconds_left) {
  char text[2048];  // numbers have up to 309 digits
  const auto left = static_cast<long>(seconds_left > 0.0 && seconds_left < 1e9 ? seconds_left : 0.0);
  std::snprintf(text, sizeof text,
                "step %lld/%lld  loss %.4f  rate %.1e  norm %.2f  busiest %.2f  %.0f tokens/s  left %ld:%02ld",
                static_cast<long long>(report.step), static_cast<long long>(steps), report.losses.loss(), report.rate,
                report.gradient_norm, report.busiest, report.tokens_per_second(), left / 60, left % 60);
  return text;
}

/// A file of such lines. Throws io_open, io_write, io_no_space; ck_corrupt for lines that are none.
class TrainingLog {
 public:
  /// Opens `path` and keeps the lines of the first `steps` steps: what a run that is resumed there had not saved when
  /// it ended is done again, and a line that was cut off is dropped. 0 begins anew. The lines that stay are not written
  /// a second time.
  explicit TrainingLog(std::string path, Index steps = 0) : path_(std::move(path)) {
    bytes_ = steps > 0 ? bytes_until(steps) : 0;
    file_.reset(std::fopen(path_.c_str(), "ab"));
    if (!file_) detail::system_error(ErrorCode::io_open, "cannot be opened for writing", errno, path_);
    std::setvbuf(file_.get(), nullptr, _IONBF, 0);
    if (::ftruncate(::fileno(file_.get()), static_cast<::off_t>(bytes_)) != 0 && errno != EINVAL)  // EINVAL: a device
      detail::write_failed("cannot be cut to the lines that stay", errno, path_);
  }

  void write(const StepReport& report, const RoutingStatistics& routing) { append(json_line(report, routing) + "\n"); }
  /// A line of the caller's, such as an evaluation: one JSON object without line feeds.
  void write(const std::string& json) { append(json + "\n"); }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  void append(const std::string& text) {
    errno = 0;
    if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size()) {
      const int error = errno;
      (void)::ftruncate(::fileno(file_.get()), static_cast<::off_t>(bytes_));  // no part of a line stays
      detail::write_failed("a line could not be written", error, path_);
    }
    bytes_ += text.size();
  }

  [[nodiscard]] std::size_t bytes_until(Index steps) const {
    if (std::unique_ptr<std::FILE, Close> there(std::fopen(path_.c_str(), "rb")); !there) return 0;
    const std::string text = read_text(path_, std::size_t{1} << 32);
    std::size_t kept = 0;
    std::int64_t number = 1;
    for (std::size_t end; (end = text.find('\n', kept)) != std::string::npos; kept = end + 1, ++number) {
      constexpr ErrorCode corrupt = ErrorCode::ck_corrupt;
      const Json line =
          Json::parse(std::string_view(text).substr(kept, end - kept), {.path = path_,
                                                                        .syntax = corrupt,
                                                                        .utf8 = corrupt,
                                                                        .nul = corrupt,
                                                                        .depth = corrupt,
                                                                        .duplicate = corrupt,
                                                                        .number = corrupt,
                                                                        .type = corrupt,
                                                                        .missing = corrupt,
                                                                        .first_line = number,
                                                                        .first_byte = static_cast<std::int64_t>(kept)});
      if (!line.is_object()) line.wrong_type("an object");
      if (const auto step = line.find("step"); step && step->integer() > steps) break;
    }
    return kept;  // a last line without its end was cut off, and is left out
  }

  std::string path_;
  std::size_t bytes_ = 0;  // of whole lines
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace v1
}  // namespace guild
