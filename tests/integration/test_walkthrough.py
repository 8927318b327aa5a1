"""docs/walkthrough.md runs as a test: its commands at a small scale, its numbers against the record of its run."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appraiser.evaluation.wandb_table import MAX_ROWS

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGE = (DOCS / "walkthrough.md").read_text(encoding="utf-8")
# What the page's commands are cut down to here: 120 rows instead of 3,040, four steps instead of 250.
SMALL = {
    "--rows 3040": "--rows 120 --size 112 --workers 1",
    "appraiser check runs/walk-data/dataset": "appraiser check runs/walk-data/dataset --workers 1",
    "run.steps=250": "run.steps=4 --set run.batch_size=16 --set run.eval_records=4",
    "run.eval_every=125": "run.eval_every=2",
    "examples/origin_metric.py runs/walk runs/walk-data/dataset": (
        "examples/origin_metric.py runs/walk runs/walk-data/dataset --steps 2 --limit 3"
    ),
}
# Numbers of the text that are no results: of the origin (its rows, tokens, steps), of settings, of file names.
TOLD = {"3,040", "7", "469", "511", "150", "64", "95", "300", "1", "2", "3", "4", "5", "6", "0"}
RESULT = re.compile(r"<!-- (\w+) -->\n(.*?)\n?<!-- end -->", re.S)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def commands() -> list[str]:
    """The commands of the fenced blocks without a language, in order."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, flags=re.S | re.M)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines]


def made_small(command: str) -> str:
    for large, small in SMALL.items():
        command = command.replace(large, small)
    return command


def test_what_is_cut_down_stands_in_the_page() -> None:
    assert [large for large in SMALL if large not in "\n".join(commands())] == []


def test_every_command_runs_and_leaves_what_the_page_names(
    appraiser: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in commands():
        name, *arguments = made_small(command).split()
        if name == "appraiser":
            outcome = appraiser(*arguments)
            assert outcome.code == 0, f"{command}\n{outcome.err}"
        elif name == "python":
            script, *arguments = arguments
            monkeypatch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
            assert capsys.readouterr().out.startswith("| mean price error in USD |")
        else:
            assert name == "wandb", f"the page has a command that this test does not know: {command}"
            program = Path(sys.executable).with_name("wandb")
            shown = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=True)
            assert "eval/price_median_ape" in shown.stdout
    named = set(re.findall(r"`(runs/walk[\w/.-]*)`", PAGE))
    assert {"runs/walk/report.html", "runs/walk/metrics.jsonl", "runs/walk/best"} <= named
    assert [name for name in sorted(named) if not Path(name).exists()] == []
    assert len(Path("runs/walk/samples.jsonl").read_text(encoding="utf-8").splitlines()) > 0
    tables = list(Path("runs/walk/wandb").glob("offline-run-*/files/media/table/*.json"))
    assert len(tables) == 1
    assert list(Path("runs/walk/wandb/artifacts").rglob("*"))


def test_every_number_comes_from_the_record_of_the_run() -> None:
    pytest.importorskip("PIL")
    record = json.loads((DOCS / "walkthrough_run.json").read_text(encoding="utf-8"))
    made = runpy.run_path(str(DOCS / "draw_walkthrough.py"))["blocks"](record)
    assert dict(RESULT.findall(PAGE)) == made
    results = set(NUMBER.findall("\n".join(made.values())))
    text = re.sub(r"^```.*?^```$|`[^`]*`|\]\([^)]*\)|^#.*?$", "", RESULT.sub("", PAGE), flags=re.S | re.M)
    unknown = set(NUMBER.findall(text)) - results - TOLD
    assert unknown == set(), "numbers of the text that no table has"
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables == [], "a table without its place for the run's numbers"


def test_what_the_page_says_of_the_run_is_so() -> None:
    """Sentences of the page that compare, against the record."""
    record = json.loads((DOCS / "walkthrough_run.json").read_text(encoding="utf-8"))
    models = {row["model"]: row for row in record["origin_metric"]["models"]}
    sees, blind, constant = (models[name] for name in ("fine-tuned", "trained without any picture", ONE_PRICE))
    assert blind["origin"]["mae"]["low"] < sees["origin"]["mae"]["value"] < blind["origin"]["mae"]["high"]
    assert sees["own"]["mae"]["value"] < constant["own"]["mae"]["value"] < blind["own"]["mae"]["value"]
    assert abs(sees["given"]["median_ape"]["value"] - blind["given"]["median_ape"]["value"]) < 0.01
    assert models["fine-tuned, with a white picture"]["origin"]["read_as_0"]["value"] == 1
    assert MAX_ROWS == 300


ONE_PRICE = "one price for everything"


def test_its_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"\]\((images/[\w.-]+)\)", PAGE)
    assert len(pictures) == 4
    assert [name for name in pictures if not 0 < (DOCS / name).stat().st_size < 200_000] == []
