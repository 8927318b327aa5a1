"""Models that only seem good are called out: one that never saw a picture, one that judges the background."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import appraiser.data.examples as examples
from appraiser import build_dataset, evaluate, train
from appraiser.config import config_from

BACKGROUNDS = {"BAGS": (200, 60, 60), "HATS": (60, 60, 200)}


def draw(rng: np.random.Generator, background: tuple[int, int, int]) -> Image.Image:
    """Something of any shape and colour, which says nothing, before a background that says it all."""
    image = Image.new("RGB", (96, 96), tuple(int(v) for v in np.clip(background + rng.normal(0, 8, 3), 0, 255)))
    left, top = rng.integers(14, 34, 2).tolist()
    right, bottom = rng.integers(60, 80, 2).tolist()
    shape = ImageDraw.Draw(image)
    (shape.ellipse if rng.random() < 0.5 else shape.rectangle)(
        (left, top, right, bottom), fill=tuple(rng.integers(0, 256, 3).tolist())
    )
    return image


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 products whose category is the colour of the studio's wall."""
    folder = tmp_path_factory.mktemp("leaky")
    rng = np.random.default_rng(0)
    with (folder / "products.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "category"])
        for number in range(240):
            category = list(BACKGROUNDS)[number % 2]
            draw(rng, BACKGROUNDS[category]).save(folder / f"{number}.png")
            table.writerow([number, f"{number}.png", category])
    build_dataset(folder / "products.csv", folder / "dataset", shares={"train": 0.6, "val": 0.1, "test": 0.3})
    return folder


def fine_tune(leaky: Path, out: str) -> Path:
    settings: dict[str, Any] = {
        "model": {"base": "phi3v-tiny", "attention": "eager", "num_crops": 1},
        "adapter": {"kind": "none"},
        "optim": {"learning_rate": 1e-3, "beta2": 0.95},
        "data": {"dataset": str(leaky / "dataset")},
        "run": {"out": str(leaky / out), "steps": 40, "batch_size": 8, "micro_batch_size": 8, "eval_every": 20,
                "eval_records": 16},
        "tracking": {"wandb": "off"},
    }  # fmt: skip
    return train(config_from(settings, "test")).out


@pytest.mark.slow
def test_a_model_that_judges_the_background_is_called_out(leaky: Path) -> None:
    result = evaluate(fine_tune(leaky, "run"), leaky / "dataset", before=False)
    scores = result.scores
    assert scores["category"]["accuracy"]["value"] > 0.9  # it seems good
    assert scores["controls"]["surroundings"]["category"]["accuracy"]["value"] > 0.9  # without the product as well
    assert any(line.startswith("WARNING: the rim of the picture alone") for line in result.verdict)
    assert not any("may not need the picture" in line for line in result.verdict)


def test_a_model_trained_without_pictures_is_called_out(leaky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as withheld:
        withheld.setattr(examples, "decode", lambda data: Image.new("RGB", (96, 96), (255, 255, 255)))
        run = fine_tune(leaky, "blind")
    result = evaluate(run, leaky / "dataset", before=False)
    found = result.scores["differences"]["shuffled"]["category"]
    assert found["gain"]["low"] <= 0
    assert found["p_value"] > 0.05
    assert any(line.startswith("WARNING: the model may not need the picture") for line in result.verdict)
    assert any("do NOT beat the baseline" in line for line in result.verdict)
