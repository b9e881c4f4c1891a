"""Writes tests/fixtures/safetensors/writer.safetensors with the reference implementation; the library's writer must
give the same bytes.

    python tests/oracle/make_writer_fixture.py
"""

import pathlib

import torch
from safetensors.torch import save_file

save_file(
    {
        "model.layers.0.mlp.gate.weight": torch.arange(1, 16, dtype=torch.float32).reshape(3, 5).to(torch.bfloat16),
        'b "quoted" 注意': torch.arange(-2, 4, dtype=torch.float32).reshape(2, 3),
        "a": torch.tensor(-2.0),
        "c": torch.tensor([1, -2, 1 << 40]),
        "empty": torch.zeros(0, 4),
    },
    pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "safetensors" / "writer.safetensors",
    metadata={"format": "pt"},
)
