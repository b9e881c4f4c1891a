"""Trains a small R1-like byte model on char_corpus.sh's text with PyTorch: the run that a library is compared with.

    python char_reference.py init FOLDER                        the initial weights, a published folder (float32)
    python char_reference.py train CORPUS FOLDER NAME [--threads N] [--steps N]
                                                                writes NAME.log and NAME.json

Everything that a second implementation needs to repeat the run is in SETTINGS and in these rules:
- The corpus' last tenth is for validation.  A token is a byte.
- Window b of step s, both from 0, begins at byte splitmix64(s * batch + b) % (training bytes - length); inputs are its
  `length` bytes, targets the byte after each.  splitmix64(n) is output n (from 0) of the generator seeded with 0.
- Loss: mean over all tokens of the step.  Clipping: g *= min(1, clip / norm).  AdamW; decay of tensors of two
  dimensions only (embedding and head too).  Rate of step s: peak (s + 1) / warm_up, then a cosine towards `floor` *
  peak: peak (floor + (1 - floor) (1 + cos(pi (s - warm_up) / (steps - warm_up))) / 2).
- After every step: selection bias += gamma sign(mean load - load), loads of that step.
- Validation: windows at 0, length, 2 length, ... of the validation bytes as long as all targets exist; mean over all.

The routed experts are computed with the tokens sorted by expert (train_mini.py), attention by PyTorch's fused kernel.
"""
import argparse
import hashlib
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import train_mini  # noqa: F401  (replaces the experts' forward)
from make_model_fixtures import V3, shapes, write_folder
from make_training_fixture import Subject

SETTINGS = {
    "batch": 32, "length": 128, "steps": 1500, "peak": 2e-3, "warm_up": 100, "floor": 0.1, "beta1": 0.9, "beta2": 0.95,
    "epsilon": 1e-8, "decay": 0.1, "clip": 1.0, "gamma": 1e-3, "seed": 1, "deviation": 0.05, "evaluate_every": 250,
}
CONFIG = dict(sorted((V3 | {
    "hidden_size": 128,
    "intermediate_size": 256,
    "kv_lora_rank": 64,
    "max_position_embeddings": 128,
    "moe_intermediate_size": 64,
    "n_group": 4,
    "n_routed_experts": 8,
    "num_attention_heads": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 64,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "topk_group": 2,
    "v_head_dim": 32,
    "vocab_size": 256,
}).items()))


def splitmix64(n: int) -> int:
    mask = (1 << 64) - 1
    z = (n + 1) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return z ^ (z >> 31)


def initial(seed: int) -> dict:
    """Matrices normal, norms 1, selection biases 0."""
    random, out = np.random.default_rng(seed), {}
    for name, shape in shapes(CONFIG).items():
        if "e_score_correction_bias" in name:
            w = np.zeros(shape)
        elif len(shape) == 1:
            w = np.ones(shape)
        else:
            w = random.standard_normal(shape) * SETTINGS["deviation"]
        out[name] = torch.from_numpy(np.ascontiguousarray(w, dtype=np.float32))
    return out


def windows(text: torch.Tensor, starts) -> tuple:
    rows = torch.stack([text[s : s + SETTINGS["length"] + 1] for s in starts]).long()
    return rows[:, :-1], rows[:, 1:]


def loss_of(subject: Subject, ids, targets):
    logits = subject.main(ids, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def validation_loss(subject: Subject, text: torch.Tensor) -> float:
    length, total, count = SETTINGS["length"], 0.0, 0
    starts = range(0, len(text) - length, length)
    for i in range(0, len(starts), 64):
        ids, targets = windows(text, starts[i : i + 64])
        total += loss_of(subject, ids, targets).item() * targets.numel()
        count += targets.numel()
    return total / count


def rate(step: int) -> float:
    s = SETTINGS
    if step < s["warm_up"]:
        return s["peak"] * (step + 1) / s["warm_up"]
    progress = (step - s["warm_up"]) / (s["steps"] - s["warm_up"])
    return s["peak"] * (s["floor"] + (1 - s["floor"]) * (1 + math.cos(math.pi * progress)) / 2)


def train(corpus: str, folder: str, name: str, threads: int, last: int) -> None:
    torch.set_num_threads(threads)
    s = SETTINGS
    data = pathlib.Path(corpus).read_bytes()
    text = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
    cut = len(text) - len(text) // 10
    learn, held_out = text[:cut], text[cut:]
    weights = load_file(pathlib.Path(folder) / "model.safetensors")
    subject = Subject(CONFIG, weights, torch.float32)
    subject.note = lambda layer, router, out: subject.chosen.__setitem__(layer, out[2].detach())
    subject.main.set_attn_implementation("sdpa")
    params = list(subject.main.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in params if p.dim() > 1], "weight_decay": s["decay"]},
         {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0}],
        lr=s["peak"], betas=(s["beta1"], s["beta2"]), eps=s["epsilon"], fused=True)

    log = open(name + ".log", "w", encoding="utf-8")

    def say(line):
        print(line, flush=True)
        log.write(line + "\n")
        log.flush()

    say(f"{sum(p.numel() for p in params)} parameters, {len(learn)} bytes to learn from, {len(held_out)} held out, "
        f"{threads} threads")
    losses, norms, evaluations, spent = [], [], {0: validation_loss(subject, held_out)}, 0.0
    say(f"step 0 validation {evaluations[0]:.5f}")
    for step in range(last):
        begin = time.time()
        starts = [splitmix64(step * s["batch"] + b) % (len(learn) - s["length"]) for b in range(s["batch"])]
        loss = loss_of(subject, *windows(learn, starts))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for p in params:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in params])).item()
        for p in params:
            p.grad.mul_(min(1.0, s["clip"] / norm))
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        violation = 0.0
        for layer, router in subject.routers.items():
            load = torch.bincount(subject.chosen[layer].flatten(), minlength=CONFIG["n_routed_experts"]).float()
            router.e_score_correction_bias += s["gamma"] * torch.sign(load.mean() - load)
            violation = max(violation, (load.max() / load.mean()).item() - 1)
        spent += time.time() - begin
        losses.append(loss.item())
        norms.append(norm)
        done = step + 1
        if done % 50 == 0:
            say(f"step {done} loss {sum(losses[-50:]) / 50:.5f} norm {norm:.3f} rate {rate(step):.6f} "
                f"largest load {1 + violation:.2f} of the mean, {done * s['batch'] * s['length'] / spent:.0f} tokens/s")
        if done % s["evaluate_every"] == 0 or done == last:
            evaluations[done] = validation_loss(subject, held_out)
            say(f"step {done} validation {evaluations[done]:.5f}")
    digest = hashlib.sha256()
    for tensor in weights:
        digest.update(weights[tensor].numpy().tobytes())
    result = {
        "settings": s, "config": CONFIG, "parameters": sum(p.numel() for p in params),
        "corpus_sha256": hashlib.sha256(data).hexdigest(), "initial_sha256": digest.hexdigest(),
        "first_starts": [splitmix64(b) % (len(learn) - s["length"]) for b in range(4)],
        "torch": torch.__version__, "threads": threads, "training_seconds": round(spent, 1),
        "validation": evaluations, "loss": [round(x, 6) for x in losses], "gradient_norm": [round(x, 5) for x in norms]}
    pathlib.Path(name + ".json").write_text(json.dumps(result) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init")
    init.add_argument("folder")
    init.add_argument("--seed", type=int, default=SETTINGS["seed"])
    run = commands.add_parser("train")
    for argument in ("corpus", "folder", "name"):
        run.add_argument(argument)
    run.add_argument("--threads", type=int, default=2)
    run.add_argument("--steps", type=int, default=SETTINGS["steps"])
    a = parser.parse_args()
    if a.command == "init":
        write_folder(pathlib.Path(a.folder), CONFIG, initial(a.seed), 1)
    else:
        train(a.corpus, a.folder, a.name, a.threads, a.steps)


if __name__ == "__main__":
    main()
