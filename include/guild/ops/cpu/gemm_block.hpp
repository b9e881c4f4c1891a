// Blocks of products with many rows: x W^T, x W and dy^T x are one loop over packed inputs and panels; what differs is
// how both are packed, and what computes a tile of outputs in registers.
#pragma once

#include <guild/ops/cpu/linear_block.hpp>

namespace guild::inline v1::cpu {

/// Memory that is read next, brought nearer while a tile computes: rows of `bytes` bytes, `pitch` apart.
struct Ahead {
  const std::byte* row = nullptr;
  Index pitch = 0;
  Index bytes = 0;
  Index lines = 0;  ///< how many of 64 bytes for each 32 columns of the tile
};

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

/// `depth` columns of `height` packed inputs, gemm_depth apart, times a panel [depth, panel columns].
using GemmTile = void (*)(const float* inputs, const float* panel, Index depth, const TileSums& sums, Ahead ahead);

/// How a variant cuts a block into tiles.
struct GemmTiles {
  Index height = 0;           ///< inputs of a tile
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

/// A panel, and what the next one will be made of.
struct GemmPanel {
  const float* data = nullptr;
  Ahead ahead;
  Index ahead_rows = 0;
};

/// Computes a block. `pack_inputs(k, depth, rows, to)` packs columns [k, k + depth) of the inputs, rows beyond theirs
/// as zeros; `panel_of(k, depth, step)` gives the panel of number `step`, counted through all matrices. Every output is
/// summed column after column in parts of gemm_depth, whatever the block and the tiles are: shorter chains round less.
template <class PackInputs, class PanelOf>
void multiply_block(const GemmTarget& to, const GemmTiles& tiles, float* inputs, PackInputs pack_inputs,
                    PanelOf panel_of) {
  const Index count = (to.rows + tiles.height - 1) / tiles.height, tile_sums = tiles.height * tiles.columns;
  const Index panels = (to.cols + tiles.columns - 1) / tiles.columns, steps = panels * to.matrices;
  float* sums = inputs + round_up(count * tiles.height, 16) * gemm_depth;
  for (Index k = 0; k == 0 || k < to.depth; k += gemm_depth) {
    const Index depth = std::min(gemm_depth, to.depth - k);
    pack_inputs(k, depth, count * tiles.height, inputs);
    for (Index step = 0; step < steps; ++step) {
      const Index i = step / panels, c = step % panels * tiles.columns;
      const GemmPanel panel = panel_of(k, depth, step);  // stays in the nearest cache for all inputs
      Ahead ahead = panel.ahead;
      const Index ahead_rows = (panel.ahead_rows + count - 1) / count;
      ahead.lines = (ahead_rows * ahead.bytes + 64 * 8 - 1) / (64 * 8);
      const GemmTile tile = 2 * (to.cols - c) <= tiles.columns ? tiles.narrow : tiles.wide;
      float* sum = sums + step * count * tile_sums;
      for (Index t = 0; t < to.rows; t += tiles.height, sum += tile_sums) {
        tile(inputs + t * gemm_depth, panel.data, depth,
             {k == 0 ? nullptr : sum, k + depth < to.depth ? sum : nullptr, to.out[i] + t * to.pitch[i] + c,
              to.pitch[i], to.rows - t, to.cols - c, to.update},
             ahead);
        ahead.row += ahead_rows * ahead.pitch;
      }
    }
  }
}

/// Runs `gemm` on the block into `product`, gemm_rows floats a row, and then adds that to the outputs: for kernels that
/// only overwrite.
inline void multiply_then_add(const LinearBlock& block, void (*gemm)(const LinearBlock&), float* product) {
  LinearBlock overwriting = block;
  overwriting.update = Update::overwrite;
  overwriting.out[0] = product;
  overwriting.pitch[0] = gemm_rows;
  gemm(overwriting);
  for (Index t = 0; t < block.x.rows; ++t)
    for (Index i = 0; i < block.end - block.begin; ++i)
      block.out[0][t * block.pitch[0] + i] += product[t * gemm_rows + i];
}

}  // namespace guild::inline v1::cpu
