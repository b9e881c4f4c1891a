#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <guild/guild.hpp>

// [begin]
struct MyNames {
  static constexpr guild::NameRule rules[] = {
      {"embedding", "wte"},
      {"final_norm", "ln_f"},
      {"head", "lm_head"},
      {"layers.*", "h.*"},  // a star is a number, the same on both sides
      {"layers.*.mixer", "h.*.attn"},
      {"layers.*.mixer.output", "h.*.attn.c_proj"},
      {"layers.*.feed_forward.experts.*.gate", "h.*.moe.*.w1"},
      {"layers.*.feed_forward.experts.gate.weight", "h.*.moe.w13", {.parts = 2, .part = 0}},  // the stack of all experts
      {"layers.*.feed_forward.experts.up.weight", "h.*.moe.w13", {.parts = 2, .part = 1}},
  };
  static constexpr std::string_view scale_suffix = "_scale_inv";  // of the scales of fp8 matrices
};
// [end]

int main() {
  const guild::Path root, layers = root / "layers", layer = layers / 3, mixer = layer / "mixer", output = mixer / "output";
  const bool right =
      guild::published_name<MyNames>(output / "weight") == "h.3.attn.c_proj.weight" &&
      guild::published_name<MyNames>(mixer / "taps") == "h.3.attn.taps" &&
      guild::our_paths<MyNames>("h.3.moe.w13") ==
          std::vector<std::string>{"layers.3.feed_forward.experts.gate.weight", "layers.3.feed_forward.experts.up.weight"};
  std::puts(right ? "both ways" : "WRONG");
  return right ? 0 : 1;
}
