"""Fill docs/walkthrough.md with the numbers of its run, and draw its pictures.

python docs/draw_walkthrough.py runs/walk      (the run's data set and catalogue lie in runs/walk-data)

walkthrough_run.json keeps what the run left: every number of the page's tables comes from there, written between
`<!-- name -->` and `<!-- end -->`. The test of the page makes the same tables again and compares.
"""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parent
PAGE, RECORD = DOCS / "walkthrough.md", DOCS / "walkthrough_run.json"
ORIGIN_METRIC = DOCS.parent / "examples" / "origin_metric.py"
PICTURE = "images/000000.jpg"  # the catalogue's first; a test product
NAMES = {
    "global_median": "one price for everything",
    "prior": "the best guess without a picture",
    "category_median": "median price of the *true* category",
    "knn": "nearest neighbours",
    "ridge": "linear model on the tower before fine-tuning",
    "shuffled": "with another product's picture",
    "same_category": "with a picture of the same category",
    "blank": "with a white picture",
    "surroundings": "with the rim of the picture alone",
}
COLUMNS = (
    ("half of the prices off by at most", "price", "median_ape", "{:.1%}"),
    ("prices within 20 %", "price", "within_20", "{:.1%}"),
    ("categories right", "category", "accuracy", "{:.1%}"),
    ("title chrF", "title", "chrf", "{:.1f}"),
)
VALIDATION = (
    ("half of the prices off by", "eval/price_median_ape", "{:.1%}"),
    ("categories right", "eval/category_accuracy", "{:.1%}"),
    ("title chrF", "eval/title_chrf", "{:.1f}"),
    ("answers read", "eval/parse_rate", "{:.1%}"),
)


def collect(run: Path, plan: str, prediction: str) -> dict[str, Any]:
    """What the run left behind, as far as the page tells it.

    Args:
        plan: what the page's `train --dry-run` wrote to stderr.
        prediction: what its `predict` printed.
    """
    data = run.with_name(f"{run.name}-data")
    manifest, check = (_json(data / "dataset" / name) for name in ("manifest.json", "check.json"))
    report = _json(run / "report.json")
    parts = {"fine-tuned phi3v-tiny": report, "the same before fine-tuning": report["before"]}
    parts |= {NAMES[name]: part for name, part in (report["controls"] | report["baselines"]).items()}
    parts["oracle (knows the rule, not the noise)"] = report["oracle"]
    scores = {
        name: {f"{field}/{metric}": part.get(field, {}).get(metric) for _, field, metric, _ in COLUMNS}
        for name, part in parts.items()
    }
    return {
        "build": {key: manifest[key] for key in ("rows_in", "ok", "quarantined", "splits")} | manifest["grouping"],
        "oracle_median_ape": manifest["sample"]["oracle_median_ape"],
        "check": {key: check[key] for key in ("records", "records_with_issues")},
        "plan": re.sub(r" +$", "", re.findall(r"^\d+ records.*?tower [\d.]+\.$", plan, re.S | re.M)[0], flags=re.M),
        "curves": {
            key: report["curves"][key] for key in ("train/loss", "train/seconds", *(key for _, key, _ in VALIDATION))
        },
        "validation_records": min(report["settings"]["run"]["eval_records"], manifest["splits"]["val"]),
        "versions": report["versions"] | {"appraiser": report["appraiser"]},
        "scores": scores,
        "verdict": report["verdict"],
        "prediction": prediction.strip(),
        "origin_metric": _json(run / "origin_metric.json"),
    }


def _appraiser(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "appraiser", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "110"})


def blocks(found: dict[str, Any]) -> dict[str, str]:
    """Every table and printed line of the page that holds numbers of the run, by the name of its place."""
    step, seconds = found["curves"]["train/seconds"][-1]
    return {
        "run": f"{step} steps took {seconds:,.0f} s. Answers to {found['validation_records']} validation products:",
        "build": _build_lines(found["build"]),
        "check": f"{found['check']['records']:,} products checked, {found['check']['records_with_issues']} to look at.",
        "plan": f"```text\n{found['plan']}\n```",
        "validation": _validation_table(found),
        "scores": _score_table(found["scores"]),
        "verdict": "\n".join(f"- {sentence}" for sentence in found["verdict"]),
        "prediction": f"```text\n{found['prediction']}\n```",
        "origin": runpy.run_path(str(ORIGIN_METRIC))["as_table"](found["origin_metric"]),
    }


def _build_lines(build: dict[str, Any]) -> str:
    splits = ", ".join(f"{count:,} {name}" for name, count in build["splits"].items())
    return (
        "| | |\n| --- | --- |\n"
        f"| rows in, kept, left out | {build['rows_in']:,}, {build['ok']:,}, {build['quarantined']:,} |\n"
        f"| products per split | {splits} |\n"
        f"| product groups, the largest | {build['num_groups']:,.0f}, {build['largest_group']:.0f} rows |\n"
        f"| test products with a variant in training | {build['split_leak']:.0%} |\n"
        f"| the same, had the split been by row | {build['row_split_leak']:.0%} |"
    )


def _validation_table(found: dict[str, Any]) -> str:
    head = "| step | " + " | ".join(name for name, *_ in VALIDATION) + " |\n" + "| --- " * (len(VALIDATION) + 1) + "|"
    curves = [dict(map(tuple, found["curves"][key])) for _, key, _ in VALIDATION]
    lines = [
        f"| {step} | "
        + " | ".join(form.format(curve[step]) for (*_, form), curve in zip(VALIDATION, curves, strict=True))
        + " |"
        for step in curves[0]
    ]
    return "\n".join([head, *lines])


def _score_table(scores: dict[str, Any]) -> str:
    head = "| | " + " | ".join(name for name, *_ in COLUMNS) + " |\n" + "| --- " * (len(COLUMNS) + 1) + "|"
    lines = []
    for name, part in scores.items():
        shown = [(part[f"{field}/{metric}"], form) for _, field, metric, form in COLUMNS]
        cells = ["-" if score is None else form.format(score["value"]) for score, form in shown]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([head, *lines])


def filled(page: str, texts: dict[str, str]) -> str:
    """The page with each text between its marks."""
    for name, text in texts.items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        assert page.count(start) == 1, f"the page has {page.count(start)} places for {name}"
        before, after = page.split(start)
        page = f"{before}{start}{text}\n{after[after.index(end) :]}"
    return page


# Pictures


def draw_group(catalogue: Path, path: Path) -> None:
    """The first product of four or more colours: rows that a split by row would scatter over training and test."""
    with (catalogue / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_name.setdefault(row["title"].partition(" ")[2], []).append(row)
    group = next(rows for rows in by_name.values() if len(rows) >= 4 and len({row["price"] for row in rows}) == 1)[:4]
    tiles = [
        (_picture(catalogue / row["image"]), [row["title"], f"{row['category3_code']}, {float(row['price']):g} USD"])
        for row in group
    ]
    _sheet(tiles, columns=4, side=230).save(path, quality=85)


def draw_answers(run: Path, path: Path) -> None:
    """Eight test products with truth and answer, at even steps from the best price to the worst."""
    from appraiser import Predictor, open_dataset
    from appraiser.data.pictures import decode

    records = list(open_dataset(run.with_name(f"{run.name}-data") / "dataset").split("test"))
    answers = Predictor.load(run).predict([[decode(data) for data in record.images] for record in records])
    errors = [abs((answer.price or 0) / record.price - 1) for record, answer in zip(records, answers, strict=True)]
    order = sorted(range(len(records)), key=errors.__getitem__)
    tiles = []
    for place in range(8):
        row = order[round(place * (len(order) - 1) / 7)]
        record, answer = records[row], answers[row]
        interval = "({:.0f} to {:.0f})".format(*answer.price_interval) if answer.price_interval else ""
        price = "no price" if answer.price is None else f"{answer.price:.0f} {answer.currency} {interval}"
        tiles.append(
            (
                decode(record.images[0]),
                [
                    str(answer.title), f"{answer.category}, {price}",
                    f"truth: {record.title}", f"{record.category}, {record.price:g} USD: off by {errors[row]:.1%}",
                ],
            )
        )  # fmt: skip
    _sheet(tiles, columns=4, side=270).save(path, quality=82)


def draw_curve(found: dict[str, Any], path: Path) -> None:
    """Training loss and the price error of the validations, step by step; drawn twice as large, then made smaller."""
    width, height, left, right, top, bottom = 1440, 620, 110, 130, 60, 80
    image = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(24)
    loss, error = found["curves"]["train/loss"], found["curves"]["eval/price_median_ape"]
    last, most = loss[-1][0], 4 * ceil(max(value for _, value in loss) / 4)

    def at(step: float, share: float) -> tuple[float, float]:
        return left + step / last * (width - left - right), height - bottom - share * (height - top - bottom)

    for tick in range(5):
        y = at(0, tick / 4)[1]
        draw.line([(left, y), (width - right, y)], "#ddd", 2)
        draw.text((left - 12, y), f"{most * tick / 4:g}", "#1a5fb4", font, anchor="rm")
        draw.text((width - right + 12, y), f"{tick * 5} %", "#b3541e", font, anchor="lm")
    for step in range(0, last + 1, 50):
        draw.text((at(step, 0)[0], height - bottom + 14), str(step), "#333", font, anchor="mt")
    draw.line([at(step, value / most) for step, value in loss], "#1a5fb4", 5, joint="curve")
    for step, value in error:
        x, y = at(step, value / 0.2)
        draw.ellipse((x - 11, y - 11, x + 11, y + 11), "#b3541e")
        draw.text((x - 18, y), f"{value:.1%}", "#b3541e", font, anchor="rm")
    draw.text((left - 12, 16), "training loss", "#1a5fb4", font)
    draw.text((width - right, 16), "price error on validation (median)", "#b3541e", font, anchor="ra")
    draw.text(((left + width - right) / 2, height - 12), "step", "#333", font, anchor="mb")
    image.resize((width // 2, height // 2), Image.Resampling.LANCZOS).save(path, optimize=True)


def draw_scatter(report: Path, path: Path) -> None:
    """The price plot of the report page, nothing else of it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-quic"]
        )
        page = chromium.new_page(
            color_scheme="light", viewport={"width": 1200, "height": 1000}, device_scale_factor=1.5
        )
        page.goto(report.resolve().as_uri())
        page.locator("svg[aria-label^='Predicted against true']").first.screenshot(path=path)
        chromium.close()
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _sheet(tiles: Sequence[tuple[Image.Image, list[str]]], columns: int, side: int) -> Image.Image:
    """Pictures with lines of text below, the first one in black."""
    line = 18
    below = line * max(len(lines) for _, lines in tiles) + 14
    sheet = Image.new("RGB", (columns * side, -(-len(tiles) // columns) * (side + below)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (picture, lines) in enumerate(tiles):
        x, y = place % columns * side, place // columns * (side + below)
        sheet.paste(picture.resize((side - 12, side - 12), Image.Resampling.LANCZOS), (x + 6, y + 6))
        for number, text in enumerate(lines):
            font = _fitting(text, side - 12)
            draw.text((x + 8, y + side + line * number), text, "black" if number < 2 else "#666", font)
    return sheet


def _fitting(text: str, width: int) -> Any:
    """The largest font in which the text is not wider; a cut title would not be the model's answer."""
    fonts = [ImageFont.load_default(size) for size in (14, 13, 12, 11, 10, 9)]
    return next((font for font in fonts if font.getlength(text) <= width), fonts[-1])


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main(run: Path) -> None:
    """Record, page, pictures."""
    data, images = run.with_name(f"{run.name}-data"), DOCS / "images"
    plan = _appraiser("train", data / "dataset", "--recipe", "demo", "--dry-run").stderr
    found = collect(run, plan, _appraiser("predict", run, data / "catalogue" / PICTURE).stdout)
    RECORD.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), blocks(found)), encoding="utf-8")
    draw_group(data / "catalogue", images / "walkthrough_group.jpg")
    draw_answers(run, images / "walkthrough_answers.jpg")
    draw_curve(found, images / "walkthrough_curve.png")
    draw_scatter(run / "report.html", images / "walkthrough_prices.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
