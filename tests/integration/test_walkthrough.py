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
# Numbers of the text that are no results: of the origin (rows, tokens, batches), of settings, intervals, headings.
TOLD = {"3,040", "7", "512", "150", "64", "300", "95", "3", "1", "2", "4", "5", "6", "0"}
RESULT = re.compile(r"<!-- (\w+) -->\n(.*?)\n?<!-- end -->", re.S)
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
DRAW = runpy.run_path(str(DOCS / "draw_walkthrough.py"))
MARKED = dict(RESULT.findall(PAGE))


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "walkthrough_run.json").read_text(encoding="utf-8"))
    return found


def commands() -> list[str]:
    """The commands of the fenced blocks without a language, in order."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.S | re.M)
    lines = "".join(text for language, text in blocks if not language).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines]


def made_small(command: str) -> str:
    for large, small in SMALL.items():
        command = command.replace(large, small)
    return command


def shape(block: str) -> list[str]:
    """What has to be the same in every run: of a table the rows' names and number of cells, of other lines the words.

    Words of a block in a fence, or of a list, depend on the products.
    """
    if block.startswith(("```", "-")):
        return [block[:3]]
    lines = [NUMBER.sub("#", line) for line in block.splitlines() if not line.startswith("Read worst")]
    return [f"{line.split('|')[1]}{line.count('|')}" if line.startswith("|") else line for line in lines]


def test_what_is_cut_down_stands_in_the_page() -> None:
    assert [large for large in SMALL if large not in "\n".join(commands())] == []


def test_every_command_runs_and_leaves_what_the_page_names(
    appraiser: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    shown: dict[str, str] = {}
    for command in commands():
        name, *arguments = made_small(command).split()
        if name == "appraiser":
            outcome = appraiser(*arguments)
            assert outcome.code == 0, f"{command}\n{outcome.err}"
            shown[arguments[0]] = outcome.out
            if "--dry-run" in arguments:
                shown["plan"] = outcome.err
        elif name == "python":
            script, *arguments = arguments
            monkeypatch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
            shown[script] = capsys.readouterr().out
        else:
            assert name == "wandb", f"the page has a command that this test does not know: {command}"
            program = Path(sys.executable).with_name("wandb")
            viewer = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=True)
            assert "eval/price_median_ape" in viewer.stdout

    named = set(re.findall(r"`(runs/walk[\w/.-]*)`", PAGE))
    assert {"runs/walk/report.html", "runs/walk/metrics.jsonl", "runs/walk/best"} <= named
    assert [name for name in sorted(named) if not Path(name).exists()] == []
    assert len(Path("runs/walk/samples.jsonl").read_text(encoding="utf-8").splitlines()) > 0
    tables = list(Path("runs/walk/wandb").glob("offline-run-*/files/media/table/*.json"))
    assert sorted({table.name.split("_")[0] for table in tables}) == ["Validation Samples", "evaluation"]
    assert list(Path("runs/walk/wandb/artifacts").rglob("*"))

    made = DRAW["blocks"](DRAW["collect"](Path("runs/walk"), shown["plan"], shown["predict"]))
    assert {name: shape(text) for name, text in made.items()} == {name: shape(text) for name, text in MARKED.items()}
    assert shown["examples/origin_metric.py"].strip() == made["origin"]
    assert "The picture reaches the model: another one changes the logits" in made["plan"]
    assert re.search(r"000000\.jpg: .+, [A-Z ]+", made["prediction"])


def test_every_number_comes_from_the_record_of_the_run(record: dict[str, Any]) -> None:
    made = DRAW["blocks"](record)
    assert made == MARKED
    results = set(NUMBER.findall("\n".join(made.values())))
    text = re.sub(r"^```.*?^```$|`[^`]*`|\]\([^)]*\)|^#.*?$", "", RESULT.sub("", PAGE), flags=re.S | re.M)
    unknown = set(NUMBER.findall(text)) - results - TOLD
    assert unknown == set(), "numbers of the text that no table has"
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables == [], "a table without its place for the run's numbers"


def test_what_the_page_says_of_the_run_is_so(record: dict[str, Any]) -> None:
    """Sentences of the page that compare, against the record."""
    found = record["origin_metric"]
    models = {row["model"]: row for row in found["models"]}
    sees, blind, before, constant = (
        models[name]
        for name in ("fine-tuned", "trained without any picture", "before fine-tuning", "one price for everything")
    )
    worse_by = found["blind_worse_by"]
    assert worse_by["origin"]["low"] < 0 < worse_by["origin"]["high"], "the origin's metric sees a difference"
    assert worse_by["own"]["low"] > 0
    assert sees["own"]["mae"]["value"] < constant["own"]["mae"]["value"] < blind["own"]["mae"]["value"]
    assert abs(sees["given"]["median_ape"]["value"] - blind["given"]["median_ape"]["value"]) < 0.01
    assert before["own"]["mae"]["value"] > 6 * sees["own"]["mae"]["value"]
    assert before["origin"]["mae"]["value"] < 1.5 * sees["origin"]["mae"]["value"]
    assert models["fine-tuned, with a white picture"]["origin"]["read_as_0"]["value"] == 1
    assert found["steps_without_pictures"] == record["curves"]["train/seconds"][-1][0]
    assert MAX_ROWS == 300


def test_its_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"\]\((images/[\w.-]+)\)", PAGE)
    assert len(pictures) == 4
    assert [name for name in pictures if not 0 < (DOCS / name).stat().st_size < 150_000] == []
