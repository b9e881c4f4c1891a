"""Trains the miniature's multi-token prediction layer on the finished, frozen main model.

`python train_mtp.py WORK_DIR MINUTES [THREADS]` reads WORK_DIR/state.pt and writes WORK_DIR/mtp.pt.
The layer sees the main model's normed state at position i and the token i + 1, and predicts the
token i + 2.
"""
import math
import os
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import DeepseekV3ForCausalLM
from transformers.modeling_layers import MtpModel
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as ds

import mini
from train_mini import GAMMA, LR, MUON_LR, Muon, batches


def logits_of(mtp, hidden, ids):
    """Logits at 0 .. n-2 for the tokens 2 .. n, from the states and ids at 0 .. n-1."""
    positions = torch.arange(1, ids.shape[1]).unsqueeze(0)
    return mtp.shared_head(mtp.forward_layer(0, hidden[:, :-1], positions, None, input_ids=ids[:, 1:]))


def main(work, minutes, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(2)
    work = pathlib.Path(work)
    tok, render = Tokenizer.from_file(str(work / "tok/tokenizer.json")), mini.renderer(work / "tok")
    cfg = mini.config()
    model = DeepseekV3ForCausalLM(cfg).eval().requires_grad_(False)
    model.load_state_dict(torch.load(work / "state.pt")["average"])
    mtp = MtpModel(model, 1)
    mtp.load_state_dict({f"layers.0.mtp_block.{n}": w for n, w in model.model.layers[-1].state_dict().items()}, strict=False)
    layer = mtp.layers[0].requires_grad_(True)
    if (work / "mtp.pt").exists():
        layer.load_state_dict(torch.load(work / "mtp.pt"))
    router = layer.mtp_block.mlp.gate
    chosen = []
    router.register_forward_hook(lambda m, a, out: chosen.append(out[2].detach()))
    matrices = [p for n, p in layer.named_parameters() if p.dim() > 1 and "gate.weight" not in n]
    taken = set(map(id, matrices))
    rest = [p for p in layer.parameters() if id(p) not in taken]
    opts = [Muon(matrices, MUON_LR), torch.optim.AdamW(rest, lr=LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]
    base = (MUON_LR, LR)
    data, begin, step, loss_sum = batches(tok, render, 5000), time.time(), 0, 0.0
    while (progress := (time.time() - begin) / (60 * minutes)) < 1:
        for o, b in zip(opts, base):
            for g in o.param_groups:
                g["lr"] = b * min(1, (step + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * progress))
        ids, labels = next(data)
        with torch.no_grad():
            hidden = model.model(ids, use_cache=False).last_hidden_state
        logits = logits_of(mtp, hidden, ids)
        wanted = labels[:, 1:] >= 0
        loss = F.cross_entropy(logits[wanted], labels[:, 1:][wanted])
        loss.backward()
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        load = torch.bincount(chosen.pop().view(-1), minlength=cfg.n_routed_experts).float()
        router.e_score_correction_bias += GAMMA * torch.sign(load.mean() - load)
        step += 1
        loss_sum += loss.item()
        if step % 25 == 0:
            right = (logits[wanted].argmax(-1) == labels[:, 1:][wanted]).float().mean()
            print(f"step {step} minutes {(time.time() - begin) / 60:.1f} loss {loss_sum / 25:.4f} right {right:.4f}", flush=True)
            loss_sum = 0.0
    torch.save(layer.state_dict(), work / "mtp.tmp")
    os.replace(work / "mtp.tmp", work / "mtp.pt")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2)
