// LongCat-Flash against transformers (tests/oracle/make_longcat_fixture.py), its layer's gradients, and its numbers.
#include <guild/models/longcat_flash.hpp>

#include <gtest/gtest.h>

#include <guild/core/model_size.hpp>

#include "../support/family_specs.hpp"
#include "../support/gradient_check.hpp"
#include "parity.hpp"

namespace parity_longcat_test {

using namespace parity;
using guild_test::Longcat;

TEST(Parity, LongcatFlashHasTwoHalvesAndExpertsThatGiveTheirInput) { expect_both<Longcat>("longcat"); }
/// With matrices of experts that give their input, which transformers 5 writes, and its spelling of the config.
TEST(Parity, LongcatFlashMayBeAsTransformersSavesIt) { expect_parity<Longcat>("longcat_v5"); }
TEST(Parity, LongcatFlashMayBeSplitAnywhere) { expect_any_split<Longcat>("longcat"); }

struct Tiny : guild::LongcatFlashDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 1, .context = 64};
  static constexpr guild::MlaConfig attention = {.heads = 2,
                                                 .query_rank = 6,
                                                 .latent_rank = 5,
                                                 .nope_dim = 4,
                                                 .rope_dim = 4,
                                                 .value_dim = 3,
                                                 .scaled_latents = true};
  static constexpr guild::DenseConfig dense = {.hidden = 7, .layers = 0};
  static constexpr guild::TopKConfig routing = {
      .experts = 4, .top_k = 2, .scoring = guild::Scoring::softmax, .normalize = false, .scale = 2.0, .identities = 2};
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 0};
};
struct LayerCase {
  using Module = guild::ShortcutBlock<Tiny, guild::Mla<Tiny>, guild::DenseFeedForward<Tiny>, guild::Moe<Tiny>>;
  static constexpr guild::Index inputs = 12, outputs = 12;
  static constexpr std::int32_t vocab = 19;
  template <class Real>
  using Saved = Module::Saved<Real>;
  template <class P, class W, class X, class Y, class Saved>
  static void forward(const P& pass, const W& weights, X x, Y y, Saved& saved) {
    Module::forward(pass, weights, {}, x, y, &saved);
  }
  template <class... A>
  static void backward(A&&... a) {
    Module::backward(std::forward<A>(a)...);
  }
  template <class... A>
  static double extra_loss(A&&...) {
    return 0.0;
  }
};

TEST(ShortcutBlock, BackwardAgreesWithCentralDifferences) {
  guild_test::gradient_check<LayerCase>({6, 3}, 5, {.most = 60});
}

TEST(LongcatFlash, HasThePublishedSize) {
  constexpr auto config = guild::config_of<guild::LongcatFlashSpec>;
  // Of the class defaults on transformers' meta device, without the gate and up of experts that give their input.
  static_assert(guild::parameter_count(config).total == 560664980480);
  static_assert(guild::cache_bytes_per_token(config) == 2 * 28 * (512 + 64) * 2);
}

}  // namespace parity_longcat_test
