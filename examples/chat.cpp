// Talk to a model: `chat -m FOLDER -p "What is 17 * 23?"`, or `chat -m FOLDER chat` for a conversation.
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <guild/guild.hpp>

#if defined(GUILD_CHAT_SPEC)  // a Spec that guild_add_spec wrote from somebody's config.json
#define GUILD_TEXT_(x) #x
#define GUILD_TEXT(x) GUILD_TEXT_(x)
#include GUILD_TEXT(GUILD_CHAT_SPEC.hpp)
#endif

namespace {

volatile std::sig_atomic_t interrupted = 0;  // Ctrl-C ends the answer, not the program
void interrupt(int) { interrupted = 1; }

struct Settings {
  std::string folder = "checkpoints/tiny-r1";
  std::vector<std::string> prompts;
  std::string system;
  bool converse = false, mapped = false, quiet = false;
  int threads = 0;
  guild::Index context = 0;
  guild::GenerateOptions generate;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Loads a model with a bar that grows on a terminal.
template <class Model>
auto load(const guild::Cpu& device, const Settings& settings) {
  guild::LoadOptions options;
  if (settings.mapped) options.residence = guild::Residence::mapped;
  int shown = -1;
  const bool terminal = isatty(STDERR_FILENO) != 0 && !settings.quiet;
  options.progress = [&](const guild::Progress& progress) {
    const int part = static_cast<int>(progress.total > 0 ? 40 * progress.bytes / progress.total : 40);
    if (terminal && part != shown) {
      shown = part;
      std::fprintf(stderr, "\rloading [%-40s] %3d %%  %.1f MB  %.0f s left ",
                   std::string(static_cast<std::size_t>(part), '#').c_str(), part * 100 / 40,
                   static_cast<double>(progress.total) / 1e6, progress.seconds_left);
    }
    return interrupted == 0;
  };
  auto model = guild::load<Model>(device, settings.folder, options);
  if (terminal) std::fputc('\n', stderr);
  return model;
}

/// Streams one answer, thinking dimmed and on lines of its own; returns the answer without the thinking.
template <class Generation>
std::string stream(Generation&& generation) {
  using Kind = guild::ThinkPiece::Kind;
  const bool color = isatty(STDOUT_FILENO) != 0;
  std::string answer, newlines;  // newlines are held back: those at the end of a part are not shown
  Kind kind = Kind::answer;
  for (const auto& piece : generation) {
    if (piece.kind != kind) {
      if (color) std::fputs(piece.kind == Kind::thinking ? "\033[2m" : "\033[0m", stdout);
      newlines = kind == Kind::thinking ? "\n" : "";
      kind = piece.kind;
    }
    for (const char c : piece.text) {
      if (c == '\n') {
        newlines += c;
        continue;
      }
      const bool begins = kind == Kind::answer && answer.empty();
      const std::string shown = (begins ? newlines.substr(0, 1) : newlines) + c;
      std::fputs(shown.c_str(), stdout);
      if (kind == Kind::answer) answer += begins ? std::string(1, c) : shown;
      newlines.clear();
    }
    std::fflush(stdout);
    if (interrupted != 0) break;
  }
  std::fputs(color && kind == Kind::thinking ? "\033[0m\n" : "\n", stdout);
  return answer;
}

/// One line about the model type, the load, the questions, and the statistics.
template <class Spec>
void run(const Settings& settings) {
  using Model = guild::Transformer<Spec>;
  constexpr auto count = guild::parameter_count(guild::config_of<Spec>);
  const guild::Cpu device({.threads = settings.threads});
  if (!settings.quiet)
    std::fprintf(
        stderr,
        "%d layers, %.4g million parameters (%.4g active per token), cache %lld bytes per token, 1/%.1f of multi-head "
        "attention; %d threads\n",
        Spec::config.layers, static_cast<double>(count.total) / 1e6, static_cast<double>(count.active) / 1e6,
        static_cast<long long>(
            guild::cache_bytes_per_token(guild::config_of<Spec>, sizeof(typename Spec::CacheElement))),
        guild::cache_ratio(guild::config_of<Spec>), device.threads());
  const auto start = std::chrono::steady_clock::now();
  const auto model = load<Model>(device, settings);
  const double load_seconds = seconds_since(start);

  guild::GenerationStats total;
  double first_token = -1;
  guild::Conversation conversation(model, settings.system, settings.context);
  const auto answer = [&](const std::string& question) {
    interrupted = 0;
    auto generation = conversation.ask(question, settings.generate);
    conversation.remember(stream(generation));
    const guild::GenerationStats& stats = generation.stats();
    if (first_token < 0) first_token = stats.prompt_seconds;
    total.prompt_tokens += stats.prompt_tokens;
    total.generated_tokens += stats.generated_tokens;
    total.prompt_seconds += stats.prompt_seconds;
    total.decode_seconds += stats.decode_seconds;
  };

  for (const std::string& prompt : settings.prompts) {
    if (!settings.quiet) std::printf("> %s\n", prompt.c_str());
    answer(prompt);
    if (!settings.quiet) std::printf("\n");
    conversation.clear();
    if (interrupted != 0) break;
  }
  for (std::string line; settings.converse;) {
    std::fputs("> ", stdout);
    std::fflush(stdout);
    if (!std::getline(std::cin, line) || line == "/exit") break;
    if (line == "/clear")
      conversation.clear();
    else if (!line.empty())
      try {
        answer(line);
      } catch (const guild::Error& error) { std::fprintf(stderr, "%s\n", error.what()); }
  }

  std::fflush(stdout);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto decoded = static_cast<double>(total.generated_tokens) - static_cast<double>(settings.prompts.size());
  if (!settings.quiet && first_token >= 0)
    std::fprintf(stderr,
                 "load %.2f s | prompt %lld tokens, %.0f tokens/s | generated %lld tokens, %.0f tokens/s | first token "
                 "after %.1f ms | peak memory %.0f MB\n",
                 load_seconds, static_cast<long long>(total.prompt_tokens),
                 static_cast<double>(total.prompt_tokens) / total.prompt_seconds,
                 static_cast<long long>(total.generated_tokens), decoded > 0 ? decoded / total.decode_seconds : 0.0,
                 first_token * 1e3, static_cast<double>(usage.ru_maxrss) / 1e3);
}

/// Runs the first of the compiled model types that has the numbers of config.json.
template <class... Specs, class Family>
bool run_matching(const Settings& settings, const guild::PublishedModel<Family>& file) {
  return ((guild::matches<Specs>(file) ? (run<Specs>(settings), true) : false) || ...);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  std::string mode;
  CLI::App app("Generates text with a DeepSeek-R1-style model: give it a Hugging Face folder.");
  app.add_option("mode", mode, "\"chat\" for a conversation (/exit, /clear, Ctrl-C stops an answer)")
      ->check(CLI::IsMember({"chat"}));
  app.add_option("-m,--model", settings.folder, "folder with config.json, *.safetensors, tokenizer.json")
      ->capture_default_str();
  app.add_option("-p,--prompt", settings.prompts, "a question (may be repeated)")->allow_extra_args(false);
  app.add_option("--system", settings.system, "system message");
  app.add_option("-n,--predict", settings.generate.max_tokens, "most tokens of an answer; 0 or -1: no limit");
  app.add_option("-t,--threads", settings.threads, "threads; 0: all processors");
  app.add_option("-c,--ctx-size", settings.context, "most tokens of a conversation; 0: as many as the model knows");
  app.add_option("--temp", settings.generate.temperature, "temperature; 0: always the likeliest token");
  app.add_option("--top-k", settings.generate.top_k, "only the k likeliest tokens; 0: all");
  app.add_option("--top-p", settings.generate.top_p, "only the likeliest tokens that reach p together");
  app.add_option("--min-p", settings.generate.min_p, "only tokens at least p times as likely as the best");
  app.add_option("--repeat-penalty", settings.generate.repetition_penalty,
                 "above 1: tokens seen before become less likely");
  app.add_option("-s,--seed", settings.generate.seed, "seed of the draws");
  app.add_flag("--mmap", settings.mapped, "map the weights instead of reading them: for models larger than memory");
  app.add_flag("-q,--quiet", settings.quiet, "print the answers only");
  CLI11_PARSE(app, argc, argv);
  if (settings.generate.max_tokens == -1) settings.generate.max_tokens = 0;  // as llama.cpp spells "no limit"
  settings.converse = mode == "chat";
  if (settings.prompts.empty() && !settings.converse)
    settings.prompts = {"What is 17 + 5 * 3?", "What is 17 * 23?", "Compute (4 + 8) * 6."};
  std::signal(SIGINT, interrupt);
  try {
    const std::string path = guild::path_in(settings.folder, "config.json");
    const auto run_this = [&]<class Family>(const guild::PublishedModel<Family>& file) {
      const bool known = run_matching<guild::MiniR1Spec, guild::DeepSeekR1Spec, guild::DeepSeekV2LiteSpec,
                                      guild::MoonlightSpec, guild::KimiK2Spec
#if defined(GUILD_CHAT_SPEC)
                                      ,
                                      GUILD_CHAT_SPEC
#endif
                                      >(settings, file);
      if (known) return 0;
      std::fprintf(stderr,
                   "None of the model types in this program has the numbers of %s:\n%s"
                   "Configure with -DGUILD_CHAT_CONFIG=%s to add one (./quickstart -m does it for you).\n",
                   path.c_str(), guild::describe<Family>(file.model).c_str(), path.c_str());
      return 3;
    };
    return guild::with_config<guild::Families>(guild::read_text(path, 1 << 20), path, run_this);
  } catch (const guild::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
