"""Every command as a user types it, one after the other, on a very small model: what it prints, what it leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_backbone

FEW_STEPS = (
    "run.steps=2", "run.batch_size=4", "run.micro_batch_size=2", "run.eval_every=2", "run.eval_records=2",
    "tracking.wandb=off",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    tiny_backbone(folder / "model")
    return folder


def test_the_road_by_commands(appraiser: Callable[..., Any], root: Path) -> None:
    catalogue, dataset, run = root / "catalogue", root / "dataset", root / "run"

    outcome = appraiser("sample", catalogue, "--rows", 60, "--seed", 3, "--size", 64, "--workers", 1)
    assert outcome.code == 0, outcome.err
    assert re.match(r"Drew 60 products in .*\. An oracle .* is off by \d+\.\d% \(median\)\.\n", outcome.out)
    assert outcome.out.splitlines()[-1] == f"Try: appraiser build {catalogue} dataset"
    assert len(list((catalogue / "images").iterdir())) == 60

    outcome = appraiser("build", catalogue, dataset)
    assert outcome.code == 0, outcome.err
    assert "60 rows: 60 kept, none left out." in outcome.out

    steps = [part for setting in FEW_STEPS for part in ("--set", setting)]
    base = ("--set", f"model.base={root / 'model'}")
    outcome = appraiser("train", dataset, "--out", run, *base, *steps, "--json")
    assert outcome.code == 0, outcome.err
    trained = json.loads(outcome.out)
    assert (trained["steps"], trained["out"]) == (2, str(run))
    assert 0 <= trained["validation"]["parse_rate"]["value"] <= 1

    outcome = appraiser("evaluate", run, dataset, "--limit", 4)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == f"Report: {run / 'report.html'}"
    assert json.loads((run / "report.json").read_text())["n"] == 4

    picture = sorted((catalogue / "images").iterdir())[0]
    outcome = appraiser("predict", run, picture, "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)
    assert row["picture"] == str(picture)
    assert {"price_low", "price_high", "confidence", "parsed", "text"} <= row.keys()


def test_sample_prints_its_facts_as_json(appraiser: Callable[..., Any], tmp_path: Path) -> None:
    outcome = appraiser("sample", tmp_path / "catalogue", "--rows", 5, "--size", 64, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["out"] == str(tmp_path / "catalogue")
    assert document["rows"] == 5
    truth = json.loads((tmp_path / "catalogue" / "truth.json").read_text())
    assert document["oracle_median_ape"] == truth["oracle_median_ape"]
