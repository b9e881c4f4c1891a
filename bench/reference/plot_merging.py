#!/usr/bin/env python3
"""Draws what the experiments on merged tokens logged, and prints it as a table.

plot_merging.py OUT.svg FILE...: FILES hold lines of merging_recall_bench, of merging_anneal_bench or of
merging_text_bench. Of arms with several seeds the mean is drawn, with a line from the least to the greatest; the table
has mean and 95 % interval of the mean (Student), and differences to the dense arm seed by seed. Answers to the same
problems are compared in pairs.
"""
import json
import math
import sys

COLOURS = ["#1a5fb4", "#c64600", "#26a269", "#813d9c"]
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}
KINDS = {"copy": (["right", "copy", "needle", "digits"], "share right"),
         "training_seconds": (["right"], "share of problems answered right"),
         "text_bpb": (["text_bpb", "problems_bpb"], "bits a byte")}


def mean_of(values):
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, STUDENT.get(len(values), 2.0) * deviation / math.sqrt(len(values))


def spelled(mean, half, digits=4):
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if half is not None else "")


def table(arms, columns):
    extra = [c for c in ("inside", "slots_per_token", "asking_tokens_that_close", "training_tflop", "prefill_ms",
                         "decode_ms_per_byte", "cache_bytes_of_1024", "seconds")
             if any(c in run for runs in arms.values() for run in runs)]
    print("| arm | seeds | " + " | ".join(columns + extra) + " |\n|" + "---|" * (2 + len(columns + extra)))
    for name, runs in arms.items():
        cells = [spelled(*mean_of([run[c] for run in runs])) for c in columns]
        cells += [f"{mean_of([run[c] for run in runs])[0]:.3f}" if c in runs[0] else "" for c in extra]
        print(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    plain = "dense" if "dense" in arms else "start"
    dense = {run["seed"]: run for run in arms.get(plain, [])}
    for name, runs in arms.items():
        pairs = [(run, dense[run["seed"]]) for run in runs if run["seed"] in dense]
        if name == plain or not pairs:
            continue
        text = [f"{c} {spelled(*mean_of([(a[c] / b[c] - 1) * 100 for a, b in pairs]), 2)} %" for c in columns]
        print(f"{name} against {plain}, {len(pairs)} pairs: " + ", ".join(text))
    for name, runs in arms.items():
        for run in runs:
            other = dense.get(run["seed"])
            if "wrong" not in run or other is None or name == plain:
                continue
            mine, theirs, n = set(run["wrong"]), set(other["wrong"]), run["problems"]
            lost, won = len(mine - theirs), len(theirs - mine)
            half = 1.96 * math.sqrt(max(lost + won - (lost - won) ** 2 / n, 0)) / n
            print(f"{name} seed {run['seed']}: {lost} lost and {won} won of {n}: {(won - lost) / n * 100:.2f} points, "
                  f"95 % interval ± {half * 100:.2f}")


def draw(target, arms, columns, title):
    values = [run[c] for runs in arms.values() for run in runs for c in columns]
    high = max(values) * 1.05
    left, top, bottom, width = 50, 60, 300, 14
    scale = (bottom - top) / high
    step = next(s for s in (0.05, 0.1, 0.2, 0.5, 1, 2) if high / s <= 10)
    out, x = [], left
    for name, runs in arms.items():
        begin = x
        for i, c in enumerate(columns):
            of = [run[c] for run in runs]
            y = bottom - sum(of) / len(of) * scale
            out.append(f"<rect x='{x}' y='{y:.1f}' width='{width}' height='{bottom - y:.1f}' fill='{COLOURS[i]}'/>")
            if len(of) > 1:
                out.append(f"<line x1='{x + width / 2}' x2='{x + width / 2}' y1='{bottom - max(of) * scale:.1f}' "
                           f"y2='{bottom - min(of) * scale:.1f}' stroke='#000' stroke-width='2'/>")
            x += width + 1
        middle = (begin + x) / 2
        out.append(f"<text x='{middle}' y='{bottom + 12}' text-anchor='end' "
                   f"transform='rotate(-35 {middle} {bottom + 12})'>{name}</text>")
        x += 16
    for i in range(int(high / step) + 1):
        y = bottom - i * step * scale
        out.append(f"<line x1='{left}' x2='{x - 16}' y1='{y:.1f}' y2='{y:.1f}' stroke='#ccc' stroke-width='0.5'/>"
                   f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end'>{i * step:g}</text>")
    key = "".join(f"<rect x='{left + 120 * i}' y='30' width='12' height='12' fill='{COLOURS[i]}'/>"
                  f"<text x='{left + 18 + 120 * i}' y='41'>{c}</text>" for i, c in enumerate(columns))
    with open(target, "w", encoding="utf-8") as file:
        file.write(f"<svg xmlns='http://www.w3.org/2000/svg' width='{max(x, 560)}' height='440' "
                   f"font-family='sans-serif' font-size='12'>\n<rect width='{max(x, 560)}' height='440' fill='white'/>\n"
                   f"<text x='{left}' y='20' font-size='14'>{title}</text>\n{key}\n" + "\n".join(out) + "\n</svg>\n")


def main():
    target, *files = sys.argv[1:]
    arms = {}
    for name in files:
        for line in open(name, encoding="utf-8"):
            run = json.loads(line)
            arms.setdefault(run["arm"], []).append(run)
    first = next(iter(arms.values()))[0]
    columns, title = next(kind for key, kind in KINDS.items() if key in first)
    table(arms, columns)
    draw(target, arms, columns, title)


main()
