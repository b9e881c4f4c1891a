"""Measures the exported miniature with transformers (greedy, float32) and freezes fixtures.

`python evaluate_mini.py MODEL_DIR [N]` prints the accuracy on N held-out problems, by kind.
`python evaluate_mini.py MODEL_DIR N FIXTURES_DIR` also writes accuracy.json, greedy.json and
logits.safetensors there.
"""
import collections
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from transformers.modeling_layers import MtpModel

import arithmetic
from train_mtp import logits_of

SEED, NEW_TOKENS, FROZEN = 20250120, 200, 100


def held_out_problems(n):
    out, seen = [], set()
    for p in arithmetic.problems(SEED, True):
        if p.question not in seen:
            seen.add(p.question)
            out.append(p)
        if len(out) == n:
            return out


def answer_of(text: str) -> str:
    return text.split("</think>")[-1].replace("<｜end▁of▁sentence｜>", "").strip() if "</think>" in text else ""


@torch.no_grad()
def greedy(model, prompts, **more):
    """Generated ids, end of sentence included, for prompts of one length."""
    ids = torch.tensor(prompts)
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS,
                         temperature=None, top_p=None, pad_token_id=1, eos_token_id=1, **more)
    rows = []
    for row in out[:, ids.shape[1]:].tolist():
        rows.append(row[:row.index(1) + 1] if 1 in row else row)
    return rows


def main(folder, n, fixtures=None):
    tok = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ps = held_out_problems(n)
    prompts = [tok.apply_chat_template([{"role": "user", "content": p.question}], add_generation_prompt=True,
                                       tokenize=True, return_dict=False) for p in ps]
    by_length = collections.defaultdict(list)
    for i, ids in enumerate(prompts):
        by_length[len(ids)].append(i)
    right, total, given = collections.Counter(), collections.Counter(), [None] * n
    for _, members in sorted(by_length.items()):
        for i, row in zip(members, greedy(model, [prompts[i] for i in members])):
            given[i] = tok.decode(row)
            total[ps[i].kind] += 1
            right[ps[i].kind] += answer_of(given[i]) == ps[i].answer
    for k in sorted(total):
        print(f"{k:14} {right[k]:4} of {total[k]:4}")
    print(f"accuracy {right.total()} of {n} = {right.total() / n:.4f}")
    for i in [i for i in range(n) if answer_of(given[i]) != ps[i].answer][:12]:
        print("wrong:", ps[i].question, "->", given[i].replace("\n", "|"), "expected", ps[i].answer)
    if fixtures is None:
        return

    fixtures = pathlib.Path(fixtures)
    fixtures.mkdir(parents=True, exist_ok=True)
    dump = lambda file, what: (fixtures / file).write_text(json.dumps(what, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    dump("accuracy.json", {
        "reference": "transformers greedy, float32, from the bf16 checkpoint",
        "problems": n, "correct": right.total(), "accuracy": right.total() / n,
        "by_kind": {k: [right[k], total[k]] for k in sorted(total)},
        "items": [{"question": p.question, "answer": p.answer, "kind": p.kind,
                   "reference_correct": answer_of(g) == p.answer} for p, g in zip(ps, given)]})
    frozen = []
    for p, ids in list(zip(ps, prompts))[:FROZEN]:
        row = greedy(model, [ids])[0]
        assert len(frozen) >= 10 or row == greedy(model, [ids], use_mtp=True)[0]
        frozen.append({"question": p.question, "prompt_ids": ids, "generated_ids": row,
                       "text": tok.decode(row), "expected": p.answer, "correct": answer_of(tok.decode(row)) == p.answer})
    text = json.dumps({"max_new_tokens": NEW_TOKENS, "eos_token_id": 1, "items": frozen}, ensure_ascii=False)
    (fixtures / "greedy.json").write_text(text.replace('{"question"', '\n{"question"') + "\n", encoding="utf-8")
    logits = {}
    for i, ids in enumerate(prompts[:5]):
        out = model(torch.tensor([ids])).logits[0]
        logits[f"prompt.{i}.ids"] = torch.tensor(ids)
        logits[f"prompt.{i}.last"] = out[-1].detach().clone()
    short = tok.apply_chat_template([{"role": "user", "content": "17 + 5"}], add_generation_prompt=True,
                                    tokenize=True, return_dict=False)
    logits["short.ids"] = torch.tensor(short)
    ids = torch.tensor([short])
    logits["short.all"] = model(ids).logits[0].detach().clone()
    mtp = MtpModel.from_pretrained(model).eval()
    logits["short.mtp"] = logits_of(mtp, model.model(ids).last_hidden_state, ids)[0].detach().clone()
    save_file(logits, fixtures / "logits.safetensors", metadata={"format": "pt"})
    (fixtures / "logits.safetensors").chmod(0o644)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500, *sys.argv[3:4])
