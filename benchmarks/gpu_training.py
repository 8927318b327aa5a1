"""How fast does the full-size model train on one GPU, and in how much memory?

    python benchmarks/gpu_training.py --date 2026-11-21         # everything: 20 rows, one to two minutes each
    python benchmarks/gpu_training.py --modes lora,qlora --tokens 757 --compile no
    python benchmarks/gpu_training.py --tiny                    # the same code on a small model, CPU too

Needs no network and no files: random weights in the published shapes are made on the GPU itself. The package has to be
importable (`PYTHONPATH=src` in a checkout) with its own requirements; bitsandbytes (QLoRA) and flash-attn may be
missing, their rows then say so.

Rows of a table:

    full        all weights trained, fp32 with AdamW, bf16 arithmetic
    lora        adapters of rank 32 on decoder, tower and projector, bf16 weights
    qlora       the same, the decoder's matrices in 4 bits, gradient checkpointing
    kept-full   full, but the tower frozen and its features computed before the clock starts
    kept-lora   adapters on decoder and projector alone, features likewise

Every row is a process of its own, so that one that runs out of memory does not end the others; within it micro-batches
are halved until they fit. What runs is training's own: `prepare_model`, `StepGradients`, `build_optimizers`, clipping,
batches moved from the CPU in every step. Decoding and collating pictures is not in it. Answers have 26 to 34 tokens, so
that rows of a micro-batch are padded as in life (`--even`: 30 each).

Share of peak: floating-point operations that the step needs (not those of checkpointing or padding; adapters' own,
about 2 %, left out), divided by the time and by the best bf16 matrix product of the same process. Peak: the most memory
that tensors had while training.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import workload
from torch import nn

from appraiser.backbone import DTYPES, IGNORE_INDEX, Backbone, Features, Views, model_folder
from appraiser.config import RunConfig
from appraiser.data.batches import Batch, Example, collate
from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration
from appraiser.training import preparation
from appraiser.training.gradients import StepGradients, autocast, step_gradients
from appraiser.training.optim import build_optimizers
from appraiser.training.ranks import Ranks
from appraiser.training.replica import Replica

HERE = Path(__file__).resolve().parent
FULL_SIZE = HERE / "full_size.json"
LEARNING_RATE = 1e-5
NUM_WARM_UP = 2
GPU_MATMULS = ((8192, 8192, 8192), (8192, 3072, 16384), (16384, 4096, 8192))
WANTED_SHARE, WANTED_QLORA_GB = 0.5, 8.0
NEEDS = {"qlora": "bitsandbytes", "flash_attention_2": "flash_attn"}

METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "full": {"adapter": {"kind": "none"}},
    "lora": {},
    "qlora": {"model": {"quantize": "nf4", "gradient_checkpointing": True}},
    "kept-full": {"adapter": {"kind": "none"}, "parts": {"tower": "freeze"}},
    "kept-lora": {"parts": {"tower": "freeze"}},
}
TOKENS_AT_ONCE = {"full": 2500, "lora": 5000, "qlora": 2500, "kept-full": 5000, "kept-lora": 10000}
"""Of a micro-batch, as far as one GPU of 140 GB should hold them; halved where it does not."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class RowShape:
    """A grid of crops with its image tokens, text before it, and an answer of 30 tokens on average behind it."""

    grid: tuple[int, int]
    prompt: int


SHAPES = {
    # 3 x 5 crops, the most of 16 for a picture of 5 to 3: 2,353 image tokens, 2,443 in all.
    2443: RowShape((3, 5), 60),
    # 2 x 2 crops: 757 image tokens, 799 in all.
    757: RowShape((2, 2), 12),
}
ANSWER, ANSWER_SPREAD = 30, 4


@dataclass(frozen=True)
class Mode:
    """One row of the table."""

    method: str
    tokens: int
    is_compiled: bool
    attention: str = "sdpa"
    is_tiny: bool = False
    rows_per_step: int = 16
    num_steps: int = 4
    checkpointing: bool | None = None
    """None: only for QLoRA."""
    is_even: bool = False
    """Answers of one length: no padding, so that attention needs no mask."""
    device: str = "cuda"

    @property
    def needs(self) -> str | None:
        """A package that this mode cannot do without and that is not there."""
        wanted = [NEEDS[name] for name in (self.method, self.attention) if name in NEEDS]
        return next((name for name in wanted if importlib.util.find_spec(name) is None), None)

    @property
    def config(self) -> RunConfig:
        """Settings of such a run."""
        method = METHODS[self.method]
        model = {"base": str(self.model_config), "dtype": "bfloat16", "attention": self.attention, "num_crops": 16}
        model |= {"compile": self.is_compiled} | method.get("model", {})
        if self.checkpointing is not None:
            model["gradient_checkpointing"] = self.checkpointing
        run = {"out": "unused", "batch_size": self.rows_per_step, "micro_batch_size": self.rows_per_step}
        return RunConfig.model_validate(method | {"model": model, "data": {"dataset": "unused"}, "run": run})

    @property
    def model_config(self) -> Path:
        return Path(model_folder("phi3v-tiny")) / "config.json" if self.is_tiny else FULL_SIZE


# ------------------------------------------------------------------------------------------------ in the process


def measure(mode: Mode) -> Facts:
    """Train a few steps in this mode; facts of its row."""
    device = torch.device(mode.device)
    torch.manual_seed(0)
    config = mode.config
    with patch.object(preparation, "load_any", random_backbone):
        backbone = preparation.prepare_model(config, None, device)  # type: ignore[arg-type]  # crops are in the settings
    rows = examples(backbone, config, mode)
    backbone.model.train()
    rate = matmul_rate(device)
    with step_gradients(config, Replica(backbone, Ranks(device=device))) as gradients:
        row = fitting(lambda size: timed_steps(gradients, workload.batches(backbone, rows, size), mode), rows, mode)
    row["matmul_tflops"] = max(rate, matmul_rate(device)) / 1e12
    work = step_flops(config, backbone.config, collate(rows, backbone))
    row["tflops"] = work / row["seconds"] / 1e12
    row["share"] = row["tflops"] / row["matmul_tflops"]
    row["trained"] = sum(weight.numel() for weight in gradients.parameters)
    row["machine"] = machine(device)
    return row


def random_backbone(
    name: str, *, dtype: str, num_crops: int | None, attention: str, device: torch.device, quantize: str
) -> Backbone:
    """In the place of `load_any`: the model of a config.json with random weights, made where it is used."""
    settings = Phi3VConfig.from_json_file(name)
    settings._attn_implementation = attention
    usual = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        with device:
            model = Phi3VForConditionalGeneration(settings)
    finally:
        torch.set_default_dtype(usual)
    if quantize != "none":
        quantize_decoder(model, quantize, DTYPES[dtype])
    return Backbone(workload.processor_of(settings, num_crops or 16), name, model)


def quantize_decoder(model: Phi3VForConditionalGeneration, kind: str, dtype: torch.dtype) -> None:
    """The decoder's matrices in 4 bits, as `backbone.load` asks transformers for them."""
    import bitsandbytes

    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, linear in list(block.named_children()):
                if not isinstance(linear, nn.Linear):
                    continue
                small = bitsandbytes.nn.Linear4bit(
                    linear.in_features, linear.out_features, bias=False, compute_dtype=dtype, device="meta"
                )
                device = linear.weight.device
                small.weight = bitsandbytes.nn.Params4bit(
                    linear.weight.data, requires_grad=False, compress_statistics=True, quant_type=kind, module=small
                ).to(device)
                setattr(block, name, small)
    model.is_loaded_in_4bit = True  # PEFT asks for it


def examples(backbone: Backbone, config: RunConfig, mode: Mode) -> list[Example]:
    """Rows of random pictures and text with answer-only labels; with features where the tower is frozen."""
    shape, settings = SHAPES[mode.tokens], backbone.config
    side = settings.clip_config["image_size"]
    height, width = shape.grid[0] * side, shape.grid[1] * side
    generator = torch.Generator().manual_seed(0)
    num_views = 1 + shape.grid[0] * shape.grid[1]
    views = [
        Views(torch.randn(num_views, 3, side, side, generator=generator), (height, width))
        for _ in range(mode.rows_per_step)
    ]
    pictures: Sequence[Views | Features] = views
    if config.method("tower") == "freeze":
        with autocast(config, backbone.device):
            seen = [backbone.see([picture])[0] for picture in views]
        pictures = [Features(features.patches.clone(), features.size) for features in seen]
    [count] = backbone.network.model.vision_embed_tokens.num_tokens(torch.tensor([[height, width]]))
    highest = min(backbone.pad_token_id, settings.vocab_size) - 1
    rows = []
    for number, picture in enumerate(pictures):
        spread = 0 if mode.is_even else number % (2 * ANSWER_SPREAD + 1) - ANSWER_SPREAD
        text = torch.randint(3, highest, (shape.prompt + ANSWER + spread,), generator=generator).tolist()
        prompt, answer = text[: shape.prompt], text[shape.prompt :]
        ids = [*prompt[:4], *[-1] * count, *prompt[4:], *answer]
        labels = [IGNORE_INDEX] * (len(ids) - len(answer)) + answer
        rows.append(Example(str(number), tuple(ids), tuple(labels), (picture,)))
    return rows


def fitting(attempt: Callable[[int], Facts], rows: Sequence[Example], mode: Mode) -> Facts:
    """The attempt with the largest micro-batch that memory holds, from the mode's own downwards."""
    length = sum(len(row.input_ids) for row in rows) // len(rows)
    size = 1 << int(math.log2(max(1, min(len(rows), TOKENS_AT_ONCE[mode.method] // length))))
    while True:
        try:
            return attempt(size) | {"rows_at_once": size, "row_tokens": length}
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        torch.cuda.empty_cache()
        size //= 2


def timed_steps(gradients: StepGradients, batches: list[Batch], mode: Mode) -> Facts:
    model, device = gradients.replica.backbone.model, torch.device(mode.device)
    gradients.forget()  # an attempt before may have left some
    optimizers = build_optimizers(model, learning_rate=LEARNING_RATE)
    is_gpu = device.type == "cuda"
    wait = torch.cuda.synchronize if is_gpu else lambda: None
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    losses, seconds = [], []
    for _ in range(NUM_WARM_UP + mode.num_steps):
        wait()
        start = time.perf_counter()
        losses.append(workload.take_step(gradients, optimizers, batches))
        wait()
        seconds.append(time.perf_counter() - start)
    if not all(map(math.isfinite, losses)):
        raise ValueError(f"losses are not numbers: {losses}")
    steady = sum(seconds[NUM_WARM_UP:]) / mode.num_steps
    return {
        "status": "ok",
        "seconds": steady,
        "first_step_s": seconds[0],
        "pictures_per_s": mode.rows_per_step / steady,
        "tokens_per_s": sum(batch.num_tokens for batch in batches) / steady,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if is_gpu else workload.peak_anonymous_gb(),
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9 if is_gpu else None,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def step_flops(config: RunConfig, settings: Phi3VConfig, batch: Batch) -> float:
    """What a step needs: forward, gradients of activations, and those of weights where a part is trained in full."""
    work = workload.forward_flops(settings, batch)
    times = {"train": 3, "adapt": 2, "freeze": 2}
    total = times[config.method("decoder")] * work["decoder"] + times[config.method("projector")] * work["projector"]
    if config.method("tower") != "freeze":  # frozen, it was asked before the clock started
        is_trained = config.method("tower") == "train"
        total += times[config.method("tower")] * work["tower"] + (2 if is_trained else 1) * work["patches"]
    return total


def matmul_rate(device: torch.device, repeats: int = 20) -> float:
    """Best bf16 FLOP/s over a few matrix shapes."""
    if device.type != "cuda":
        return workload.matmul_rate(torch.bfloat16, 0.2)
    best = 0.0
    for rows, inner, columns in GPU_MATMULS:
        left = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
        right = torch.randn(columns, inner, device=device, dtype=torch.bfloat16)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(3):
            nn.functional.linear(left, right)
        begin.record()
        for _ in range(repeats):
            nn.functional.linear(left, right)
        end.record()
        torch.cuda.synchronize()
        best = max(best, repeats * 2e3 * rows * inner * columns / begin.elapsed_time(end))
    return best


def machine(device: torch.device) -> Facts:
    packages = ("torch", "transformers", "peft", "bitsandbytes")
    found = {name: version(name) for name in packages}
    if device.type != "cuda":
        return {"device": f"CPU, {torch.get_num_threads()} threads", **found}
    facts = torch.cuda.get_device_properties(device)
    return {"device": facts.name, "memory_gb": facts.total_memory / 1e9, "cuda": torch.version.cuda, **found}


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# --------------------------------------------------------------------------------------------------- all of them


def run_in_process(mode: Mode, timeout_s: float) -> Facts:
    """`measure` in a fresh process; a row that fails says why."""
    if mode.needs is not None:
        return {"status": f"{mode.needs} is not installed"}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--worker", json.dumps(asdict(mode))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"status": f"not done after {timeout_s:.0f} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    print("\n".join(lines[-30:]), file=sys.stderr)
    is_memory = any("OutOfMemoryError" in line for line in lines[-5:])
    return {"status": "out of memory" if is_memory else f"failed: {lines[-1][:200]}"}


def modes(arguments: argparse.Namespace) -> list[Mode]:
    checkpointing = {"auto": None, "on": True, "off": False}[arguments.checkpointing]
    return [
        Mode(
            method=method,
            tokens=int(tokens),
            is_compiled=compiled == "yes",
            attention=attention,
            is_tiny=arguments.tiny,
            rows_per_step=arguments.rows_per_step,
            num_steps=arguments.steps,
            checkpointing=checkpointing,
            is_even=arguments.even,
            device=arguments.device,
        )
        for compiled in arguments.compile.split(",")
        for attention in arguments.attention.split(",")
        for method in arguments.modes.split(",")
        for tokens in arguments.tokens.split(",")
    ]


NAMES = "mode, tokens, compile, rows at once, pictures/s, tokens/s, TFLOP/s, share, peak GB, first step s, loss"
COLUMNS = f"| {NAMES.replace(', ', ' | ')} |"


def line(mode: Mode, row: Facts) -> str:
    """One line of the table."""
    method = mode.method if mode.attention == "sdpa" else f"{mode.method}, {mode.attention}"
    if mode.checkpointing is not None:
        method += f", checkpointing {'on' if mode.checkpointing else 'off'}"
    method += ", even" if mode.is_even else ""
    head = f"| {method} | {row.get('row_tokens', mode.tokens):,} | {'yes' if mode.is_compiled else 'no'} | "
    if row["status"] != "ok":
        return f"{head}{row['status']} | | | | | | | |"
    return (
        f"{head}{row['rows_at_once']} | {row['pictures_per_s']:.2f} | {row['tokens_per_s']:,.0f} | "
        f"{row['tflops']:.1f} | {row['share']:.0%} | {row['peak_gb']:.1f} | {row['first_step_s']:.1f} | "
        f"{row['first_loss']:.3f} to {row['last_loss']:.3f} |"
    )


def misses(results: list[tuple[Mode, Facts]]) -> list[str]:
    """What was wanted and not reached, in words."""
    found = []
    for mode, row in results:
        name = f"{mode.method} at {mode.tokens} tokens, compile {'yes' if mode.is_compiled else 'no'}"
        if row["status"] != "ok":
            found.append(f"{name}: {row['status']}")
            continue
        if row["share"] < WANTED_SHARE:
            found.append(f"{name}: {row['share']:.0%} of the matmul rate")
        if mode.method == "qlora" and row["peak_gb"] > WANTED_QLORA_GB:
            found.append(f"{name}: {row['peak_gb']:.1f} GB")
    return found


def page(results: list[tuple[Mode, Facts]], date: str, command: str) -> str:
    """The dated write-up."""
    rows = [row for _, row in results if row["status"] == "ok"]
    facts = ", ".join(f"{key} {value}" for key, value in rows[0]["machine"].items()) if rows else "nothing ran"
    rates = [row["matmul_tflops"] for row in rows]
    rate = f"bf16 matrix products: {min(rates):.0f} to {max(rates):.0f} TFLOP/s over the rows. " if rates else ""
    size = "phi3v-tiny" if results[0][0].is_tiny else "random weights in the published shapes"
    wanted = f"Wanted: at least {WANTED_SHARE:.0%} of the matmul rate in every mode, QLoRA in {WANTED_QLORA_GB:.0f} GB."
    missed = misses(results)
    parts = [
        f"# Training on one GPU, {date}",
        f"`{command}`: {size}. {facts}. {rate}{results[0][0].rows_per_step} rows a step.",
        wanted + (" Missed:" if missed else " Reached in every row."),
        "\n".join(f"- {miss}" for miss in missed),
        "\n".join([COLUMNS, "| --- " * (NAMES.count(", ") + 1) + "|", *(line(*result) for result in results)]),
        "What the columns mean: `benchmarks/gpu_training.py`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", default=",".join(METHODS))
    parser.add_argument("--tokens", default=",".join(map(str, SHAPES)))
    parser.add_argument("--compile", default="no,yes")
    parser.add_argument("--attention", default="sdpa", help="also: flash_attention_2")
    parser.add_argument("--checkpointing", choices=("auto", "on", "off"), default="auto", help="auto: for QLoRA alone")
    parser.add_argument("--even", action="store_true", help="answers of one length, so that no row is padded")
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4, help=f"timed steps, after {NUM_WARM_UP}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="phi3v-tiny's shapes instead of the published ones")
    parser.add_argument("--timeout", type=float, default=900, help="seconds per row")
    parser.add_argument("--date", help="write DATE-gpu-training.md and .json into --out")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.worker:
        print(json.dumps(measure(Mode(**json.loads(arguments.worker)))))
        return
    if arguments.device == "cpu" and not arguments.tiny:
        parser.error("no GPU is here: --tiny runs the same code on a small model")
    command = " ".join(["python benchmarks/gpu_training.py", *(sys.argv[1:] if given is None else given)])
    results: list[tuple[Mode, Facts]] = []
    print(COLUMNS, flush=True)
    for mode in modes(arguments):
        row = run_in_process(mode, arguments.timeout)
        results.append((mode, row))
        print(line(mode, row), flush=True)
        if arguments.date:  # after every row: what was measured stays when a later one is cut off
            write(arguments.out / f"{arguments.date}-gpu-training", results, arguments.date, command)
    print()
    print(page(results, arguments.date or time.strftime("%Y-%m-%d"), command))
    print(json.dumps(as_json(results)))


def as_json(results: list[tuple[Mode, Facts]]) -> list[Facts]:
    return [asdict(mode) | row for mode, row in results]


def write(stem: Path, results: list[tuple[Mode, Facts]], date: str, command: str) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{stem}.md").write_text(page(results, date, command), encoding="utf-8")
    Path(f"{stem}.json").write_text(json.dumps(as_json(results), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    main()
