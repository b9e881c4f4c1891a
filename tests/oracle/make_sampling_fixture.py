"""Freezes what transformers' logits processors leave of random logits, in the order of `generate`.

`python make_sampling_fixture.py ../fixtures/sampling.json` writes cases of: logits, tokens seen, parameters, and the
probabilities that remain. Values are kept apart from ties, so that no case hangs on the last bit of a float.
"""
import json
import sys

import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import (LogitsProcessorList, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor,
                                                    TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

VOCAB = 40


def reference(logits, seen, c):
    steps = LogitsProcessorList()
    if c["repetition_penalty"] != 1.0:
        steps.append(RepetitionPenaltyLogitsProcessor(c["repetition_penalty"]))
    steps.append(TemperatureLogitsWarper(c["temperature"]))
    if c["top_k"] > 0:
        steps.append(TopKLogitsWarper(c["top_k"]))
    if c["top_p"] < 1.0:
        steps.append(TopPLogitsWarper(c["top_p"]))
    if c["min_p"] > 0.0:
        steps.append(MinPLogitsWarper(c["min_p"]))
    return torch.softmax(steps(torch.tensor([seen]), logits[None].clone())[0].double(), -1)


def order_in_generate():
    """The order of these processors inside `generate`, from its own code."""
    import inspect

    from transformers import GenerationMixin
    text = inspect.getsource(GenerationMixin._get_logits_processor)
    names = ["RepetitionPenaltyLogitsProcessor(", "TemperatureLogitsWarper(", "TopKLogitsWarper(", "TopPLogitsWarper(", "MinPLogitsWarper("]
    places = [text.index(n) for n in names]
    assert places == sorted(places), places


def main(path):
    order_in_generate()
    assert GenerationConfig().top_k in (None, 50)
    torch.manual_seed(20250120)
    plain = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0)
    changes = [{}, {"temperature": 0.6}, {"temperature": 1.7}, {"top_k": 1}, {"top_k": 5}, {"top_k": 100}, {"top_p": 0.05}, {"top_p": 0.5},
               {"top_p": 0.95}, {"min_p": 0.05}, {"min_p": 0.4}, {"min_p": 1.0}, {"repetition_penalty": 1.3}, {"repetition_penalty": 0.7},
               {"temperature": 0.6, "top_p": 0.95}, {"temperature": 1.5, "top_k": 10, "top_p": 0.7},
               {"temperature": 2.0, "top_k": 12, "min_p": 0.3}, {"temperature": 0.8, "top_p": 0.8, "min_p": 0.2},
               {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2}]
    cases = []
    for change in changes:
        for _ in range(3):
            c = plain | change
            logits = (torch.randn(VOCAB) * 2.5 * 64).round() / 64  # exact in decimal and in float
            while len(set(logits.tolist())) < VOCAB:
                logits = (torch.randn(VOCAB) * 2.5 * 64).round() / 64
            seen = torch.randperm(VOCAB)[:8].tolist()
            p = reference(logits, seen, c)
            # Only cases that stand clear of the edge of their filters.
            for nudge in (0.999, 1.001):
                near = c | {k: min(1.0, c[k] * nudge) for k in ("top_p", "min_p") if plain[k] != c[k]}
                assert torch.equal(reference(logits, seen, near) > 0, p > 0) or c["min_p"] == 1.0
            cases.append({**c, "seen": seen, "logits": logits.tolist(), "probabilities": [round(x, 9) for x in p.tolist()]})
    text = json.dumps({"made_by": "make_sampling_fixture.py", "cases": cases})
    open(path, "w").write(text.replace('{"temperature"', '\n{"temperature"') + "\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main(sys.argv[1])
