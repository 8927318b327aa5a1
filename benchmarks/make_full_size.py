"""Write a model of random weights in the published layout and size: 592 tensors, two shards with their index, 8.3 GB.

    python benchmarks/make_full_size.py OUT [--config full_size.json] [--seed 0]

For measurements only: it answers nonsense. Names and shapes come from the model class itself. Tensors are made and
written one at a time, so that the largest one (197 MB) and not the model has to fit in memory. The tokenizer is that of
phi3v-tiny, filled up with pieces that no text makes so that its control tokens have the published ids.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from workload import peak_anonymous_gb

from appraiser.backbone import load_reader
from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration, Phi3VImageProcessor
from appraiser.pretraining.tokenizer import added_tokens

HERE = Path(__file__).resolve().parent
CONFIG = HERE / "full_size.json"
STD = 0.02
SHARD_BYTES = 5_000_000_000
"""As transformers cut the published files."""
DTYPE, DTYPE_NAME = torch.bfloat16, "BF16"

Shapes = Mapping[str, tuple[int, ...]]


def write_model(out: Path, config: Phi3VConfig, *, seed: int = 0, shard_bytes: int = SHARD_BYTES) -> None:
    """Config, weights, tokenizer and preprocessor file of a model of random bfloat16 weights."""
    out.mkdir(parents=True, exist_ok=True)
    config.dtype = DTYPE
    config.save_pretrained(out)
    write_processor(out, config)
    write_weights(out, shapes_of(config), seed=seed, shard_bytes=shard_bytes)


def shapes_of(config: Phi3VConfig) -> Shapes:
    """Name and shape of every tensor, in the model's order."""
    with torch.device("meta"):
        model = Phi3VForConditionalGeneration(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def write_weights(out: Path, shapes: Shapes, *, seed: int, shard_bytes: int) -> None:
    """Shards of at most `shard_bytes`, and the index that says where every tensor is."""
    groups = shards(shapes, shard_bytes)
    files = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    generator = torch.Generator().manual_seed(seed)
    for file, names in zip(files, groups, strict=True):
        write_shard(out / file, {name: shapes[name] for name in names}, generator)
    index = {
        "metadata": {"total_size": sum(map(num_bytes, shapes.values()))},
        "weight_map": {name: file for file, names in zip(files, groups, strict=True) for name in sorted(names)},
    }
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def shards(shapes: Shapes, shard_bytes: int) -> list[list[str]]:
    """Names in order, cut before the tensor that would make a file too large."""
    groups: list[list[str]] = [[]]
    room = shard_bytes
    for name, shape in shapes.items():
        if num_bytes(shape) > room and groups[-1]:
            groups.append([])
            room = shard_bytes
        groups[-1].append(name)
        room -= num_bytes(shape)
    return groups


def write_shard(path: Path, shapes: Shapes, generator: torch.Generator) -> None:
    """One safetensors file, tensor by tensor; the library's own writer wants all of them in memory.

    Source: the format's specification: 8 bytes length, a JSON header with offsets, the bytes behind each other.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + num_bytes(shape)
        header[name] = {"dtype": DTYPE_NAME, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            file.write(random_tensor(name, shape, generator).view(torch.uint8).numpy())


def random_tensor(name: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Small random numbers; norms begin at one, so that logits stay finite through 32 layers."""
    is_norm = "norm" in name and name.endswith(".weight")
    return torch.empty(math.prod(shape), dtype=DTYPE).normal_(float(is_norm), STD, generator=generator)


def num_bytes(shape: Sequence[int]) -> int:
    return math.prod(shape) * DTYPE.itemsize


def write_processor(out: Path, config: Phi3VConfig) -> None:
    """phi3v-tiny's tokenizer with the control tokens behind `config.pad_token_id` pieces, and the picture settings."""
    processor = load_reader("phi3v-tiny").processor
    side = config.tokens_per_crop_side
    processor.image_processor = Phi3VImageProcessor(
        num_img_tokens=side * side, crop_size=config.clip_config["image_size"]
    )
    processor.save_pretrained(out)
    path = out / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["added_tokens"] = added_tokens(config.pad_token_id)
    vocab = tokenizer["model"]["vocab"]
    vocab |= dict(_unused_pieces(len(vocab), config.pad_token_id))
    path.write_text(json.dumps(tokenizer, ensure_ascii=False) + "\n", encoding="utf-8")


def _unused_pieces(start: int, end: int) -> Iterator[tuple[str, int]]:
    return ((f"<unused {number}>", number) for number in range(start, end))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG, help="a config.json; unset: the published one")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_model(arguments.out, Phi3VConfig.from_json_file(str(arguments.config)), seed=arguments.seed)
    size = sum(file.stat().st_size for file in arguments.out.glob("*.safetensors"))
    print(f"{arguments.out}: {size / 1e9:.2f} GB of weights; at most {peak_anonymous_gb():.2f} GB of memory used")


if __name__ == "__main__":
    main()
