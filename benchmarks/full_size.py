"""Does the full-size model fit into an ordinary machine? Loading, answering, a LoRA step and a QLoRA step on a CPU.

    python benchmarks/make_full_size.py /tmp/full_size      # once, 8.3 GB
    python benchmarks/full_size.py /tmp/full_size [--stages load,answer,lora,qlora] [--threads 2]

Every stage is a process of its own. Memory is the largest sum of anonymous and shared pages while a phase runs
(RssAnon + RssShmem), asked every 10 ms; weights that are read in place are pages of a mapped file, which the system may
drop and read again, and are shown beside it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
import transformers
import workload

from appraiser.backbone import Backbone, load
from appraiser.config import RunConfig
from appraiser.training.gradients import step_gradients
from appraiser.training.optim import build_optimizers
from appraiser.training.preparation import prepare_model

STAGES = ("load", "answer", "lora", "qlora")
RANK = 32
NEW_TOKENS = 8
LEARNING_RATE = 1e-4
POLL_S = 0.01

Facts = dict[str, Any]


class Phases:
    """Times the phases of a stage and watches the memory of this process meanwhile."""

    def __init__(self) -> None:
        self.rows: list[Facts] = []

    @contextmanager
    def phase(self, name: str, **facts: Any) -> Iterator[Facts]:
        """One line of the table; what the body puts into the dict is added to it."""
        peak, over = resident_gb(), Event()
        row: Facts = {"phase": name, **facts}

        def watch() -> None:
            nonlocal peak
            while not over.wait(POLL_S):
                peak = tuple(map(max, peak, resident_gb()))

        watcher = Thread(target=watch)
        watcher.start()
        start, cpu = time.perf_counter(), time.process_time()
        try:
            yield row
        finally:
            row |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
            over.set()
            watcher.join()
        row |= {"peak_gb": peak[0], "peak_with_files_gb": peak[1], "after_gb": resident_gb()[0]}
        self.rows.append(row)


def resident_gb() -> tuple[float, float]:
    """Memory of this process now: anonymous and shared, and with the pages of mapped files that are in memory."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, shared, files = (int(fields[name].split()[0]) / 1e6 for name in ("RssAnon", "RssShmem", "RssFile"))
    return anonymous + shared, anonymous + shared + files


def measure(folder: str, stage: str) -> list[Facts]:
    """One stage, in this process."""
    phases = Phases()
    with phases.phase("the libraries alone"):
        pass
    if stage in ("load", "answer"):
        with phases.phase("load"):
            backbone = load(folder, dtype="bfloat16", num_crops=1)
        run = read_all if stage == "load" else answer
        run(backbone, phases)
    else:
        adapt(folder, phases, quantize="nf4" if stage == "qlora" else "none")
    return phases.rows


def read_all(backbone: Backbone, phases: Phases) -> None:
    """Touch every weight once: what is mapped is now in memory as well."""
    with phases.phase("every weight read once") as row, torch.inference_mode():
        row["finite"] = all(bool(torch.isfinite(weight.sum())) for weight in backbone.model.parameters())


def answer(backbone: Backbone, phases: Phases) -> None:
    rows = workload.examples(backbone, workload.pictures(1)[0])
    backbone.model.eval()
    [batch] = workload.batches(backbone, rows, 1)
    with torch.inference_mode():
        with phases.phase("forward, all logits", tokens=batch.num_tokens) as row:
            logits = backbone.model(**batch.inputs).logits
            row |= {"finite": bool(torch.isfinite(logits).all()), "largest": float(logits.abs().max())}
        del logits
        [batch] = workload.batches(backbone, workload.prompts(rows), 1, padding_side="left")
        with phases.phase(f"{NEW_TOKENS} tokens written", tokens=batch.num_tokens) as row:
            inputs = {name: value for name, value in batch.inputs.items() if name != "position_ids"}
            written = backbone.model.generate(
                **inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
            )
            row["num_written"] = written.shape[1] - batch.inputs["input_ids"].shape[1]


def adapt(folder: str, phases: Phases, *, quantize: str) -> None:
    """Two steps of LoRA on decoder, tower and projector, as `appraiser train` takes them."""
    config = RunConfig.model_validate(
        {
            "model": {
                "base": folder,
                "dtype": "bfloat16",
                "quantize": quantize,
                "num_crops": 1,
                "gradient_checkpointing": True,
            },
            "adapter": {"kind": "lora", "rank": RANK},
            "data": {"dataset": "unused"},
            "run": {"out": "unused", "batch_size": 1, "micro_batch_size": 1},
        }
    )
    with phases.phase("load, adapters attached") as row:
        backbone = prepare_model(config, None)  # type: ignore[arg-type]  # its crop budget is in the settings
        row["trained"] = sum(weight.numel() for weight in backbone.model.parameters() if weight.requires_grad)
    [batch] = workload.batches(backbone, workload.examples(backbone, workload.pictures(1)[0]), 1)
    backbone.model.train()
    with step_gradients(config, backbone) as gradients:
        optimizers = build_optimizers(backbone.model, learning_rate=LEARNING_RATE)
        for name in ("first step", "second step"):
            with phases.phase(name, tokens=batch.num_tokens) as row:
                row["loss"] = workload.take_step(gradients, optimizers, [batch])


def run_in_process(folder: Path, stage: str, threads: int) -> list[Facts]:
    """`measure` in a fresh process, so that memory is this stage's own."""
    request = json.dumps({"folder": str(folder), "stage": stage})
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--worker", request]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(stages: dict[str, list[Facts] | str], size_gb: float) -> str:
    """Markdown; peaks in GB, and as a share of the weights' size."""
    lines = [
        "| stage | phase | seconds | CPU seconds | peak GB | x size | with mapped files | after | notes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    known = {"phase", "seconds", "cpu_seconds", "peak_gb", "peak_with_files_gb", "after_gb"}
    for stage, rows in stages.items():
        if isinstance(rows, str):
            lines.append(f"| {stage} | {rows} | | | | | | | |")
            continue
        for row in rows:
            notes = ", ".join(
                f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value:,}"
                for key, value in row.items()
                if key not in known
            )
            peak = f"{row['peak_gb']:.2f} | {row['peak_gb'] / size_gb:.2f} | {row['peak_with_files_gb']:.2f}"
            lines.append(
                f"| {stage} | {row['phase']} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} | {peak} | "
                f"{row['after_gb']:.2f} | {notes} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a model, as make_full_size.py writes it")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(**json.loads(arguments.worker))))
        return
    if arguments.folder is None:
        parser.error("name the model's folder")
    size_gb = sum(file.stat().st_size for file in arguments.folder.glob("*.safetensors")) / 1e9
    stages: dict[str, list[Facts] | str] = {}
    for stage in arguments.stages.split(","):
        print(stage, file=sys.stderr)
        if stage == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
            stages[stage] = "bitsandbytes is not installed"
        else:
            stages[stage] = run_in_process(arguments.folder, stage, arguments.threads)
    print(
        f"{size_gb:.2f} GB of weights, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}\n"
    )
    print(table(stages, size_gb))
    print()
    print(json.dumps({"size_gb": size_gb, "threads": arguments.threads, "stages": stages}))


if __name__ == "__main__":
    main()
