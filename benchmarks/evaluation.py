"""How fast are products answered, and are the answers the same? Three questions, one table each:

    python benchmarks/evaluation.py speed [--pictures 300] [--crops 4] [--dtype bfloat16]
        bench.json, random weights: the recipe one product at a time against ours, without and with kept features
    python benchmarks/evaluation.py answers RUN DATASET [--limit 300]
        a fully trained run: the recipe's answers, and ours one at a time, batched, from kept features; two dtypes

Picture processing is inside the clock, except for kept features, which are there before it starts. Every answer has 40
tokens: random weights end none, the ends' weights being zero. Modes run in turn, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import workload
from PIL import Image
from recipe_baseline import RecipeBaseline

from appraiser.backbone import DTYPES, Backbone, load, side_by_side
from appraiser.data.batches import Example, collate
from appraiser.data.dataset import open_dataset
from appraiser.data.pictures import decode
from appraiser.data.task import FieldValue
from appraiser.predict import Prediction, Predictor
from appraiser.trained_task import checkpoint_folder

NEW_TOKENS = 40
BATCH = 8
MODES = ("recipe", "ours", "ours, kept features")
COMPARED = [
    (f"{way}, {dtype}", f"{other}, {dtype}")
    for dtype in ("float32", "bfloat16")
    for way, other in (
        ("batched", "one at a time"),
        ("kept features", "one at a time"),
        ("one at a time", "recipe"),
        ("batched", "recipe"),
    )
] + [("recipe, bfloat16", "recipe, float32"), ("batched, bfloat16", "one at a time, float32")]
Facts = dict[str, Any]


# ------------------------------------------------------------------------------------------------------- speed


def measure(mode: str, images: list[Image.Image], crops: int, dtype: str, threads: int) -> Facts:
    """Seconds per product of one mode, and what it wrote."""
    torch.set_num_threads(threads)
    attention = "eager" if mode == "recipe" else "blocks"
    backbone = workload.build("bench", crops, attention=attention, dtype=DTYPES[dtype])
    backbone.model.eval()
    with torch.no_grad():
        backbone.model.lm_head.weight[[0, 1, 2]] = 0.0
    if mode == "recipe":
        written, seconds = _recipe(backbone, images, crops)
    else:
        written, seconds = _ours(backbone, images, kept=mode != "ours")
    return {"seconds": seconds / len(images), "written": written, "peak_gb": workload.peak_anonymous_gb()}


@torch.inference_mode()
def _recipe(backbone: Backbone, images: list[Image.Image], crops: int) -> tuple[list[list[int]], float]:
    runner = RecipeBaseline(backbone.model)
    started = time.perf_counter()
    written = []
    for row in _prompts(backbone, images):
        views = row.pictures[0]
        pixels = torch.zeros(crops + 1, *views.pixels.shape[1:])
        pixels[: len(views.pixels)] = views.pixels
        full = Example(row.record_id, row.input_ids, row.labels, (type(views)(pixels, views.size),))
        written.append(runner.generate(collate([full], backbone).inputs, NEW_TOKENS)[0].tolist())
    return written, time.perf_counter() - started


def _ours(backbone: Backbone, images: list[Image.Image], *, kept: bool) -> tuple[list[list[int]], float]:
    prompts = _prompts(backbone, images)
    if kept:
        prompts = [Example(p.record_id, p.input_ids, p.labels, tuple(backbone.see(p.pictures))) for p in prompts]

    @torch.inference_mode()
    def answer(rows: list[Example]) -> list[list[int]]:
        inputs = collate(rows, backbone, padding_side="left").inputs
        inputs.pop("position_ids")
        ids = backbone.model.generate(**inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
        return ids[:, -NEW_TOKENS:].tolist()

    started = time.perf_counter()
    if not kept:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # as `Predictor.prompts` does
            prompts = _prompts(backbone, images, pool.map)
    batches = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]
    with side_by_side(backbone) as in_turn:
        written = [row for batch in in_turn(answer, batches) for row in batch]
    return written, time.perf_counter() - started


def _prompts(backbone: Backbone, images: list[Image.Image], each: Callable[..., Any] = map) -> list[Example]:
    return workload.prompts(workload.examples(backbone, images, each=each))


def speed(arguments: argparse.Namespace) -> None:
    """Every mode in a process of its own, and the ratios to the first."""
    rows = {}
    for mode in MODES:
        command = [sys.executable, "-W", "ignore", __file__, "mode", mode, *(
            f"--{name}={getattr(arguments, name)}" for name in ("pictures", "crops", "dtype", "threads")
        )]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{mode} failed:\n{done.stderr[-3000:]}")
        rows[mode] = json.loads(done.stdout.splitlines()[-1])
    first = rows[MODES[0]]
    print(f"{arguments.pictures} products, {arguments.crops} crops, {arguments.dtype}, {arguments.threads} threads")
    for mode, facts in rows.items():
        equal = sum(a == b for a, b in zip(facts["written"], first["written"], strict=True)) / len(first["written"])
        print(
            f"{mode:24}{facts['seconds']:8.3f} s/product {first['seconds'] / facts['seconds']:6.2f}x "
            f"{facts['peak_gb']:6.2f} GB   {equal:.1%} of answers equal to the recipe's, token by token"
        )


# ----------------------------------------------------------------------------------------------------- answers


def answers(arguments: argparse.Namespace) -> None:
    """The same run asked in several ways; random weights would have near-ties, trained ones have few."""
    records = list(open_dataset(arguments.dataset).split("test"))[: arguments.limit]
    images = [[decode(data) for data in record.images] for record in records]
    texts: dict[str, list[str]] = {}
    prices: dict[str, list[FieldValue | None]] = {}
    times: dict[str, float] = {}

    def timed(name: str, answered: Callable[[], list[Prediction]]) -> None:
        started = time.perf_counter()
        found = answered()
        times[name] = time.perf_counter() - started
        texts[name], prices[name] = [one.text for one in found], [one.price for one in found]

    for dtype in ("float32", "bfloat16"):
        predictor = Predictor.load(arguments.run, dtype=dtype)
        texts[f"recipe, {dtype}"], times[f"recipe, {dtype}"] = _recipe_answers(arguments.run, dtype, predictor, images)
        timed(f"one at a time, {dtype}", lambda p=predictor: [p.predict([row])[0] for row in images])
        timed(f"batched, {dtype}", lambda p=predictor: p.predict(images))
        seen = list(predictor.prompts(images, see=True))
        timed(f"kept features, {dtype}", lambda p=predictor, seen=seen: p.answer(seen))
    print(f"{len(records)} products of {arguments.dataset}")
    for name, other in COMPARED:
        read = [[predictor.task.parse(text) for text in texts[way]] for way in (name, other)]
        pairs = list(zip(*read, strict=True))
        facts = {
            "texts": sum(a == b for a, b in zip(texts[name], texts[other], strict=True)),
            "parsed answers": sum(a == b for a, b in pairs),
            "titles and categories": sum(
                all(a.fields.get(field) == b.fields.get(field) for field in ("title", "category")) for a, b in pairs
            ),
        }
        if name in prices and other in prices:
            facts["prices of the distribution"] = sum(a == b for a, b in zip(prices[name], prices[other], strict=True))
        shares = ", ".join(f"{what} {count / len(pairs):.1%}" for what, count in facts.items())
        print(f"{name:24}{times[name]:7.1f} s   as {other}: {shares}")


@torch.inference_mode()
def _recipe_answers(
    run: Path, dtype: str, predictor: Predictor, images: list[list[Image.Image]]
) -> tuple[list[str], float]:
    """The recipe's answers, one product at a time, and the seconds; a run whose whole weights are in its folder."""
    backbone = load(checkpoint_folder(run), dtype=dtype, attention="eager")
    backbone.model.eval()
    runner, texts = RecipeBaseline(backbone.model), []
    started = time.perf_counter()
    for prompt in predictor.prompts(images):
        inputs = collate([prompt], backbone).inputs
        ids = runner.generate(inputs, predictor.max_new_tokens, backbone.stop_token_ids)
        texts.append(backbone.decode(ids[0].tolist()))
    return texts, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "mode"):
        command = commands.add_parser(name)
        if name == "mode":
            command.add_argument("name")
        command.add_argument("--pictures", type=int, default=300)
        command.add_argument("--crops", type=int, default=4)
        command.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
        command.add_argument("--threads", type=int, default=os.cpu_count())
    command = commands.add_parser("answers")
    command.add_argument("run", type=Path)
    command.add_argument("dataset", type=Path)
    command.add_argument("--limit", type=int, default=300)
    arguments = parser.parse_args()
    if arguments.command == "speed":
        speed(arguments)
    elif arguments.command == "answers":
        answers(arguments)
    else:
        some, _ = workload.pictures(min(arguments.pictures, 100))
        images = (some * (arguments.pictures // len(some) + 1))[: arguments.pictures]
        print(json.dumps(measure(arguments.name, images, arguments.crops, arguments.dtype, arguments.threads)))


if __name__ == "__main__":
    main()
