// The record of a run: whole lines of JSON, cut back to the saved step when the run goes on.
#include <guild/cpu.hpp>
#include <guild/training/training_log.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "../io/test_files.hpp"

namespace training_log_test {

using guild::ErrorCode;
using guild::Index;
using guild::Json;
using guild::RoutingStatistics;
using guild::StepReport;
using guild::TrainingLog;
using guild::test::bytes_of;
using guild::test::TempFolder;

StepReport report_of(Index step) {
  StepReport report;
  report.step = step;
  report.losses.next = {10.0, 40.0, 8, 2};
  report.losses.second = {6.0, 12.0, 4, 1};
  report.balance = {0.125, 0.25, 0.5, 1.0, 2.0};
  report.rate = 3e-4;
  report.gradient_norm = 1.5;
  report.busiest = 1.25;
  report.idle_experts = 3;
  report.tokens = 10;
  report.skipped_steps = 4;
  report.memory_bytes = 1 << 20;
  report.seconds = 0.5;
  return report;
}
RoutingStatistics statistics() {
  RoutingStatistics routing(2, 4);
  guild::Cpu device({.threads = 1});
  const std::int32_t chosen[] = {0, 1, 3, 1, 3, 3};
  const float weights[] = {1, 1, 1, 1, 3, 1};
  guild::count_routing(device, 4, {chosen, 3, 2}, guild::DeviceView<const float, 2>{weights, 3, 2},
                       routing.view().sums_of(1));
  return routing;
}
std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  const std::string text = bytes_of(path);
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  EXPECT_TRUE(text.empty() || text.back() == '\n');
  return lines;
}

TEST(TrainingLog, LinesAreJson) {
  const std::string line = guild::json_line(report_of(7), statistics());
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const Json json = Json::parse(line, {});
  EXPECT_EQ(json["step"].integer(), 7);
  EXPECT_EQ(json["outcome"].string(), "applied");
  EXPECT_EQ(json["loss"].number(), 1.25);
  EXPECT_EQ(json["accuracy"].number(), 0.25);
  EXPECT_EQ(json["second_loss"].number(), 1.5);
  EXPECT_EQ(json["importance_loss"].number(), 0.125);
  EXPECT_EQ(json["load_loss"].number(), 0.25);
  EXPECT_EQ(json["auxiliary_loss"].number(), 0.5);
  EXPECT_EQ(json["sequence_loss"].number(), 1.0);
  EXPECT_EQ(json["router_z_loss"].number(), 2.0);
  EXPECT_EQ(json["rate"].number(), 3e-4);
  EXPECT_EQ(json["gradient_norm"].number(), 1.5);
  EXPECT_EQ(json["tokens"].integer(), 10);
  EXPECT_EQ(json["supervised"].integer(), 8);
  EXPECT_EQ(json["seconds"].number(), 0.5);
  EXPECT_EQ(json["tokens_per_second"].number(), 20.0);
  EXPECT_EQ(json["memory_bytes"].integer(), 1 << 20);
  EXPECT_EQ(json["skipped_steps"].integer(), 4);
  EXPECT_EQ(json["busiest_expert"].number(), 1.25);
  EXPECT_EQ(json["idle_experts"].integer(), 3);
  std::vector<std::vector<double>> loads;
  json["expert_load"].for_each_element([&](const Json& layer) {
    loads.emplace_back();
    layer.for_each_element([&](const Json& load) { loads.back().push_back(load.number()); });
  });
  EXPECT_EQ(loads, (std::vector<std::vector<double>>{{}, {0.16667, 0.33333, 0.0, 0.5}}));
  std::vector<double> entropy, dead;
  json["routing_entropy"].for_each_element([&](const Json& layer) { entropy.push_back(layer.number()); });
  json["dead_experts"].for_each_element([&](const Json& layer) { dead.push_back(layer.number()); });
  EXPECT_EQ(entropy, (std::vector<double>{0.0, 0.64954}));  // log 2 twice, and of shares 3/4 and 1/4
  EXPECT_EQ(dead, (std::vector<double>{0.0, 1.0}));
}

TEST(TrainingLog, NumbersThatAreNoneAreNull) {
  StepReport report = report_of(1);
  report.outcome = guild::StepOutcome::skipped;
  report.losses.next.loss = std::numeric_limits<double>::quiet_NaN();
  report.losses.second = {};
  report.gradient_norm = std::numeric_limits<double>::infinity();
  report.balance.router_z = -std::numeric_limits<double>::infinity();
  const Json json = Json::parse(guild::json_line(report, {}), {});
  EXPECT_EQ(json["outcome"].string(), "skipped");
  EXPECT_TRUE(json["loss"].is_null());
  EXPECT_TRUE(json["gradient_norm"].is_null());
  EXPECT_TRUE(json["router_z_loss"].is_null());
  EXPECT_FALSE(json.find("second_loss")) << "there is no prediction layer";
  EXPECT_TRUE(json["expert_load"].is_array());
}

TEST(TrainingLog, EachLineIsInTheFileAtOnce) {
  const TempFolder home;
  const std::string path = home.path("log.jsonl");
  TrainingLog log(path);
  EXPECT_EQ(bytes_of(path), "");
  for (Index step = 1; step <= 3; ++step) {
    log.write(report_of(step), statistics());
    ASSERT_EQ(lines_of(path).size(), static_cast<std::size_t>(step));
  }
  log.write(R"({"validation": 1.5})");
  ASSERT_EQ(lines_of(path).size(), 4U);
  EXPECT_EQ(lines_of(path)[3], R"({"validation": 1.5})");
  EXPECT_EQ(lines_of(path)[1], guild::json_line(report_of(2), statistics()));
}

TEST(TrainingLog, GoesOnFromTheSavedStep) {
  const TempFolder home;
  const std::string path = home.path("log.jsonl");
  {
    TrainingLog log(path);
    for (Index step = 1; step <= 6; ++step) {
      log.write(report_of(step), statistics());
      if (step % 2 == 0) log.write("{\"validation\": " + std::to_string(step) + "}");
    }
  }
  const auto all = lines_of(path);
  {
    TrainingLog log(path, 4);  // steps 5 and 6 had not been saved
    EXPECT_EQ(lines_of(path).size(), 6U);
    log.write(report_of(5), statistics());
  }
  auto expected = all;
  expected.resize(7);
  EXPECT_EQ(lines_of(path), expected);
  TrainingLog(path, 100);  // more than there are: nothing is lost
  EXPECT_EQ(lines_of(path), expected);
  const std::filesystem::path missing = home.path("new.jsonl");
  TrainingLog(missing.string(), 5).write("{}");
  EXPECT_EQ(lines_of(missing.string()), std::vector<std::string>{"{}"});
  TrainingLog anew(path);
  EXPECT_EQ(bytes_of(path), "");
}

TEST(TrainingLog, DropsALineThatWasCutOff) {
  const TempFolder home;
  const std::string whole = guild::json_line(report_of(1), statistics()) + "\n";
  const std::string second = guild::json_line(report_of(2), statistics());
  for (const std::size_t cut : {std::size_t{1}, std::size_t{20}, second.size()}) {
    const std::string path = home.write("log.jsonl", whole + second.substr(0, cut));
    TrainingLog log(path, 2);
    EXPECT_EQ(bytes_of(path), whole) << cut;
    log.write("{}");
    EXPECT_EQ(bytes_of(path), whole + "{}\n") << cut;
  }
}

TEST(TrainingLog, KeepsAFileThatIsNoLog) {
  const TempFolder home;
  for (const char* const text :
       {"my notes\n", "{}\n[]\n", "{\"step\": \"one\"}\n", "{\"a\": 1, \"a\": 2}\n", "\n", "{\"step\": 1.5}\n"}) {
    const std::string path = home.write("notes.txt", text);
    const auto error = guild::test::error_of([&] { TrainingLog(path, 3); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), ErrorCode::ck_corrupt) << error->what();
    EXPECT_EQ(error->path(), path);
    EXPECT_EQ(bytes_of(path), text);
  }
}

TEST(TrainingLog, SaysWhyItCannotBeWritten) {
  const TempFolder home;
  EXPECT_GUILD_ERROR(ErrorCode::io_open, TrainingLog(home.path("no/folder/log.jsonl")));
  EXPECT_GUILD_ERROR(ErrorCode::io_open, TrainingLog(home.path()));
  EXPECT_GUILD_ERROR(ErrorCode::io_open, TrainingLog(""));
#if defined(__linux__)
  if (std::filesystem::exists("/dev/full")) {
    TrainingLog log("/dev/full");
    const auto error = guild::test::error_of([&] { log.write(report_of(1), statistics()); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), ErrorCode::io_no_space);
    EXPECT_EQ(error->path(), "/dev/full");
  }
#endif
}

TEST(TrainingLog, ShowsProgressInOneLine) {
  EXPECT_EQ(guild::progress_line(report_of(12), 200, 125.9),
            "step 12/200  loss 1.2500  rate 3.0e-04  norm 1.50  busiest 1.25  20 tokens/s  left 2:05");
  StepReport report = report_of(1);
  report.losses.next.loss = report.gradient_norm = std::numeric_limits<double>::quiet_NaN();
  report.seconds = 0.0;
  const std::string text = guild::progress_line(report, 2, std::numeric_limits<double>::infinity());
  EXPECT_EQ(text, "step 1/2  loss nan  rate 3.0e-04  norm nan  busiest 1.25  0 tokens/s  left 0:00");
  report.losses.next.loss = 1e300;  // as long as numbers get
  report.gradient_norm = 1e300;
  const std::string longest = guild::progress_line(report, 2, 1e300);
  EXPECT_EQ(longest.substr(longest.size() - 23), "  0 tokens/s  left 0:00");
}

}  // namespace training_log_test
