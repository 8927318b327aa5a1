"""Benchmarks are run by hand, so a name that moved would go unnoticed: they have to import, and build their model."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_a_benchmark_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    importlib.import_module(name)


def test_the_work_of_all_modes_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    workload = importlib.import_module("workload")
    backbone = workload.build("tiny", 1, attention="eager", dtype=torch.float32)
    rows = workload.examples(backbone, workload.pictures(2)[0])
    (batch,) = workload.batches(backbone, rows, 2)
    assert backbone.model(**batch.inputs, labels=batch.labels, answer_only=True).loss > 0
    assert workload.training_flops(backbone.config, batch) > 1e9
