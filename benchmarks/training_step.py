"""How fast is a training step, and generation, against the common recipe on the same machine, weights, pictures, dtype?

    python benchmarks/training_step.py [--config bench|tiny] [--crops 4,16] [--dtype bfloat16|float32] ...

Every mode runs in a process of its own, modes take turns, and every round starts afresh; the table shows medians, the
last line is JSON. Ratios are medians of ratios within a round. `recipe` (recipe_baseline.py) and ours must agree on
the loss of the first weights, or the script fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
import workload
from recipe_baseline import RecipeBaseline

from appraiser.backbone import DTYPES, Backbone
from appraiser.config import RunConfig
from appraiser.data.batches import Batch, Example
from appraiser.training.gradients import autocast, step_gradients
from appraiser.training.optim import build_optimizers

Facts = dict[str, Any]

LEARNING_RATE = 1e-5
NEW_TOKENS = 40
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


@dataclass(frozen=True)
class Mode:
    """One row of the table.

    Args:
        task: `train`, `generate` or `matmul`.
        way: `recipe`, or how ours holds its weights: `master` (fp32, computed in `dtype` under autocast) or `plain`
            (weights in `dtype`).
        batch: pictures per step; the recipe has one.
        at_once: micro-batches of a step that are computed side by side, each on one core.
        attention: implementation that ours asks transformers for.
        kept: tower frozen, its features computed before the clock starts.
        compiled: blocks of tower and decoder through torch.compile, before the clock starts.
    """

    task: str
    way: str
    config: str
    crops: int
    dtype: str
    batch: int = 1
    at_once: int = 1
    attention: str = "blocks"
    kept: bool = False
    compiled: bool = False

    @property
    def label(self) -> str:
        if self.task == "matmul":
            return f"matmul {self.dtype}"
        held = {"recipe": f"{self.dtype} weights", "plain": f"{self.dtype} weights", "master": "fp32 weights, autocast"}
        who = "recipe, eager" if self.way == "recipe" else f"ours, {self.attention}, batch {self.batch // self.at_once}"
        who += f" x {self.at_once} at once" if self.at_once > 1 else ""
        return f"{who}, {held[self.way]}" + ", kept features" * self.kept + ", compiled" * self.compiled

    @property
    def work(self) -> tuple[str, int]:
        """Modes with the same work are compared."""
        return self.task, self.crops


def modes(
    config: str, crops: list[int], dtype: str, tasks: list[str], attentions: list[str], compiled: bool = False
) -> list[Mode]:
    """The table's rows; the baseline of each group comes first."""
    rows = [Mode("matmul", "plain", config, 0, dtype)]
    ways = ["plain"] if dtype == "float32" else ["master", "plain"]
    for count in crops:
        # (pictures per step, micro-batches side by side); memory grows with both.
        sizes = [(32, 1), (32, 2)] if config == "tiny" else [(1, 1), (4, 1), (4, 2)] if count < 9 else [(1, 1), (2, 2)]
        if "train" in tasks:
            rows.append(Mode("train", "recipe", config, count, dtype))
            rows += [
                Mode("train", way, config, count, dtype, size, at_once, attention)
                for size, at_once in sizes
                for way in ways
                for attention in attentions
            ]
            if compiled:  # two pictures at a time was best at 4 crops, of 1, 2, and both side by side
                size = 2 if config == "bench" and count < 9 else sizes[0][0]
                rows += [
                    Mode("train", way, config, count, dtype, size, 1, attentions[0], compiled=True) for way in ways
                ]
            if config == "bench":
                size, at_once = sizes[-1]
                kept = Mode("train", ways[0], config, count, dtype, size, at_once, attentions[0], kept=True)
                rows += [kept, replace(kept, compiled=True)] if compiled else [kept]
        if "generate" in tasks:
            rows.append(Mode("generate", "recipe", config, count, dtype))
            for size in sorted({1, 4 if config == "bench" else 32}):
                rows.append(Mode("generate", "plain", config, count, dtype, size, 1, attentions[0]))
    return rows


# ------------------------------------------------------------------------------------------------ in the process


class Ours:
    """One training step or generation as the package does it."""

    def __init__(self, mode: Mode, backbone: Backbone) -> None:
        self.mode, self.model, self.stack = mode, backbone.model, ExitStack()
        tower = self.model.model.vision_embed_tokens.img_processor
        if mode.compiled:
            for block in [*self.model.model.layers, *tower.vision_model.encoder.layers[:-1]]:
                block.compile()
        for parameter in tower.parameters() if mode.kept else tower.vision_model.unused_parameters():
            parameter.requires_grad_(False)
        is_cast = mode.way == "master" and mode.dtype != "float32"
        self.config = RunConfig.model_validate(
            {
                "data": {"dataset": "unused"},
                "adapter": {"kind": "none"},
                "run": {"out": "unused", "autocast": is_cast, "micro_batches_at_once": mode.at_once},
            }
        )
        self.gradients = self.stack.enter_context(step_gradients(self.config, backbone))

    def loss(self, batch: Batch) -> torch.Tensor:
        with autocast(self.config, torch.device("cpu")):
            return self.model(**batch.inputs, labels=batch.labels, answer_only=True, use_cache=False).loss

    def stepper(self) -> Callable[[list[Batch]], float]:
        optimizers = build_optimizers(self.model, learning_rate=LEARNING_RATE)

        def step(batches: list[Batch]) -> float:
            return workload.take_step(self.gradients, optimizers, batches)

        return step

    def generate(self, batch: Batch) -> torch.Tensor:
        inputs = {name: value for name, value in batch.inputs.items() if name != "position_ids"}
        tokens = self.model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, use_cache=True
        )
        return tokens[:, -NEW_TOKENS:]

    def keep_features(self, batches: list[Batch]) -> None:
        with torch.no_grad(), autocast(self.config, torch.device("cpu")):
            for batch in batches:
                pixels, sizes = batch.inputs.pop("pixel_values"), batch.inputs["image_sizes"]
                batch.inputs["image_features"] = self.model.model.vision_embed_tokens.encode_crops(pixels, sizes)


class Recipe(RecipeBaseline):
    """The baseline behind the same four calls."""

    def loss(self, batch: Batch) -> torch.Tensor:
        return super().loss(batch.inputs, batch.labels)

    def stepper(self) -> Callable[[list[Batch]], float]:
        optimizer = super().optimizer(LEARNING_RATE)

        def step(batches: list[Batch]) -> float:
            [batch] = batches
            loss = self.loss(batch)
            loss.backward()
            optimizer.step()  # the recipe does not clip
            optimizer.zero_grad()
            return loss.item()

        return step

    def generate(self, batch: Batch) -> torch.Tensor:
        return super().generate(batch.inputs, NEW_TOKENS)


def measure(mode: Mode, num_pictures: int, threads: int) -> Facts:
    """Run one mode in this process and say what it cost."""
    torch.set_num_threads(threads)
    if mode.task == "matmul":
        return {"flops": workload.matmul_rate(DTYPES[mode.dtype])}
    dtype = torch.float32 if mode.way == "master" else DTYPES[mode.dtype]
    attention = "eager" if mode.way == "recipe" else mode.attention
    backbone = workload.build(mode.config, mode.crops, attention=attention, dtype=dtype)
    images, source = workload.pictures(num_pictures)
    rows = workload.examples(backbone, images)
    runner: Any = Recipe(backbone.model) if mode.way == "recipe" else Ours(mode, backbone)
    if mode.way == "recipe":
        # The recipe's tensors always hold the whole budget; slots without a crop are zero and are computed.
        rows = [fill_slots(row, mode.crops) for row in rows]
    facts: Facts = {"source": source, "tokens": len(rows[0].input_ids)}
    run = train if mode.task == "train" else generate
    return facts | run(runner, backbone, rows, mode)


def fill_slots(row: Example, crops: int) -> Example:
    views = row.pictures[0]
    pixels = torch.zeros(crops + 1, *views.pixels.shape[1:])
    pixels[: len(views.pixels)] = views.pixels
    return Example(row.record_id, row.input_ids, row.labels, (type(views)(pixels, views.size),))


def train(runner: Any, backbone: Backbone, rows: list[Example], mode: Mode) -> Facts:
    batches = workload.batches(backbone, rows, mode.batch // mode.at_once)
    flops = sum(workload.training_flops(backbone.config, batch, tower_trained=not mode.kept) for batch in batches)
    if mode.kept:
        runner.keep_features(batches)
    backbone.model.train()
    tokens = [batch.num_supervised for batch in batches]
    with torch.no_grad():
        losses = [runner.loss(batch).item() for batch in batches]
    first = per_token(losses, tokens)
    steps = [batches[start : start + mode.at_once] for start in range(0, len(batches), mode.at_once)]
    tokens = [sum(batch.num_supervised for batch in step) for step in steps]
    take = runner.stepper()
    take(steps[0])  # warm-up: optimizer states, oneDNN kernels
    start, cpu = time.perf_counter(), time.process_time()
    losses = [take(step) for step in steps]
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds / len(rows),
        "cpu_seconds": cpu / len(rows),
        "flops": flops / seconds,
        "peak_gb": workload.peak_anonymous_gb(),
        "first_loss": first,
        "last_loss": per_token(losses, tokens),
    }


def per_token(losses: list[float], tokens: list[int]) -> float:
    """Mean over all scored tokens of batches that hold different numbers of them."""
    return sum(loss * count for loss, count in zip(losses, tokens, strict=True)) / sum(tokens)


def generate(runner: Any, backbone: Backbone, rows: list[Example], mode: Mode) -> Facts:
    batches = workload.batches(backbone, workload.prompts(rows), mode.batch, padding_side="left")
    backbone.model.eval()
    with torch.inference_mode():
        runner.generate(batches[0])
        start, cpu = time.perf_counter(), time.process_time()
        written = [runner.generate(batch) for batch in batches]
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "seconds": seconds / len(rows),
        "cpu_seconds": cpu / len(rows),
        "peak_gb": workload.peak_anonymous_gb(),
        "written": [row.tolist() for tokens in written for row in tokens],
    }


# --------------------------------------------------------------------------------------------------- all of them


def run_in_process(mode: Mode, num_pictures: int, threads: int) -> Facts:
    """`measure` in a fresh process, so that peak memory is this mode's own."""
    request = json.dumps({"mode": asdict(mode), "pictures": num_pictures, "threads": threads})
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--worker", request]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{mode.label} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check_losses(mode: Mode, run: Facts, baseline: Facts) -> None:
    """Ours and the recipe's mean loss per token of the same rows at the first weights must agree."""
    difference = abs(run["first_loss"] - baseline["first_loss"])
    if difference > LOSS_TOLERANCE[mode.dtype]:
        raise SystemExit(f"{mode.label}: loss {run['first_loss']:.5f}, recipe {baseline['first_loss']:.5f}: other work")


def agreement(run: Facts, baseline: Facts) -> float:
    """Share of generated tokens equal up to each row's first difference; random weights have near-ties in bf16."""
    same = 0
    for ours, theirs in zip(run["written"], baseline["written"], strict=True):
        same += next((i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), len(ours))
    return same / sum(len(row) for row in baseline["written"])


def summarise(mode: Mode, runs: list[Facts], baselines: list[Facts], rates: list[float]) -> Facts:
    """Medians of a mode over the rounds; ratios and shares are taken within a round."""
    seconds = [run["seconds"] for run in runs]
    row: Facts = asdict(mode) | {
        "label": mode.label,
        "tokens": runs[0]["tokens"],
        "seconds": statistics.median(seconds),
        "spread": [min(seconds), max(seconds)],
        "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs),
        "speedup": statistics.median(b["seconds"] / r["seconds"] for r, b in zip(runs, baselines, strict=True)),
        "peak_gb": statistics.median(run["peak_gb"] for run in runs),
        "memory_ratio": statistics.median(r["peak_gb"] / b["peak_gb"] for r, b in zip(runs, baselines, strict=True)),
    }
    if mode.task == "train":
        row["matmul_share"] = statistics.median(run["flops"] / rate for run, rate in zip(runs, rates, strict=True))
        row |= {name: runs[0][name] for name in ("first_loss", "last_loss")}
    else:
        row["agreement"] = agreement(runs[0], baselines[0])
    return row


def print_table(rows: list[Facts]) -> None:
    group = None
    for row in rows:
        if (row["task"], row["crops"]) != group:
            group = row["task"], row["crops"]
            what = "training step" if row["task"] == "train" else f"{NEW_TOKENS} tokens generated"
            print(f"\n{what}, {row['config']}, {row['crops']} crops, {row['tokens']} tokens, compute {row['dtype']}")
            print(f"{'':58}{'s/picture':>10} {'spread':>15} {'speed':>7} {'peak GB':>8} {'ratio':>6}  check")
        if row["task"] == "train":
            check = f"{row['matmul_share']:.0%} of matmul, loss {row['first_loss']:.4f} -> {row['last_loss']:.4f}"
        else:
            check = f"{row['agreement']:.0%} of tokens before the first difference"
        low, high = row["spread"]
        print(
            f"{row['label']:58}{row['seconds']:10.3f} {low:7.3f}-{high:7.3f} {row['speedup']:6.2f}x "
            f"{row['peak_gb']:8.2f} {row['memory_ratio']:5.2f}x  {check}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=("bench", "tiny"), default="bench")
    parser.add_argument("--crops", help="crop budgets, comma-separated (bench: 4,16; tiny: 1)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--tasks", default="train,generate")
    parser.add_argument("--attention", help="ours, comma-separated (bench: blocks; tiny: blocks,eager)")
    parser.add_argument("--pictures", type=int, help="timed pictures per process (bench: 4, tiny: 64)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--compile", action="store_true", help="also with torch.compile, which takes minutes to begin")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        request = json.loads(arguments.worker)
        print(json.dumps(measure(Mode(**request["mode"]), request["pictures"], request["threads"])))
        return

    tiny = arguments.config == "tiny"
    crops = [int(count) for count in (arguments.crops or ("1" if tiny else "4,16")).split(",")]
    num_pictures = arguments.pictures or (64 if tiny else 4)
    attentions = (arguments.attention or ("blocks,eager" if tiny else "blocks")).split(",")
    rows = modes(arguments.config, crops, arguments.dtype, arguments.tasks.split(","), attentions, arguments.compile)
    results: dict[Mode, list[Facts]] = {mode: [] for mode in rows}
    for repeat in range(arguments.repeats):
        for mode in rows:
            print(f"[{repeat + 1}/{arguments.repeats}] {mode.crops} crops, {mode.task}: {mode.label}", file=sys.stderr)
            results[mode].append(run_in_process(mode, num_pictures, arguments.threads))

    rates = [run["flops"] for run in results[rows[0]]]
    baselines = {mode.work: runs for mode, runs in results.items() if mode.way == "recipe"}
    table = []
    for mode in rows[1:]:
        if mode.task == "train":
            check_losses(mode, results[mode][0], baselines[mode.work][0])
        table.append(summarise(mode, results[mode], baselines[mode.work], rates))
    machine = {"torch": torch.__version__, "transformers": transformers.__version__, "threads": arguments.threads}
    load = os.getloadavg()[0]
    rates = [rate / 1e9 for rate in rates]
    rate = statistics.median(rates)
    pictures = results[rows[1]][0]["source"]
    print(
        f"{arguments.repeats} rounds of {num_pictures} pictures ({pictures}); {arguments.threads} threads, "
        f"load {load:.1f}; {arguments.dtype} matmul {rate:.0f} GFLOP/s ({min(rates):.0f} to {max(rates):.0f})"
    )
    print_table(table)
    print()
    print(json.dumps({"matmul_gflops": rate, "load": load, "pictures": pictures, **machine, "rows": table}))


if __name__ == "__main__":
    main()
