"""What does a long prompt cost, in chunks and in one pass? Memory above weights and cache, and time, as length grows.

    python benchmarks/long_context.py [--lengths 8192,16384,32768,65536,131072] [--one-pass-to 131072]

Prompts are pictures of 16 crops (2,509 tokens each) and a little text, read into a cache by a small model:
the published structure with 2 layers, 4 heads of 32, and a tower of 3 blocks 64 wide; fp32, random weights. Each row of
the table is a process of its own. Memory is the peak while reading less what was resident before (weights, pixels) and
less the cache itself; both ways must give the same last logits, or the script fails. With `--attention sdpa`:
PyTorch's kernel with a mask per chunk, as a model has that was not loaded for a CPU by `appraiser`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import workload
from transformers import DynamicCache

from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration
from appraiser.phi3_v.modeling_phi3_v import PREFILL_CHUNK

LENGTHS = (8192, 16384, 32768, 65536, 131072)
CROPS_PER_SIDE = 4
NEXT_TOKENS = 8
LOGIT_TOLERANCE = 1e-4  # fp32, sums in another order over up to 131,072 keys; logits have a deviation of 0.3
Facts = dict[str, Any]


def small_config(attention: str) -> Phi3VConfig:
    """bench.json with small widths; 131,072 positions and a window as long, as published."""
    settings = json.loads((workload.HERE / "bench.json").read_text())
    settings |= {
        "hidden_size": 128,
        "intermediate_size": 344,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "sliding_window": 131072,
    }
    for name in ("short_factor", "long_factor"):
        settings["rope_scaling"][name] = settings["rope_scaling"][name][::2]
    settings["img_processor"]["image_dim_out"] = 64
    settings["img_processor"]["clip_config"] |= {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    config = Phi3VConfig(**settings)
    config._attn_implementation = attention
    return config


def prompt(model: Phi3VForConditionalGeneration, length: int) -> dict[str, torch.Tensor]:
    """`length` tokens, as many as possible of them of pictures; all pictures share one picture's pixels in memory."""
    config = model.config
    side = CROPS_PER_SIDE * config.clip_config["image_size"]
    size = torch.tensor([[side, side]])
    tokens = model.model.vision_embed_tokens.num_tokens(size)[0]
    number = (length - 8) // (tokens + 1)
    ids = torch.randint(3, config.pad_token_id, (1, length))
    for picture in range(number):
        start = 4 + picture * (tokens + 1)  # between two pictures stands a BOS
        ids[0, start : start + tokens] = -(picture + 1)
    pixels = torch.randn(1, 1 + CROPS_PER_SIDE**2, 3, *[config.clip_config["image_size"]] * 2)
    return {
        "input_ids": ids,
        "pixel_values": pixels.expand(number, -1, -1, -1, -1),
        "image_sizes": size.expand(number, -1),
    }


def resident_mb(field: str) -> float:
    """`VmRSS`, or `VmHWM`: its peak since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


@torch.inference_mode()
def measure(length: int, chunk: int, attention: str, threads: int) -> Facts:
    """Read one prompt and feed a few tokens more."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Phi3VForConditionalGeneration(small_config(attention)).eval()
    read = {"use_cache": True, "logits_to_keep": 1, "prefill_chunk_size": chunk}
    model(torch.ones(1, 64, dtype=torch.long), **read)
    inputs = prompt(model, length)
    cache = DynamicCache(config=model.config)
    before = resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    wall, cpu = time.perf_counter(), time.process_time()
    logits = model(**inputs, past_key_values=cache, **read).logits[0, -1]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resident_mb("VmHWM")
    cache_mb = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) / 2**20
    next_cpu = time.process_time()
    for _ in range(NEXT_TOKENS):
        model(inputs["input_ids"][:, :1], past_key_values=cache, use_cache=True)
    return {
        "pictures": len(inputs["image_sizes"]),
        "seconds": wall,
        "cpu_seconds": cpu,
        "cache_mb": cache_mb,
        "above_mb": peak - before - cache_mb,
        "next_token_ms": (time.process_time() - next_cpu) / NEXT_TOKENS * 1e3,
        "logits": logits.tolist(),
    }


def in_process(length: int, chunk: int, arguments: argparse.Namespace) -> Facts:
    command = [sys.executable, "-W", "ignore", __file__, "--measure", str(length), "--chunk", str(chunk)]
    command += ["--attention", arguments.attention, "--threads", str(arguments.threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{length} tokens in chunks of {chunk} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="prompt lengths in tokens")
    parser.add_argument("--one-pass-to", type=int, default=LENGTHS[-1], help="longest prompt that is read in one pass")
    parser.add_argument("--chunk", type=int, default=PREFILL_CHUNK, help="tokens in a chunk (default: the model's own)")
    parser.add_argument("--attention", choices=("blocks", "sdpa"), default="blocks")
    parser.add_argument("--threads", type=int, default=1, help="one is steadier beside other work")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.chunk, arguments.attention, arguments.threads)))
        return
    started = time.perf_counter()
    print(f"chunks of {arguments.chunk} tokens; {arguments.attention}, {arguments.threads} threads, fp32")
    print(
        f"{'tokens':>8}{'pictures':>9}{'cache MB':>9} way      {'above MB':>9}{'s':>8}{'CPU s':>8}{'next token ms':>14}"
    )
    rows = []
    for length in map(int, arguments.lengths.split(",")):
        ways = {"chunks": arguments.chunk} | ({"one pass": length} if length <= arguments.one_pass_to else {})
        logits = []
        for way, chunk in ways.items():
            facts = in_process(length, chunk, arguments)
            logits.append(torch.tensor(facts.pop("logits")))
            rows.append({"tokens": length, "way": way} | facts)
            print(
                f"{length:8,}{facts['pictures']:9}{facts['cache_mb']:9.0f} {way:9}{facts['above_mb']:9.0f}"
                f"{facts['seconds']:8.1f}{facts['cpu_seconds']:8.1f}{facts['next_token_ms']:14.1f}",
                flush=True,
            )
        worst = max((other - logits[0]).abs().max().item() for other in logits)
        if worst > LOGIT_TOLERANCE:
            raise SystemExit(f"{length} tokens: the ways differ by {worst:.3g} in the last logits")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    facts = {"load": os.getloadavg()[0], "minutes": (time.perf_counter() - started) / 60, **versions}
    print(json.dumps(facts | {"rows": rows}))


if __name__ == "__main__":
    main()
