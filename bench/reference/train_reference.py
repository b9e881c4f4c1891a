"""How fast PyTorch trains the same models on this CPU: one JSON line for each way to compute attention and experts.

    python train_reference.py --threads 4 --model mini|moe25 --steps 10 [--rows sdpa:eager,sdpa:sorted,...]

`mini` is the miniature checkpoint's configuration (tests/oracle/mini.py without its prediction layer), 48 sequences of
128 tokens a step; `moe25` has 24.1 M parameters, 8 sequences of 512.  The model is transformers'
DeepseekV3ForCausalLM in float32, eager mode, as it comes; a row is ATTENTION:EXPERTS:
- attention `sdpa` (PyTorch's fused kernel) or `eager` (transformers' own matrix products);
- experts `eager` (a loop over experts, index_add), `grouped_mm` (transformers' other way; what it chooses by itself is
  marked `"default": true`), or `sorted`, the tokens sorted by expert as in tests/oracle/train_mini.py.  `batched_mm`
  works too, but gathers an expert's weights for every token: 11 GiB and thirty times slower for `mini`.
Compare with the fastest row.

A step is: forward, mean cross entropy over all tokens, backward, clipping to norm 1, AdamW (fused).  Token i of
sequence b of step s is splitmix64((s * batch + b) * (length + 1) + i) % vocab, the target the next one, so the loss
only goes to log(vocab); weights are random (standard deviation 0.02), selection biases 0 and left alone.

`seconds` is the median over the steps after two that are not counted, `cpu_seconds` that of the CPU time of all
threads, `rss_mib` the process's peak.  More threads than idle cores makes PyTorch many times slower (its threads wait
for each other), so `load` tells the load average before and after, and `cpu_share` the CPU time / (wall time *
threads): below about 0.9 the row was disturbed.  On a busy machine only `--threads 1` with `cpu_seconds` means much;
OMP_WAIT_POLICY=passive in the environment lessens the harm there (threads sleep while they wait).
"""
import argparse
import ctypes
import json
import os
import pathlib
import resource
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "oracle"))
os.environ["HF_HUB_OFFLINE"] = "1"

MOE25 = dict(
    vocab_size=8192, hidden_size=384, intermediate_size=1024, moe_intermediate_size=96, num_hidden_layers=8,
    num_attention_heads=6, num_key_value_heads=6, n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4,
    n_group=4, topk_group=2, first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=2.5, q_lora_rank=None,
    kv_lora_rank=128, qk_nope_head_dim=32, qk_rope_head_dim=32, v_head_dim=64, hidden_act="silu",
    max_position_embeddings=2048, initializer_range=0.02, rms_norm_eps=1e-6, tie_word_embeddings=False,
    attention_bias=False, attention_dropout=0.0)
SHAPE = {"mini": (48, 128), "moe25": (8, 512)}
ROWS = "sdpa:eager,sdpa:grouped_mm,sdpa:sorted,eager:sorted"


def tokens(first: int, count: int, vocab: int):
    import numpy as np

    with np.errstate(over="ignore"):
        z = (np.arange(first + 1, first + count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) % np.uint64(vocab)).astype(np.int64)


def measure(model_name: str, attention: str, experts: str, threads: int, steps: int) -> dict:
    import torch
    import torch.nn.functional as F
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as ds

    original = ds.DeepseekV3Experts.forward
    import mini
    import train_mini  # replaces the experts' forward

    if experts != "sorted":
        ds.DeepseekV3Experts.forward = original
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    config = mini.config() if model_name == "mini" else DeepseekV3Config(**MOE25)
    config.initializer_range = 0.02
    model = DeepseekV3ForCausalLM(config)
    default = (model.config._attn_implementation, model.config._experts_implementation) == (attention, experts)
    model.set_attn_implementation(attention)
    if experts != "sorted":
        model.set_experts_implementation(experts)
    params = list(model.parameters())
    optimizer = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    batch, length = SHAPE[model_name]
    seconds, losses, load, cpu = [], [], os.getloadavg()[0], []
    for step in range(steps + 2):
        whole = tokens(step * batch * (length + 1), batch * (length + 1), config.vocab_size)
        whole = torch.from_numpy(whole).view(batch, length + 1)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        logits = model(whole[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), whole[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= 2:
            seconds.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - cpu_begin)
    median = statistics.median(seconds)
    return {
        "model": model_name, "attention": attention, "experts": experts, "default": default, "threads": threads,
        "parameters": sum(p.numel() for p in params), "tokens": batch * length, "steps": steps,
        "seconds": round(median, 4), "fastest": round(min(seconds), 4), "cpu_seconds": round(statistics.median(cpu), 4),
        "tokens_per_second": round(batch * length / median),
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "loss": [round(losses[0], 4), round(losses[-1], 4)], "cpu_share": round(sum(cpu) / (sum(seconds) * threads), 3),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)], "torch": torch.__version__}


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=SHAPE, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one:
        attention, experts = a.one.split(":")
        print(json.dumps(measure(a.model, attention, experts, a.threads, a.steps)), flush=True)
        return
    for row in a.rows.split(","):  # a process each, so that the peaks of memory are their own
        # Whoever ends this process ends the row too: orphans would disturb the next measurement.
        done = subprocess.run([sys.executable, __file__, "--model", a.model, "--threads", str(a.threads), "--steps",
                               str(a.steps), "--one", row], capture_output=True, text=True,
                              preexec_fn=end_with_parent)
        failed = {"model": a.model, "row": row, "error": done.stderr[-300:]}
        print(done.stdout.strip() or json.dumps(failed), flush=True)


if __name__ == "__main__":
    main()
