"""What does each part of ours contribute to a training step, and where does the rest of the time go?

    python benchmarks/training_parts.py [--crops 4,16] [--repeats 3]

bench.json in bfloat16, one picture per micro-batch, two threads; model and pictures of training_step.py. The first
table takes one part away at a time, in processes that take turns: how much slower the step becomes, as the median over
rounds. Below it the step as it is, under PyTorch's profiler: share of time by kind of operation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
import workload
from torch.profiler import ProfilerActivity, profile
from training_step import Mode, Ours, run_in_process

from appraiser.data.batches import Batch
from appraiser.phi3_v import elementwise, modeling_phi3_v, vision_phi3_v

WITHOUT = {
    "": "everything",
    "blocks": "attention in blocks (PyTorch's kernel instead)",
    "gradients": "gradients of norm, rotary embedding, quick-GELU by hand (autograd instead)",
    "answers": "last layer and logits for scored positions alone (all positions instead)",
}
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "aten::matmul"),
    "softmax, forward and backward": ("aten::_softmax", "aten::_softmax_backward_data"),
    "layer norm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "optimizer": ("Optimizer.step", "aten::_fused_adamw_", "aten::_foreach"),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::fill_", "aten::zero_", "aten::clone"),
}
Facts = dict[str, Any]


class Without(Ours):
    """Ours, less one part."""

    def __init__(self, mode: Mode, backbone: Any, part: str) -> None:
        super().__init__(mode, backbone)
        self.part = part
        if part == "gradients":
            vision_phi3_v.quick_gelu = elementwise.plain_quick_gelu
            modeling_phi3_v.rotate, modeling_phi3_v.rms_norm = elementwise.plain_rotate, elementwise.plain_rms_norm

    def loss(self, batch: Batch) -> torch.Tensor:
        return self.model(**batch.inputs, labels=batch.labels, answer_only=self.part != "answers", use_cache=False).loss


def measure(crops: int, part: str, num_pictures: int, threads: int, profiled: bool) -> Facts:
    """Seconds per picture without a part; or, with `profiled`, shares of time by kind of operation."""
    torch.set_num_threads(threads)
    mode = Mode("train", "plain", "bench", crops, "bfloat16", attention="sdpa" if part == "blocks" else "blocks")
    backbone = workload.build("bench", crops, attention=mode.attention, dtype=torch.bfloat16)
    rows = workload.examples(backbone, workload.pictures(num_pictures)[0])
    batches = workload.batches(backbone, rows, 1)
    runner = Without(mode, backbone, part)
    optimizers = torch.optim.AdamW([p for p in runner.model.parameters() if p.requires_grad], lr=1e-5)
    backbone.model.train()

    def step(batch: Batch) -> float:
        loss = runner.loss(batch)
        loss.backward()
        optimizers.step()
        optimizers.zero_grad()
        return loss.item()

    first = step(batches[0])
    started = time.perf_counter()
    if not profiled:
        for batch in batches:
            step(batch)
        return {"seconds": (time.perf_counter() - started) / len(rows), "loss": first}
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for batch in batches:
            step(batch)
    totals = dict.fromkeys([*KINDS, "other elementwise work"], 0.0)
    for event in found.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), "other elementwise work")
        totals[kind] += event.self_cpu_time_total
    whole = sum(totals.values())
    return {"shares": {kind: value / whole for kind, value in totals.items()}}


def in_process(*request: Any) -> Facts:
    threads = request[3]
    command = [sys.executable, "-W", "ignore", __file__, "--worker", json.dumps(request)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{request} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", default="4,16")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(*json.loads(arguments.worker))))
        return
    for crops in map(int, arguments.crops.split(",")):
        rest = (arguments.pictures, arguments.threads)
        rounds = [{part: in_process(crops, part, *rest, False) for part in WITHOUT} for _ in range(arguments.repeats)]
        mode = Mode("train", "recipe", "bench", crops, "bfloat16")
        recipe = run_in_process(mode, *rest)["seconds"]
        print(f"\n{crops} crops, without: {'':32} s/picture   against everything   loss of the first step")
        for part, name in WITHOUT.items():
            seconds = statistics.median(found[part]["seconds"] for found in rounds)
            slower = statistics.median(found[part]["seconds"] / found[""]["seconds"] for found in rounds)
            print(f"{name if part else '(nothing)':80} {seconds:8.3f} {slower:8.2f}x   {rounds[0][part]['loss']:.4f}")
        print(f"{'(the recipe)':80} {recipe:8.3f} {recipe / statistics.median(f['']['seconds'] for f in rounds):8.2f}x")
        shares = in_process(crops, "", *rest, True)["shares"]
        print(f"{crops} crops, share of time: " + ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items()))


if __name__ == "__main__":
    main()
