// Backward of every module against central differences in double. A new module joins by a line in `Cases`; whole models
// are in tests/models/gradients_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>

#include <guild/modules/compressor.hpp>
#include <guild/modules/learned_slots.hpp>
#include <guild/modules/match_span.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/shared_kv.hpp>
#include <guild/modules/weighted_keys.hpp>

#include "../support/gradient_cases.hpp"
#include "../support/whole_stack.hpp"

namespace gradients_test {

using namespace gradient_cases;

struct LinearCase : LayerCase<guild::Linear<7, 12>, TinySpec> {
  static constexpr Index outputs = 7;
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X x, Y y, S&) {
    Module::forward(pass.device, weights, x, y);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X x, const S&, DY dy, DX dx, G& gradients) {
    Module::backward(pass.device, weights, x, dy, dx, gradients);
  }
};
template <guild::NormGain Gain>
struct NormCase : LayerCase<guild::RmsNorm<12, Gain>, TinySpec> {
  using Module = guild::RmsNorm<12, Gain>;
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X x, Y y, S&) {
    Module::forward(pass.device, weights, x, y, 1e-6);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X x, const S&, DY dy, DX dx, G& gradients) {
    Module::backward(pass.device, weights, x, dy, dx, gradients, 1e-6);
  }
};
struct LayerNormCase : LayerCase<guild::LayerNorm<12>, TinySpec> {
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X x, Y y, S&) {
    Module::forward(pass.device, weights, x, y, 1e-6);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X x, const S&, DY dy, DX dx, G& gradients) {
    Module::backward(pass.device, weights, x, dy, dx, gradients, 1e-6);
  }
};
template <guild::EmbeddingScale Scale>
struct EmbeddingCase : LayerCase<guild::Embedding<19, 12, Scale>, TinySpec> {
  using Module = guild::Embedding<19, 12, Scale>;
  static constexpr Index inputs = 0;
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X, Y y, S&) {
    Module::forward(pass.device, weights, pass.batch.tokens, y);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X, const S&, DY dy, DX, G& gradients) {
    Module::backward(pass.device, weights, pass.batch.tokens, View<const double, 2>(dy), gradients);
  }
};
using DenseCase = LayerCase<guild::DenseFeedForward<TinySpec>, TinySpec>;
using GeluCase = LayerCase<guild::DenseFeedForward<GeluSpec>, TinySpec>;
using LimitedMoeCase = LayerCase<guild::Moe<GeluSpec>, TinySpec>;
using UngatedCase = LayerCase<guild::DenseFeedForward<UngatedSpec>, TinySpec>;
using UngatedMoeCase = LayerCase<guild::Moe<UngatedSpec>, TinySpec>;
using BiasedMoeCase = LayerCase<guild::Moe<BiasedSpec>, TinySpec>;
using MlaCase = UncachedCase<guild::Mla<TinySpec>, TinySpec>;
using MlaPlainQueryCase = UncachedCase<guild::Mla<PlainQuerySpec>, PlainQuerySpec>;
using GqaCase = UncachedCase<guild::Gqa<GqaSpec>, GqaSpec>;
using RowNormGqaCase = UncachedCase<guild::Gqa<RowNormGqaSpec>, RowNormGqaSpec>;
using LocalGqaCase = UncachedCase<guild::Local<guild::Gqa<GqaSpec>, 3, 1>, GqaSpec>;
using LocalMlaCase = UncachedCase<guild::Local<guild::Mla<TinySpec>, 2>, TinySpec>;
using FarBiasGqaCase = UncachedCase<guild::Gated<guild::Gqa<GqaSpec>, guild::FarBiasGate<2, 1>>, GqaSpec>;
using FarBiasMlaCase = UncachedCase<guild::Gated<guild::Mla<PlainQuerySpec>, guild::FarBiasGate<2>>, PlainQuerySpec>;
using BranchesMlaCase = UncachedCase<guild::Gated<guild::Mla<TinySpec>, guild::BranchGate<2>>, TinySpec>;
using HeadGateGqaCase =
    UncachedCase<guild::Gated<guild::Local<guild::Gqa<GqaSpec>, 4, 1>, guild::HeadGate<2>>, GqaSpec>;
using SharedKvCase = UncachedCase<guild::SharedKv<SharedKvSpec>, SharedKvSpec>;
using LocalSharedKvCase = UncachedCase<guild::Local<guild::SharedKv<SharedKvSpec>, 3>, SharedKvSpec>;
using PooledCase =
    UncachedCase<guild::Compressed<guild::Local<guild::SharedKv<SharedKvSpec>, 2>, guild::Pooled<2>>, SharedKvSpec>;
using OverlappingPooledCase = UncachedCase<guild::Compressed<guild::Local<guild::SharedKv<SharedKvSpec>, 2>,
                                                             guild::Pooled<2, guild::PoolWindows::overlapping>>,
                                           SharedKvSpec>;
/// Its rows are fewer than tokens: the last rows of y have no meaning.
template <Index Ratio, guild::PoolWindows Windows>
struct CompressorCase : LayerCase<guild::Compressor<12, 6, Ratio, Windows>, TinySpec> {
  using Module = guild::Compressor<12, 6, Ratio, Windows>;
  static constexpr Index outputs = Module::width;
  static constexpr guild::RopeHeads rotary{1, 6, 2};
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X x, Y y, S& saved) {
    auto room = pass.room(&saved);
    const View<double, 2> rows = Module::forward(pass, weights, 1e-6, guild::RopeTable({}, 4), rotary, x, room, saved);
    std::fill_n(y.data, y.rows * y.cols, 0.0);
    std::copy_n(rows.data, rows.rows * rows.cols, y.data);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X x, const S& saved, DY dy, DX dx, G& gradients) {
    guild::Buffer<double> drows(Module::rows_of(pass.batch) * outputs);
    std::copy_n(dy.data, drows.size(), drows.data());
    std::fill_n(dx.data, dx.rows * dx.cols, 0.0);  // it is added to
    Module::backward(pass, weights, 1e-6, guild::RopeTable({}, 4), rotary, x, saved,
                     drows.view(saved.pooled.rows, outputs), dx, gradients);
  }
};
using MoeCase = LayerCase<guild::Moe<TinySpec>, TinySpec>;
using MoeSoftmaxCase = LayerCase<guild::Moe<PlainQuerySpec>, PlainQuerySpec>;
using MoeRootCase = LayerCase<guild::Moe<HashSpec>, HashSpec>;
using MoeHashCase = LayerCase<guild::Moe<HashSpec, guild::HashRouter<HashSpec>>, HashSpec>;
using BlockCase = UncachedCase<TinySpec::ExpertLayer<TinySpec>, TinySpec>;
/// Norms before and after, their gains 1 + weight.
struct FourNormsSpec : TinySpec {
  static constexpr guild::TrunkConfig config = [] {
    auto c = TinySpec::config;
    c.norm = {.gain = guild::NormGain::one_plus_weight, .place = guild::NormPlace::before_and_after};
    return c;
  }();
};
using FourNormsCase = UncachedCase<FourNormsSpec::ExpertLayer<FourNormsSpec>, FourNormsSpec>;

template <class S>
struct StackCase : UncachedCase<guild_test::WholeStack<typename guild::Transformer<S>::Layers>, S> {
  using Module = guild_test::WholeStack<typename guild::Transformer<S>::Layers>;
  template <class Real>
  using Saved = typename Module::template Saved<Real>;
  template <class P, class W, class X, class SavedHere, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X, SavedHere& saved, DY dy, DX dx, G& gradients) {
    for (Index t = 0; t < dx.rows; ++t)
      for (Index i = 0; i < dx.cols; ++i) dx(t, i) = dy(t, i);
    Module::backward(pass, weights, saved, dx, gradients);
  }
};
struct RecomputeSpec : TinySpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
/// Residual streams with norms behind sub-layers too.
struct HyperFourNormsSpec : HyperSpec {
  static constexpr guild::TrunkConfig config = FourNormsSpec::config;
};
struct HyperRecomputeSpec : HyperSpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
template <class S>
struct HyperBlockCase : UncachedCase<guild::Block<S, guild::Mla<S>, guild::Moe<S>, guild::HyperConnections<S>>, S> {
  static constexpr Index inputs = 3 * S::config.hidden, outputs = inputs;
};
using StreamedLayerCase =
    UncachedCase<guild::StreamedLayer<HyperSpec, HyperSpec::ExpertLayer<HyperSpec>, HyperSpec::hyper>, HyperSpec>;
template <class Case>
class Gradients : public testing::Test {};

/// Layers of merged tokens. The straight-through estimator is no derivative, so it is off: tests/ops/merge has it.
struct HalfOfTokens : guild::DefaultMerging {
  using Novelty = guild::CosineNovelty<5>;
  using Budget = guild::TokenBucket<1, 2, 2, 4>;
  using Protect = guild::ProtectTokens<3, 7, 11>;
};
struct EverySecond : HalfOfTokens {
  using Novelty = guild::NoNovelty;
  using Budget = guild::FixedStride<2>;
  using Pool = guild::MassMean;
};
struct FewRanks : guild::DefaultInflation {
  static constexpr Index gate_rank = 4, detail_rank = 3;
  static constexpr bool confidence = false;
};
struct OnlyAdded : FewRanks {
  static constexpr bool smooths = false;
  static constexpr Index gate_rank = 0, detail_rank = 0;
};
/// All that a policy of inflation can choose.
struct WholeSlots : FewRanks {
  static constexpr bool whole_slots = true, maps_residual = true;
};
template <class Merge, class Inflate>
struct MergeSpec : TinySpec {
  template <class S>
  using Mixer = guild::Weighted<guild::Mla<S>>;
  template <class S>
  using Layers = guild::MergeSpan<guild::DenseThenExperts<S>, guild::SoftTokenMerging<S, Merge>,
                                  guild::TokenInflation<S, Inflate>>;
};
struct Pairs : HalfOfTokens {
  using Budget = guild::FixedStride<2>;
  using Novelty = guild::FullRankCosine;
};
struct PairsBySigmoid : Pairs {
  using Novelty = guild::LearnedSigmoid<-1>;
};
/// Slots of slots.
struct NestedSpec : TinySpec {
  template <class S>
  using Mixer = guild::Weighted<guild::Mla<S>>;
  template <class S>
  using Span = guild::MergeSpan<guild::Segment<typename S::template DenseLayer<S>, 1>,
                                guild::SoftTokenMerging<S, Pairs>, guild::TokenInflation<S, FewRanks>>;
  template <class S>
  using Layers = guild::MergeSpan<guild::Stack<guild::Segment<typename S::template DenseLayer<S>, 1>, Span<S>>,
                                  guild::SoftTokenMerging<S, PairsBySigmoid>, guild::TokenInflation<S, FewRanks>>;
};
struct Unsmoothed : FewRanks {
  static constexpr bool smooths = false;
};
/// Tokens of whole sequences, matched, and slots of slots, learned ones too; passes are bidirectional, layers are
/// computed again.
struct MatchedSpec : TinySpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 3, .context = 64};
  struct Third : guild::DefaultMatching {
    using Match = guild::BipartiteSoftMatch<1, 3>;
    using Protect = guild::ProtectTokens<3, 7, 11>;
  };
  struct Redundant : guild::DefaultMatching {
    using Match = guild::EnergyMatch<1, 2, 1>;
  };
  template <class S>
  using Mixer = guild::Weighted<guild::Mla<S>>;
  template <class S>
  using One = guild::Segment<typename S::template DenseLayer<S>, 1>;
  template <class S>
  using Within = guild::Stack<One<S>, guild::MatchSpan<One<S>, Redundant, guild::TokenInflation<S, OnlyAdded>>,
                              guild::LearnedSlots<One<S>, S, 3>>;
  template <class S>
  using Layers = guild::MatchSpan<Within<S>, Third, guild::TokenInflation<S, Unsmoothed>>;
};
template <class S>
struct BothWays : StackCase<S> {
  template <class P>
  static P both_ways(P pass) {
    pass.mask = guild::AttentionMask::bidirectional;
    return pass;
  }
  template <class P, class... A>
  static void forward(const P& pass, A&&... arguments) {
    StackCase<S>::forward(both_ways(pass), arguments...);
  }
  template <class P, class... A>
  static void backward(const P& pass, A&&... arguments) {
    StackCase<S>::backward(both_ways(pass), arguments...);
  }
};

using Cases = testing::Types<
    LinearCase, NormCase<guild::NormGain::weight>, NormCase<guild::NormGain::one_plus_weight>, LayerNormCase,
    EmbeddingCase<guild::EmbeddingScale::one>, EmbeddingCase<guild::EmbeddingScale::root_of_hidden>, DenseCase, MlaCase,
    MlaPlainQueryCase, GqaCase, RowNormGqaCase, CompressorCase<2, guild::PoolWindows::overlapping>,
    CompressorCase<3, guild::PoolWindows::apart>, SharedKvCase, LocalSharedKvCase, PooledCase, OverlappingPooledCase,
    LocalGqaCase, LocalMlaCase, FarBiasGqaCase, FarBiasMlaCase, BranchesMlaCase, HeadGateGqaCase, GeluCase,
    LimitedMoeCase, UngatedCase, UngatedMoeCase, BiasedMoeCase, MoeCase, MoeSoftmaxCase, BlockCase, FourNormsCase,
    StackCase<TinySpec>, StackCase<RecomputeSpec>, HyperBlockCase<HyperSpec>, HyperBlockCase<HyperFourNormsSpec>,
    MoeRootCase, MoeHashCase, StackCase<HashSpec>, StackCase<HyperSpec>, StackCase<HyperRecomputeSpec>,
    StreamedLayerCase, StackCase<MergeSpec<HalfOfTokens, FewRanks>>, StackCase<MergeSpec<HalfOfTokens, WholeSlots>>,
    StackCase<NestedSpec>, BothWays<MatchedSpec>>;
TYPED_TEST_SUITE(Gradients, Cases);

TYPED_TEST(Gradients, AgreeWithCentralDifferencesInARaggedBatch) { gradient_check<TypeParam>({4, 1, 6}, 3); }

}  // namespace gradients_test
