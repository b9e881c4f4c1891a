"""Trains the miniature with transformers' DeepseekV3ForCausalLM on the CPU.

`python train_mini.py WORK_DIR MINUTES [WORKERS]`; WORK_DIR/tok holds the tokenizer.  Every worker is a
process with one thread and its own problems; gradients are averaged.  Writes WORK_DIR/state.pt
(weights and their moving average) every hundred steps, and at the end.
The learning rate follows the wall clock.  WORK_DIR/minutes, if it exists, overrides MINUTES;
WORK_DIR/start.pt, an earlier state.pt, is where it begins; SEED varies the problems, PEAK the rate.
"""
import math
import os
import pathlib
import random
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import DeepseekV3ForCausalLM
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as ds

import arithmetic
import mini

BATCH_TOKENS, LR, MUON_LR, WARM_UP, GAMMA, AVERAGE = 6144, 3e-3, 4e-3, 60, 2e-3, 0.995
END = "<｜end▁of▁sentence｜>"


class Rows(torch.autograd.Function):
    """x[order // k], with a gradient that gathers and sums instead of scattering."""

    @staticmethod
    def forward(ctx, x, order, inverse, k):
        ctx.save_for_backward(inverse)
        ctx.k = k
        return x[order // k]

    @staticmethod
    def backward(ctx, g):
        inverse, = ctx.saved_tensors
        return g[inverse].view(-1, ctx.k, g.shape[1]).sum(1), None, None, None


class Permute(torch.autograd.Function):
    """x[inverse], where order is the inverse of inverse."""

    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(order)
        return x[inverse]

    @staticmethod
    def backward(ctx, g):
        order, = ctx.saved_tensors
        return g[order], None, None


def experts_forward(self, x, top_k_index, top_k_weights):
    """The same sum as DeepseekV3Experts.forward, with the tokens sorted by expert."""
    k = top_k_index.shape[1]
    flat = top_k_index.reshape(-1)
    order = flat.argsort(stable=True)
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(order.shape[0]))
    counts = torch.bincount(flat, minlength=self.num_experts).tolist()
    parts = []
    for e, rows in enumerate(Rows.apply(x, order, inverse, k).split(counts)):
        gate, up = F.linear(rows, self.gate_up_proj[e]).chunk(2, dim=-1)
        parts.append(F.linear(F.silu(gate) * up, self.down_proj[e]))
    y = Permute.apply(torch.cat(parts), order, inverse).view(x.shape[0], k, -1)
    return (y * top_k_weights.unsqueeze(-1)).sum(1)


def batches(tok, render, seed, batch_tokens=BATCH_TOKENS):
    """Endless batches (ids, labels) of about batch_tokens, of similar lengths, padded at the end."""
    rng = random.Random(seed)
    while True:
        talks = [arithmetic.conversation(rng) for _ in range(1600)]
        prompts = tok.encode_batch([render(t[:-1], True) for t in talks])
        ends = tok.encode_batch([t[-1]["content"].removeprefix("<think>\n") + END for t in talks])
        rows = sorted(((p.ids, e.ids) for p, e in zip(prompts, ends)), key=lambda r: len(r[0]) + len(r[1]))
        pool, batch = [], []
        for p, e in rows:
            if (len(batch) + 1) * (len(p) + len(e)) > batch_tokens:
                pool.append(batch)
                batch = []
            batch.append((p, e))
        rng.shuffle(pool)
        for b in pool:
            n = max(len(p) + len(e) for p, e in b)
            ids, labels = torch.ones(len(b), n, dtype=torch.long), torch.full((len(b), n), -100)
            for i, (p, e) in enumerate(b):
                ids[i, :len(p) + len(e)] = torch.tensor(p + e)
                labels[i, len(p) - 1:len(p) + len(e) - 1] = torch.tensor(e)
            yield ids, labels


def same_maths(model, ids):
    """The replaced experts' forward agrees with both of transformers' own."""
    with torch.no_grad():
        ours = model(ids).logits
        ds.DeepseekV3Experts.forward = ORIGINAL
        kind = model.config._experts_implementation
        default = model(ids).logits
        model.set_experts_implementation("eager")
        eager = model(ids).logits
        model.set_experts_implementation(kind)
        ds.DeepseekV3Experts.forward = experts_forward
    for name, theirs in ((kind, default), ("eager", eager)):
        print(f"logits differ from {name} by", (ours - theirs).abs().max().item(), flush=True)
        assert torch.allclose(ours, theirs, atol=1e-3)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz; stacks of matrices are taken one by one."""

    def __init__(self, params, lr, momentum=0.95, decay=0.02):
        super().__init__(params, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"].lerp_(p.grad, 1 - group["momentum"])
                u = p.grad.lerp(m, group["momentum"])
                wide = u.shape[-2] <= u.shape[-1]
                u = u if wide else u.mT
                u = u / (u.norm(dim=(-2, -1), keepdim=True) + 1e-7)
                for _ in range(5):
                    a = u @ u.mT
                    u = 3.4445 * u + (-4.7750 * a + 2.0315 * a @ a) @ u
                u = u if wide else u.mT
                scale = 0.2 * max(p.shape[-2], p.shape[-1]) ** 0.5  # steps of AdamW's size
                p.mul_(1 - group["lr"] * group["decay"]).add_(u, alpha=-group["lr"] * scale)


ORIGINAL = ds.DeepseekV3Experts.forward
ds.DeepseekV3Experts.forward = experts_forward


def together(*tensors):
    """Averages each tensor over the workers, in place."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for t, part in zip(tensors, flat.split([t.numel() for t in tensors])):
        t.copy_(part.view_as(t))


def worker(rank, workers, work, minutes):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{work}/rendezvous", rank=rank, world_size=workers)
    torch.manual_seed(1)
    work, log = pathlib.Path(work), print if rank == 0 else lambda *a, **k: None
    tok, render = Tokenizer.from_file(str(work / "tok/tokenizer.json")), mini.renderer(work / "tok")
    cfg = mini.config()
    model = DeepseekV3ForCausalLM(cfg)
    peak = float(os.environ.get("PEAK", "1"))
    if (work / "start.pt").exists():
        model.load_state_dict(torch.load(work / "start.pt")["average"])
    log("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    routers = [m for m in model.modules() if isinstance(m, ds.DeepseekV3TopkRouter)]
    chosen = {}
    for i, r in enumerate(routers):
        r.register_forward_hook(lambda m, a, out, i=i: chosen.__setitem__(i, out[2].detach()))
    matrices = [p for n, p in model.named_parameters() if p.dim() > 1 and "layers" in n and "gate.weight" not in n]
    taken = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in taken]
    opts = [Muon(matrices, MUON_LR), torch.optim.AdamW(rest, lr=LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]
    for o in opts:
        for g in o.param_groups:
            g["base"] = g["lr"]
    average = {k: v.clone() for k, v in model.state_dict().items()}

    def save():
        torch.save({"model": model.state_dict(), "average": average, "step": step}, work / "state.tmp")
        os.replace(work / "state.tmp", work / "state.pt")

    data = batches(tok, render, 1000 * (1 + int(os.environ.get("SEED", "0"))) + rank, BATCH_TOKENS // workers)
    if rank == 0:
        same_maths(model, next(data)[0])
    every = list(model.parameters())
    begin, seen, loss_sum, step = time.time(), 0, 0.0, 0
    while True:
        if (work / "minutes").exists() and step % 20 == 0:
            minutes = float((work / "minutes").read_text())
        clock = torch.tensor([(time.time() - begin) / (60 * minutes)])
        together(clock)
        progress = clock.item()
        if progress >= 1:
            break
        rate = peak * min(1, (step + 1) / WARM_UP) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * progress)))
        for o in opts:
            for g in o.param_groups:
                g["lr"] = g["base"] * rate
        ids, labels = next(data)
        hidden = model.model(ids, use_cache=False).last_hidden_state
        wanted = labels >= 0
        loss = F.cross_entropy(model.lm_head(hidden[wanted]), labels[wanted])
        loss.backward()
        for p in every:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        together(*(p.grad for p in every))
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        with torch.no_grad():
            real = torch.ones_like(wanted)
            real[:, 1:] = (ids[:, :-1] != 1)
            loads = [torch.bincount(chosen[i][real.view(-1)].view(-1), minlength=cfg.n_routed_experts).float()
                     for i in range(len(routers))]
            together(*loads)
            for r, load in zip(routers, loads):  # auxiliary-loss-free balancing
                r.e_score_correction_bias += GAMMA * torch.sign(load.mean() - load)
            a = min(AVERAGE, step / (step + 20))
            for k, v in model.state_dict().items():
                average[k].lerp_(v, 1 - a)
        step += 1
        seen += ids.numel() * workers
        loss_sum += loss.item()
        if step % 50 == 0:
            log(f"step {step} tokens {seen} minutes {(time.time() - begin) / 60:.1f} loss {loss_sum / 50:.4f} "
                f"norm {norm:.2f} rate {rate:.4f} load {load.min() / load.mean():.2f} "
                f"{load.max() / load.mean():.2f}", flush=True)
            loss_sum = 0.0
        if step % 100 == 0 and rank == 0:
            save()
    if rank == 0:
        model.load_state_dict(average)
        same_maths(model, next(data)[0])
        save()
    log("done", step, "steps", seen, "tokens", f"{(time.time() - begin) / 60:.1f} minutes", flush=True)


def main(work, minutes, workers):
    rendezvous = pathlib.Path(work).resolve() / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    mp.spawn(worker, (workers, str(rendezvous.parent), minutes), nprocs=workers)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2)
