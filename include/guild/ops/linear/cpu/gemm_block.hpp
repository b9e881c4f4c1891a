// Blocks of products with many rows: x W^T, x W and dy^T x are one loop over packed inputs and panels; what differs is
// how both are packed, and what computes a tile of outputs in registers.
#pragma once

#include <guild/ops/linear/cpu/block.hpp>

namespace guild {
inline namespace v1 {
namespace cpu {

/// Memory that is packed next, brought nearer while tiles compute: `bytes` from each of the rows [row, end). Row i lies
/// at data + i * pitch, or at data + gather[i] * pitch.
struct Ahead {
  const std::byte* data = nullptr;
  Index pitch = 0;
  const std::int32_t* gather = nullptr;
  Index row = 0;
  Index end = 0;
  Index bytes = 0;
  Index lines = 0;  ///< how many of 64 bytes for each 32 columns of the tile

  [[nodiscard]] const std::byte* at() const { return data + (gather != nullptr ? Index{gather[row]} : row) * pitch; }
  /// Of the rows [row, end) those that belong to part `part` of `parts`.
  [[nodiscard]] Ahead share(Index part, Index parts) const {
    Ahead some = *this;
    some.row = row + (end - row) * part / parts;
    some.end = row + (end - row) * (part + 1) / parts;
    return some;
  }
};

/// Columns [begin, end) of all rows.
inline Ahead ahead_of(const InputRows& x, Index begin, Index end) {
  return {reinterpret_cast<const std::byte*>(x.data + begin),
          x.pitch * Index{sizeof(float)},
          x.gather,
          0,
          x.rows,
          (end - begin) * Index{sizeof(float)}};
}
/// Columns [begin, end) of rows [first, last) of a weight.
inline Ahead ahead_of(const WeightView& w, Index first, Index last, Index begin, Index end) {
  return {w.row<std::byte>(0) + begin * bits(w.format.element) / 8,
          w.row_bytes(),
          nullptr,
          first,
          last,
          (end - begin) * bits(w.format.element) / 8};
}
/// What part `step` of `steps` fetches of two blocks: the first parts of the one, the others of the other.
inline Ahead ahead_of_both(const Ahead& first, const Ahead& second, Index step, Index steps) {
  const Index half = (steps + 1) / 2;
  return step < half ? first.share(step, half) : second.share(step - half, steps - half);
}

/// Where the sums of a tile begin and where they go. `before` and `after` hold height x panel floats without gaps:
/// outputs would lie too far apart for the caches.
struct TileSums {
  const float* before = nullptr;  ///< the sums of earlier columns; null: there are none
  float* after = nullptr;         ///< for the sums so far; null: they are complete, and `rows` x `cols` go to out
  float* out = nullptr;
  Index pitch = 0;
  Index rows = 0;
  Index cols = 0;
  Update update = Update::overwrite;
};

/// `depth` columns of `height` packed inputs times a panel [depth, panel columns].
using GemmTile = void (*)(const float* inputs, const float* panel, Index depth, const TileSums& sums, Ahead ahead);

/// How a variant cuts a block into tiles.
struct GemmTiles {
  Index height = 0;           ///< inputs of a tile
  Index pitch = 0;            ///< floats between the packed inputs of two tiles
  Index columns = 0;          ///< outputs of a panel
  GemmTile wide = nullptr;    ///< computes a whole panel
  GemmTile narrow = nullptr;  ///< only its first half
};

/// The outputs of a block: for each matrix [rows, cols], sums of `depth` terms.
struct GemmTarget {
  int matrices = 1;
  float* out[2] = {};
  Index pitch[2] = {};
  Index rows = 0;
  Index cols = 0;
  Index depth = 0;
  Update update = Update::overwrite;
};

/// A panel, and what is fetched while it is multiplied.
struct GemmPanel {
  const float* data = nullptr;
  Ahead ahead;
};

/// Computes a block. `pack_inputs(k, depth, rows, to)` packs columns [k, k + depth) of the inputs, rows beyond theirs
/// as zeros; `panel_of(k, depth, step)` gives the panel of number `step`, counted through all matrices. Every output is
/// summed column after column in parts of gemm_depth, whatever the block and the tiles are: shorter chains round less.
template <class PackInputs, class PanelOf>
void multiply_block(const GemmTarget& to, const GemmTiles& tiles, float* inputs, PackInputs pack_inputs,
                    PanelOf panel_of) {
  const Index count = (to.rows + tiles.height - 1) / tiles.height, tile_sums = tiles.height * tiles.columns;
  const Index panels = (to.cols + tiles.columns - 1) / tiles.columns, steps = panels * to.matrices;
  float* sums = inputs + round_up(count * tiles.pitch, 16) + 8 * gemm_depth;  // packing may end in whole registers
  for (Index k = 0; k == 0 || k < to.depth; k += gemm_depth) {
    const Index depth = std::min(gemm_depth, to.depth - k);
    pack_inputs(k, depth, count * tiles.height, inputs);
    for (Index step = 0; step < steps; ++step) {
      const Index i = step / panels, c = step % panels * tiles.columns;
      const GemmPanel panel = panel_of(k, depth, step);  // stays in the nearest cache for all inputs
      Ahead ahead = panel.ahead;
      const Index ahead_rows = (ahead.end - ahead.row + count - 1) / count, parts = (depth + 31) / 32;
      if (parts > 0) ahead.lines = (ahead_rows * ((ahead.bytes + 63) / 64) + parts - 1) / parts;
      const GemmTile tile = 2 * (to.cols - c) <= tiles.columns ? tiles.narrow : tiles.wide;
      float* sum = sums + step * count * tile_sums;
      for (Index t = 0; t < to.rows; t += tiles.height, sum += tile_sums) {
        tile(inputs + t / tiles.height * tiles.pitch, panel.data, depth,
             {k == 0 ? nullptr : sum, k + depth < to.depth ? sum : nullptr, to.out[i] + t * to.pitch[i] + c,
              to.pitch[i], to.rows - t, to.cols - c, to.update},
             ahead);
        ahead.row += ahead_rows;
      }
    }
  }
}

/// For kernels that take at most gemm_tokens inputs and only overwrite: runs `gemm` on such pieces. A product that is
/// to be added goes through `product`, of gemm_tokens * gemm_rows floats. False if the block itself is such a piece.
inline bool multiply_in_pieces(const LinearBlock& block, void (*gemm)(const LinearBlock&), float* product) {
  if (block.update == Update::overwrite && block.x.rows <= gemm_tokens) return false;
  for (Index token = 0; token < block.x.rows; token += gemm_tokens) {
    LinearBlock piece = block;
    piece.x = block.x.middle_rows(token, std::min(gemm_tokens, block.x.rows - token));
    for (int i = 0; i < block.matrices; ++i) piece.out[i] = block.out[i] + token * block.pitch[i];
    float* out = piece.out[0];
    if (block.update == Update::add) {
      piece.update = Update::overwrite;
      piece.out[0] = product;
      piece.pitch[0] = gemm_rows;
    }
    gemm(piece);
    for (Index t = 0; block.update == Update::add && t < piece.x.rows; ++t)
      for (Index i = 0; i < block.end - block.begin; ++i) out[t * block.pitch[0] + i] += product[t * gemm_rows + i];
  }
  return true;
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
