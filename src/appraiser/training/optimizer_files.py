"""The optimizer's tensors on disk: safetensors, one file per rank, readable by any number of ranks.

A tensor of rank r's file is named `parameter::state` and holds rows [start, start + n) of the whole; which rows, and
how many the whole has, stands in the file's header. A rank that reads takes the rows it holds from the files that have
them.

torch's distributed checkpoints are pickle by default; these files hold tensors and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from appraiser.errors import CheckpointError
from appraiser.training.ranks import Ranks


def write_optimizers(
    folder: Path, optimizers: Sequence[Optimizer], names: dict[int, str], ranks: Ranks, *, is_sharded: bool
) -> None:
    """Write this rank's rows of every state tensor.

    Args:
        names: parameter names by `id(parameter)`.
        is_sharded: every rank holds a share (FSDP2); otherwise all hold the same and the first one writes.
    """
    if not is_sharded and not ranks.is_first:
        return
    tensors: dict[str, Tensor] = {}
    rows: dict[str, list[int]] = {}
    for optimizer in optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                name = f"{names[id(parameter)]}::{key}"
                local, start, total = _rows(torch.as_tensor(value))
                # Copies: safetensors refuses tensors that share memory.
                tensors[name] = local.detach().clone().contiguous().cpu()
                rows[name] = [start, total]
    folder.mkdir(parents=True, exist_ok=True)
    file = f"optimizer-{ranks.rank:05}-of-{ranks.size if is_sharded else 1:05}.safetensors"
    save_file(tensors, folder / file, metadata={"rows": json.dumps(rows)})


def read_optimizers(folder: Path, optimizers: Sequence[Optimizer], names: dict[int, str]) -> None:
    """Put saved state back, bit by bit.

    Raises:
        CheckpointError: the files are of other parameters.
    """
    pieces = _pieces(folder)
    for optimizer in optimizers:
        document = optimizer.state_dict()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        document["state"] = {
            number: state
            for number, parameter in enumerate(parameters)
            if (state := _state_of(parameter, names[id(parameter)], pieces))
        }
        optimizer.load_state_dict(document)
    unknown = sorted(set(pieces) - set(names.values()))
    if unknown:
        raise CheckpointError(
            f"the checkpoint trained parameters that this run does not train, among them {unknown[0]}",
            where=str(folder),
            fix="resume with the settings of the run",
        )


_Piece = tuple[Path, str, int, int]
"""File, name in it, first row, rows of the whole."""


def _pieces(folder: Path) -> dict[str, dict[str, list[_Piece]]]:
    found: dict[str, dict[str, list[_Piece]]] = {}
    for path in sorted(folder.glob("optimizer-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name, (start, total) in json.loads(file.metadata()["rows"]).items():
                parameter, _, key = name.rpartition("::")
                found.setdefault(parameter, {}).setdefault(key, []).append((path, name, start, total))
    return found


def _state_of(parameter: nn.Parameter, name: str, pieces: dict[str, dict[str, list[_Piece]]]) -> dict[str, Any]:
    return {key: _like(parameter, files) for key, files in pieces.get(name, {}).items()}


def _like(parameter: nn.Parameter, files: list[_Piece]) -> Tensor:
    """The whole tensor, or the rows of it that this rank's parameter holds."""
    total = files[0][3]
    if total == 0:  # a number, such as the count of steps: the same on every rank
        with safe_open(files[0][0], framework="pt") as file:
            return file.get_tensor(files[0][1])
    local, start, _ = _rows(parameter)
    end = start + len(local)
    parts = []
    for path, name, first, _ in sorted(files, key=lambda piece: piece[2]):
        with safe_open(path, framework="pt") as file:
            here = file.get_slice(name)
            last = first + here.get_shape()[0]
            if first < end and last > start:
                parts.append(here[max(start, first) - first : min(end, last) - first])
    rows = torch.cat(parts) if parts else torch.empty_like(local, device="cpu")
    if not isinstance(parameter, DTensor):
        return rows
    return DTensor.from_local(
        rows.to(local.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _rows(tensor: Tensor) -> tuple[Tensor, int, int]:
    """(local rows, number of the first, rows of the whole); 0 rows of the whole: a number without rows."""
    if tensor.ndim == 0:
        return tensor, 0, 0
    if not isinstance(tensor, DTensor):
        return tensor, 0, len(tensor)
    # fully_shard gives rank r the r-th chunk of dimension 0, as torch.chunk cuts it; the last ones may be empty.
    chunk = -(-tensor.shape[0] // tensor.device_mesh.size())
    start = min(tensor.shape[0], chunk * tensor.device_mesh.get_local_rank())
    return tensor.to_local(), start, tensor.shape[0]
