#!/usr/bin/env python3
"""Writes tests/fixtures/codecs/model.safetensors: matrices in stored formats, and what other software makes of them.

Beside requirements.txt it needs gguf==0.19.0 and compressed-tensors==0.13.0. Names: X.weight (or X.weight_packed) with
its scales as published files spell them, and X.expected, the values in float32."""
import os
import sys

import gguf
import numpy as np
import torch
from compressed_tensors.compressors.quantized_compressors.fp4_quantized import unpack_fp4_from_uint8
from safetensors.torch import save_file

torch.manual_seed(11)
rng = np.random.default_rng(11)
tensors = {}

# MXFP4 in the layout of compressed-tensors: any bytes are values; scales are exponents + 127.
packed = torch.from_numpy(rng.integers(0, 256, (5, 48), dtype=np.uint8))
packed[0, :16] = torch.arange(16, dtype=torch.uint8) * 17  # every code, in both halves of a byte
scale = torch.from_numpy(rng.integers(117, 137, (5, 3), dtype=np.uint8))
values = unpack_fp4_from_uint8(packed, 5, 96, dtype=torch.float32).float()
tensors["mxfp4.weight_packed"] = packed
tensors["mxfp4.weight_scale"] = scale
tensors["mxfp4.expected"] = values * torch.exp2(scale.float() - 127).repeat_interleave(32, dim=1)

# MXFP4 as gguf quantises and reads it, its halves moved to neighbours.
source = rng.normal(0, 1, (4, 64)).astype(np.float32)
blocks = gguf.quants.quantize(source, gguf.GGMLQuantizationType.MXFP4)
tensors["gguf.expected"] = torch.from_numpy(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.MXFP4))
blocks = blocks.reshape(4, 2, 17)
codes = np.concatenate([blocks[..., 1:] & 15, blocks[..., 1:] >> 4], axis=-1)  # [4, 2, 32]
tensors["gguf.weight_packed"] = torch.from_numpy((codes[..., 0::2] | (codes[..., 1::2] << 4)).reshape(4, 32))
tensors["gguf.weight_scale"] = torch.from_numpy(blocks[..., 0].copy())

# fp8 with scales of several types: a wide matrix with three blocks in a row, a tall one with two in a column.
for kind, dtype in [("ue8m0", torch.float8_e8m0fnu), ("bf16", torch.bfloat16), ("f16", torch.float16),
                    ("f32", torch.float32)]:
    for shape in [(2, 260), (130, 4)]:
        name = f"{kind}_{'wide' if shape[0] == 2 else 'tall'}"
        weight = (torch.randn(shape) * 40).to(torch.float8_e4m3fn)
        grid = [-(-side // 128) for side in shape]
        scales = torch.exp2(torch.randint(-9, 3, grid).float()) if kind == "ue8m0" else torch.rand(grid) * 0.1 + 0.01
        scales = scales.to(dtype)
        whole = scales.float().repeat_interleave(128, 0).repeat_interleave(128, 1)[: shape[0], : shape[1]]
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.weight_scale_inv"] = scales
        tensors[f"{name}.expected"] = weight.float() * whole
        if kind == "ue8m0":  # the same, spelled as bytes
            tensors[f"bytes_{name}.weight"] = weight.clone()
            tensors[f"bytes_{name}.weight_scale_inv"] = scales.view(torch.uint8).clone()
            tensors[f"bytes_{name}.expected"] = tensors[f"{name}.expected"].clone()

codes = torch.arange(256, dtype=torch.uint8)
tensors["e8m0.codes"] = codes
tensors["e8m0.expected"] = codes.view(torch.float8_e8m0fnu).float()

folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../fixtures/codecs")
os.makedirs(folder, exist_ok=True)
save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "model.safetensors"))
