"""Makes tests/fixtures/training: tiny random models, batches, and the losses, gradients and steps of training them.

`python make_training_fixture.py` writes every folder (about a minute, one thread, the same bytes every time).

Losses and gradients are autograd's, through transformers' DeepseekV3ForCausalLM computing in float64: the module's
casts to float32 (norms, router, softmax, rotary angles) are made casts to float64 (`in_float64`).  Every sequence runs
alone, without padding, and the sums are added; a loss is the mean over the supervised tokens of the whole batch.
Before a folder is written
- transformers as it is, in float32 from the very folder, must agree (FLOAT32_LIMIT);
- the derivative along a random direction of every tensor must agree with a central difference (DIFFERENCE_LIMIT);
- no choice of groups or experts may be nearer than `margin` to another one, so that rounding changes no expert.

The layer for multi-token prediction is written here from the DeepSeek-V3 report, section 2.2, in the published layout
(embedding first, the main model's states after its final norm); its logits must agree with transformers' MtpModel.
"""
import json
import math
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
import torch.nn.functional as F
import transformers.modeling_rope_utils as rope_utils
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as ds

import reference_forward as reference
from make_model_fixtures import (
    V3, choose_tokens, load_with_transformers, run_transformers_mtp, shapes, write_folder, yarn)

OUT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "training"
FLOAT32_LIMIT = 2e-5  # of a tensor's largest gradient, and of the loss
DIFFERENCE_LIMIT = 1e-6
LAMBDA = 0.3
IGNORED = -1

TINY = V3 | {
    "hidden_size": 36,
    "intermediate_size": 44,
    "kv_lora_rank": 16,
    "max_position_embeddings": 64,
    "moe_intermediate_size": 12,
    "num_hidden_layers": 3,
    "q_lora_rank": 14,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 6,
    "v_head_dim": 10,
    "vocab_size": 61,
}
# What differs from TINY; `_objectives` are computed besides the causal one.
FIXTURES = {
    "r1": {},
    "r1_mtp": {"num_nextn_predict_layers": 1, "num_hidden_layers": 2, "_objectives": ("mtp",)},
    "r1_no_q_lora": {
        "q_lora_rank": None,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": 2,
        "routed_scaling_factor": 1.5,
        "rms_norm_eps": 1e-5,
        "rope_scaling": yarn(),
        "_objectives": ("masked",),
    },
    "dense_tied": {"first_k_dense_replace": 3, "tie_word_embeddings": True, "q_lora_rank": None},
}
LENGTHS = (17, 1, 9, 30)
MARGIN = 0.005


class Double:
    """torch with float64 where the source says float32."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


class in_float64:
    """Inside, transformers' DeepSeek-V3 and its rotary tables compute in float64."""

    def __enter__(self):
        ds.torch = rope_utils.torch = Double()

    def __exit__(self, *_):
        ds.torch = rope_utils.torch = torch


def config_json(name: str) -> dict:
    changes = FIXTURES.get(name, {})
    return dict(sorted((TINY | {k: v for k, v in changes.items() if k[0] != "_"}).items()))


def config_of(c: dict) -> DeepseekV3Config:
    drop = ("architectures", "auto_map", "torch_dtype", "transformers_version", "model_type")
    config = DeepseekV3Config(**{k: v for k, v in c.items() if k not in drop})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return config


def random_weights(c: dict, seed: int) -> dict:
    """float32, of a size that gives losses a little above log(vocab) and gradients of every tensor."""
    random = np.random.default_rng(seed)
    out = {}
    for name, shape in shapes(c).items():
        if "e_score_correction_bias" in name:
            w = random.permutation(np.linspace(-0.15, 0.15, shape[0]))
        elif len(shape) == 1:
            w = 1 + 0.2 * random.standard_normal(shape)
        elif name == "model.embed_tokens.weight":
            w = 0.5 * random.standard_normal(shape)
        else:
            w = random.standard_normal(shape) * (2.0 if "mlp.gate." in name else 1.0) * shape[1] ** -0.5
        out[name] = torch.from_numpy(np.ascontiguousarray(w, dtype=np.float32))
    for name in out:  # published as copies
        if name == f"model.layers.{c['num_hidden_layers']}.embed_tokens.weight":
            out[name] = out["model.embed_tokens.weight"].clone()
        if name.endswith("shared_head.head.weight"):
            out[name] = out["lm_head.weight"].clone()
    return out


class Mtp(torch.nn.Module):
    """h' = eh_proj [RMSNorm(Emb(t_{i+1})); RMSNorm(h_i)], one block, RMSNorm; embedding and head are the main ones."""

    def __init__(self, config):
        super().__init__()
        norm = lambda: ds.DeepseekV3RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.enorm, self.hnorm, self.head_norm = norm(), norm(), norm()
        self.eh_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = ds.DeepseekV3DecoderLayer(config, config.num_hidden_layers)

    def forward(self, main, states, next_ids):
        """states [1, T, hidden] after the final norm, next_ids [1, T] -> logits [T, vocab] of what follows."""
        positions = torch.arange(next_ids.shape[1])[None]
        x = self.eh_proj(torch.cat([self.enorm(main.model.embed_tokens(next_ids)), self.hnorm(states)], dim=-1))
        n = x.shape[1]
        mask = torch.full((n, n), -math.inf, dtype=x.dtype).triu(1)[None, None]
        x = self.block(x, attention_mask=mask, position_ids=positions,
                       position_embeddings=main.model.rotary_emb(x, positions))
        return main.lm_head(self.head_norm(x))[0]


MTP_NAMES = {"head_norm.": "shared_head.norm.", "block.": ""}


class Subject:
    """A model with or without its prediction layer, in one float type, with its parameters under published names."""

    def __init__(self, c: dict, weights: dict, dtype: torch.dtype):
        config = config_of(c)
        self.c, self.main = c, ds.DeepseekV3ForCausalLM(config).to(dtype)
        self.mtp = Mtp(config).to(dtype) if c["num_nextn_predict_layers"] else None
        self.modules = [("", self.main)] + ([(f"model.layers.{c['num_hidden_layers']}.", self.mtp)] if self.mtp else [])
        self.routers, self.chosen, self.margin = {}, {}, math.inf
        for prefix, module in self.modules:
            for key, tensor in list(module.named_parameters()) + list(module.named_buffers()):
                if "inv_freq" in key:
                    continue
                with torch.no_grad():
                    for name, part in self.parts(prefix, key, tensor):
                        part.copy_(weights[name])
            for key, child in module.named_modules():
                if isinstance(child, ds.DeepseekV3TopkRouter):
                    layer = int(self.name(prefix, key).split(".")[2])
                    self.routers[layer] = child
                    child.register_forward_hook(lambda m, a, out, layer=layer: self.note(layer, m, out))
        if c["tie_word_embeddings"]:
            assert self.main.lm_head.weight is self.main.model.embed_tokens.weight

    @staticmethod
    def name(prefix: str, key: str) -> str:
        for ours, published in MTP_NAMES.items() if prefix else ():
            if key.startswith(ours):
                key = published + key.removeprefix(ours)
        return prefix + key

    def parts(self, prefix, key, tensor):
        """(published name, view) of a tensor of the module; the experts' stacks give many."""
        name = self.name(prefix, key)
        if name.endswith("experts.gate_up_proj"):
            base = name.removesuffix("gate_up_proj")
            for e in range(tensor.shape[0]):
                gate, up = tensor[e].chunk(2, dim=0)
                yield f"{base}{e}.gate_proj.weight", gate
                yield f"{base}{e}.up_proj.weight", up
        elif name.endswith("experts.down_proj"):
            for e in range(tensor.shape[0]):
                yield f"{name.removesuffix('down_proj')}{e}.down_proj.weight", tensor[e]
        else:
            yield name, tensor

    def parameters(self):
        return [(prefix, key, p) for prefix, module in self.modules for key, p in module.named_parameters()]

    def named(self, of=lambda p: p) -> dict:
        """Published name -> `of` of every parameter."""
        return {n: v.detach() for prefix, key, p in self.parameters() for n, v in self.parts(prefix, key, of(p))}

    def note(self, layer, router, out):
        """Keeps the choice, and how near another group or expert was."""
        logits, _, indices = out
        with torch.no_grad():
            choice = logits.sigmoid() + router.e_score_correction_bias
            groups = choice.view(len(choice), router.num_group, -1)
            rank = groups.topk(2, dim=-1)[0].sum(-1).sort(dim=-1, descending=True)
            if router.topk_group < router.num_group:
                gap = rank.values[:, router.topk_group - 1] - rank.values[:, router.topk_group]
                self.margin = min(self.margin, gap.min().item())
            kept = torch.gather(groups, 1, rank.indices[:, :router.topk_group, None].expand(-1, -1, groups.shape[-1]))
            kept = kept.flatten(1).sort(dim=-1, descending=True).values
            if router.top_k < kept.shape[1]:
                self.margin = min(self.margin, (kept[:, router.top_k - 1] - kept[:, router.top_k]).min().item())
            self.chosen.setdefault(layer, []).append(indices.sort(dim=-1).values.to(torch.int32))

    def sums(self, tokens, targets, objective):
        """(sum of the cross entropies, sum of those of the prediction layer, logits) of one sequence.
        The prediction layer's row i joins state i and token i + 1; its target is that of row i + 1."""
        ids, wanted = torch.tensor(tokens)[None].long(), torch.tensor(targets).long()
        mask = None
        if objective == "masked":  # every token sees the whole sequence
            mask = torch.zeros(1, 1, len(tokens), len(tokens), dtype=self.main.dtype)
        states = self.main.model(ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = self.main.lm_head(states)[0]
        entropy = lambda l, t: F.cross_entropy(l, t, ignore_index=IGNORED, reduction="sum")
        second = logits.new_zeros(())
        if objective == "mtp" and len(tokens) > 1:
            second = entropy(self.mtp(self.main, states[:, :-1], ids[:, 1:]), wanted[1:])
        return entropy(logits, wanted), second, logits

    def run(self, batch, objective, backward=True):
        """Losses (total, main, second) and logits of a batch; gradients are added to the parameters'."""
        count = sum(t != IGNORED for _, targets in batch for t in targets)
        second_count = sum(t != IGNORED for _, targets in batch for t in targets[1:])
        self.chosen, main, second, logits = {}, 0.0, 0.0, []
        for tokens, targets in batch:
            a, b, l = self.sums(tokens, targets, objective)
            loss = a / count
            if objective == "mtp":
                loss = loss + LAMBDA * b / second_count
            if backward:
                loss.backward()
            main, second = main + a.item() / count, second + b.item() / second_count
            logits.append(l.detach())
        total = main + LAMBDA * second if objective == "mtp" else main
        return total, main, second, torch.cat(logits)

    def gradients(self):
        return {n: g.clone().contiguous()
                for n, g in self.named(lambda p: torch.zeros_like(p) if p.grad is None else p.grad).items()}

    def zero(self):
        for _, _, p in self.parameters():
            p.grad = None


def check_differences(subject: Subject, batch, objective: str, seed: int) -> float:
    """The largest error of a directional derivative of any tensor against a central difference."""
    generator, worst, e = torch.Generator().manual_seed(seed), 0.0, 1e-6
    for _, _, p in subject.parameters():
        if p.grad is None:
            continue
        with torch.no_grad():
            way = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            old = p.clone()
            p.copy_(old + e * way)
            up = subject.run(batch, objective, backward=False)[0]
            p.copy_(old - e * way)
            down = subject.run(batch, objective, backward=False)[0]
            p.copy_(old)
            found, wanted = (p.grad * way).sum().item(), (up - down) / (2 * e)
            worst = max(worst, abs(found - wanted) / (1 + abs(wanted)))
    return worst


def causal_batch(c: dict, weights: dict, random) -> list:
    """(tokens, targets) of LENGTHS; a few targets are ignored: a prompt in front, and single ones."""
    chooser = reference.Model(c, {n: w.double().numpy() for n, w in weights.items()})
    batch = []
    for i, n in enumerate(LENGTHS):
        text = choose_tokens(chooser, n + 1, MARGIN, random)
        targets = text[1:]
        if i == 0:
            targets[:5] = [IGNORED] * 5
        if i == 3:
            targets[7] = targets[20] = targets[29] = IGNORED
        batch.append((text[:-1], targets))
    return batch


def masked_batch(c: dict, random) -> list:
    """A third of the tokens asked for: most replaced by the last id, some by another, some left."""
    batch, mask = [], c["vocab_size"] - 1
    for n in LENGTHS:
        text = random.integers(0, mask, n).tolist()
        tokens, targets = list(text), [IGNORED] * n
        for i in random.permutation(n)[: max(1, n // 3)].tolist():
            targets[i], x = text[i], random.random()
            tokens[i] = mask if x < 0.8 else int(random.integers(0, mask)) if x < 0.9 else text[i]
        batch.append((tokens, targets))
    return batch


def flat(batch) -> dict:
    whole = lambda i: torch.tensor([t for pair in batch for t in pair[i]], dtype=torch.int32)
    return {"tokens": whole(0), "targets": whole(1),
            "lengths": torch.tensor([len(tokens) for tokens, _ in batch], dtype=torch.int32)}


def chosen_rows(subject: Subject, layer: int, batch) -> torch.Tensor:
    """[T, top_k], ascending; the prediction layer has no choice (-1) at the last token of a sequence."""
    if layer < subject.c["num_hidden_layers"]:
        return torch.cat(subject.chosen[layer])
    parts, none = [], torch.full((1, subject.c["num_experts_per_tok"]), -1, dtype=torch.int32)
    mine = iter(subject.chosen[layer])
    for tokens, _ in batch:
        parts += [next(mine), none] if len(tokens) > 1 else [none]
    return torch.cat(parts)


def worst_error(found: dict, wanted: dict) -> float:
    return max(((found[n].double() - w).abs().max() / w.abs().max()).item() for n, w in wanted.items() if w.abs().max())


def unreached(subject: Subject, gradients: dict) -> list:
    """Tensors of the main model without any gradient."""
    own = f"model.layers.{subject.c['num_hidden_layers']}."
    return [n for n, g in gradients.items() if not g.any() and not n.startswith(own)]


def draw(name: str, c: dict, seed: int):
    """Weights and a batch for each objective: clear choices, and every expert learns."""
    while True:
        weights, random, batches = random_weights(c, seed), np.random.default_rng(seed + 500), {}
        with in_float64():
            subject = Subject(c, weights, torch.float64)
        for objective in ("causal",) + FIXTURES[name].get("_objectives", ()):
            for _ in range(300 if objective == "masked" else 4):
                batch = masked_batch(c, random) if objective == "masked" else causal_batch(c, weights, random)
                subject.margin = math.inf
                subject.zero()
                with in_float64():
                    subject.run(batch, objective)
                if subject.margin > 0.3 * MARGIN and not unreached(subject, subject.gradients()):
                    batches[objective] = batch
                    break
        if len(batches) == 1 + len(FIXTURES[name].get("_objectives", ())):
            return seed, weights, batches
        seed += 1


def make(name: str, number: int) -> dict:
    c, folder = config_json(name), OUT / name
    seed, weights, batches = draw(name, c, 4000 + 20 * number)
    write_folder(folder, c, weights, 1)
    stored = load_file(folder / "model.safetensors")
    with in_float64():
        exact = Subject(c, stored, torch.float64)
    single = Subject(c, stored, torch.float32)
    load_with_transformers(folder, c, torch.float32)  # the folder is one that transformers reads

    report = {"seed": seed}
    for objective, batch in batches.items():
        exact.margin = math.inf
        exact.zero()
        with in_float64():
            total, main, second, logits = exact.run(batch, objective)
            gradients = exact.gradients()
            choices = {l: chosen_rows(exact, l, batch) for l in exact.chosen}
            difference = check_differences(exact, batch, objective, seed)
        single.zero()
        single_total, _, _, single_logits = single.run(batch, objective)
        for layer, rows in choices.items():
            assert torch.equal(rows, chosen_rows(single, layer, batch)), (name, objective, layer)
        error = worst_error(single.gradients(), gradients)
        report[objective] = {
            "loss": total, "main": main, "margin": None if exact.margin == math.inf else exact.margin,
            "float32_loss_difference": abs(single_total - total), "float32_gradient_error": error,
            "central_difference_error": difference,
            "gradient_norm": math.sqrt(sum(g.pow(2).sum().item() for g in gradients.values()))}
        assert abs(single_total - total) < FLOAT32_LIMIT * total and error < FLOAT32_LIMIT, report
        assert difference < DIFFERENCE_LIMIT and exact.margin > 0.2 * MARGIN, report
        if objective == "mtp":
            report[objective]["second"] = second
            report[objective]["logits_from_MtpModel"] = check_mtp(exact, folder, c, batch)
        # Only the prediction layer may be out of an objective's reach; it is left out of the file then.
        reached = {n: g for n, g in gradients.items() if g.abs().max() > 0}
        assert not unreached(exact, gradients)
        save_file({n: g.float().contiguous() for n, g in reached.items()},
                  folder / f"gradients_{objective}.safetensors")
        save_file(flat(batch) | {f"experts.{l}": r for l, r in choices.items()}
                  | {"loss": torch.tensor([total], dtype=torch.float64),
                     "main_loss": torch.tensor([main], dtype=torch.float64),
                     "logits": logits.float().contiguous()}
                  | ({"second_loss": torch.tensor([second], dtype=torch.float64)} if objective == "mtp" else {}),
                  folder / f"expected_{objective}.safetensors")
    report["bytes"] = sum(f.stat().st_size for f in folder.iterdir())
    print(name, json.dumps(report, indent=1), flush=True)
    return report


@torch.no_grad()
def check_mtp(exact: Subject, folder, c, batch) -> float:
    """Our prediction layer's logits against transformers' own in float32, relative to the row's largest."""
    model, worst = load_with_transformers(folder, c, torch.float32), 0.0
    for tokens, _ in batch:
        if len(tokens) < 2:
            continue
        ids = torch.tensor(tokens)[None]
        norm = model.model(ids, use_cache=False).last_hidden_state[0]
        theirs = run_transformers_mtp(model, folder, c, tokens, norm)
        with in_float64():
            states = exact.main.model(ids, use_cache=False).last_hidden_state
            ours = exact.mtp(exact.main, states[:, :-1], ids[:, 1:])
        worst = max(worst, reference.row_error(theirs.numpy(), ours.numpy()))
    assert worst < reference.ERROR_LIMIT, worst
    return worst


# ---- twenty steps -----------------------------------------------------------------------------

STEPS, RATE, WARM_UP, BETAS, EPSILON, DECAY = 20, 1e-3, 5, (0.9, 0.95), 1e-8, 0.1
RUNS = {"plain": {"clip": 1.0, "gamma": 0.0}, "balanced": {"clip": 4.3, "gamma": 1e-3}}  # 4.3 clips some steps only
STEP_MARGIN = 1e-4


def step_batches(c: dict, seed: int) -> list:
    """Sequences that count in steps of 1 .. 4 with now and then a random token, of other lengths in every batch."""
    random = np.random.default_rng(seed)
    out = []
    for _ in range(STEPS):
        batch = []
        for n in (int(random.integers(1, 25)), int(random.integers(5, 12)), int(random.integers(12, 40))):
            first, by = int(random.integers(0, c["vocab_size"])), int(random.integers(1, 5))
            text = [(first + by * i) % c["vocab_size"] for i in range(n + 1)]
            text = [int(random.integers(0, c["vocab_size"])) if random.random() < 0.1 else t for t in text]
            batch.append((text[:-1], [IGNORED if random.random() < 0.1 else t for t in text[1:-1]] + text[-1:]))
        out.append(batch)
    return out


def train(subject: Subject, batches, clip: float, gamma: float):
    """AdamW by torch, the clipping and the balancing written out."""
    params = [p for _, _, p in subject.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in params if p.dim() > 1], "weight_decay": DECAY},
         {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0}],
        lr=RATE, betas=BETAS, eps=EPSILON, foreach=False)
    losses, norms, loads, experts = [], [], [], subject.c["n_routed_experts"]
    for step, batch in enumerate(batches):
        subject.zero()
        losses.append(subject.run(batch, "causal")[0])
        norm = math.sqrt(sum(p.grad.double().pow(2).sum().item() for p in params))
        norms.append(norm)
        for p in params:
            p.grad.mul_(min(1.0, clip / norm))
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP)
        optimizer.step()
        loads.append([])
        for layer in sorted(subject.routers):
            load = torch.bincount(torch.cat(subject.chosen[layer]).view(-1).long(), minlength=experts)
            loads[-1].append(load.tolist())
            # b += gamma * sign(mean - load); a gamma of 0 changes nothing
            subject.routers[layer].e_score_correction_bias += gamma * torch.sign(load.double().mean() - load)
    return losses, norms, loads


def make_steps(name="r1_steps") -> dict:
    c, folder = config_json("r1"), OUT / name
    for seed in range(5000, 5500):
        weights = random_weights(c, seed)
        batches, runs, report, clear = step_batches(c, seed), {}, {"seed": seed}, True
        for kind, options in RUNS.items():
            with in_float64():
                exact = Subject(c, weights, torch.float64)
                losses, norms, loads = train(exact, batches, **options)
            clear = exact.margin > STEP_MARGIN
            if not clear:
                break
            single = Subject(c, weights, torch.float32)
            single_losses, _, single_loads = train(single, batches, **options)
            assert loads == single_loads, "float32 chose other experts"
            length = {n: w.pow(2).sum().sqrt().item() for n, w in exact.named().items()}
            report[kind] = {
                "margin": exact.margin,
                "float32_loss_difference": max(abs(a - b) for a, b in zip(losses, single_losses)),
                "float32_norm_error": max(abs(single.named()[n].double().pow(2).sum().sqrt().item() - l) / l
                                          for n, l in length.items())}
            runs[kind] = options | {"loss": losses, "gradient_norm": norms, "loads": loads, "final_norms": length}
            runs[kind]["final_bias"] = {f"model.layers.{l}.mlp.gate.e_score_correction_bias":
                                        r.e_score_correction_bias.tolist() for l, r in exact.routers.items()}
        if clear:
            break
    assert clear, "no seed keeps away from ties"
    write_folder(folder, c, weights, 1)
    save_file({f"step.{i}.{k}": v for i, b in enumerate(batches) for k, v in flat(b).items()},
              folder / "batches.safetensors")
    settings = {"steps": STEPS, "rate": RATE, "warm_up": WARM_UP, "beta1": BETAS[0], "beta2": BETAS[1],
                "epsilon": EPSILON, "decay": DECAY}
    (folder / "expected.json").write_text(json.dumps({"settings": settings} | runs, indent=1) + "\n")
    print(name, json.dumps(report, indent=1), [round(x, 4) for x in runs["plain"]["loss"]],
          [round(x, 3) for x in runs["plain"]["gradient_norm"]], flush=True)
    return report


def main(names) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    OUT.mkdir(parents=True, exist_ok=True)
    measured = OUT / "measured.json"
    reports = json.loads(measured.read_text()) if measured.exists() else {}
    for number, name in enumerate(FIXTURES):
        if not names or name in names:
            reports[name] = make(name, number)
    if not names or "r1_steps" in names:
        reports["r1_steps"] = make_steps()
    measured.write_text(json.dumps(reports, indent=1) + "\n")
    for file in OUT.glob("*/*"):
        file.chmod(0o644)


if __name__ == "__main__":
    main(sys.argv[1:])
