"""Writes tests/fixtures/activations.inc: what torch makes of a few numbers, and the slopes by autograd, in float64.

`python make_activation_values.py` takes a second; the same bytes every time.
"""
import pathlib

import torch
from torch.nn import functional

KINDS = {
    "silu": functional.silu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "gelu": functional.gelu,
    "relu_squared": lambda z: functional.relu(z).square(),
}


def main() -> None:
    lines = [f"// What torch {torch.__version__.split('+')[0]} computes: tests/oracle/make_activation_values.py."]
    for kind, f in KINDS.items():
        for number in (-30.0, -6.0, -3.25, -1.0, -0.1, 0.0, 0.3, 1.0, 2.75, 6.0, 30.0):
            z = torch.tensor(number, dtype=torch.float64, requires_grad=True)
            value = f(z)
            value.backward()
            lines.append(f"{{guild::Activation::{kind}, {number!r}, {value.item()!r}, {z.grad.item()!r}}},")
    path = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "activations.inc"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
