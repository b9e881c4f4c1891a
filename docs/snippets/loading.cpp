#include <cstdio>

#include <guild/guild.hpp>

int main() {
  // [begin]
  guild::LoadOptions options;
  options.residence = guild::Residence::owned;  // or mapped: for models larger than memory
  options.memory_budget = std::int64_t{8} << 30;
  options.progress = [](const guild::Progress& p) {
    std::fprintf(stderr, "\r%lld of %lld MB, %.0f s left", static_cast<long long>(p.bytes >> 20),
                 static_cast<long long>(p.total >> 20), p.seconds_left);
    return true;  // false stops with the error io_cancelled
  };
  guild::Cpu device;
  const auto model = guild::load<guild::MiniR1>(device, "checkpoints/mini-r1", options);
  // [end]
  std::printf("%d tokens\n", model.tokenizer().size());
}
