"""Draw docs/images/examples.png from a finished demo: the first six test products with truth and answer.

python docs/draw_examples.py runs/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from appraiser import Predictor, open_dataset
from appraiser.data.pictures import decode

SIDE, TEXT, COLUMNS = 300, 92, 3


def main(run: Path) -> None:
    """Answer and draw."""
    records = [open_dataset(run.with_name(f"{run.name}-data") / "dataset").split("test")[row] for row in range(6)]
    pictures = [decode(record.images[0]) for record in records]
    answers = Predictor.load(run).predict(pictures)
    rows = -(-len(records) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(13)
    for number, (record, picture, answer) in enumerate(zip(records, pictures, answers, strict=True)):
        x, y = number % COLUMNS * SIDE, number // COLUMNS * (SIDE + TEXT)
        sheet.paste(picture.resize((SIDE - 12, SIDE - 12)), (x + 6, y + 6))
        interval = answer.price_interval
        span = f" ({interval[0]:.0f} to {interval[1]:.0f})" if interval else ""
        price = "no price" if answer.price is None else f"{answer.price:g} {answer.currency}{span}"
        draw.text((x + 8, y + SIDE), answer.title or answer.text[:40], "black", bold)
        draw.text((x + 8, y + SIDE + 20), f"{answer.category}, {price}", "black", plain)
        draw.text((x + 8, y + SIDE + 44), "truth:", "#666", plain)
        draw.text((x + 52, y + SIDE + 44), f"{record.title}"[:40], "#666", plain)
        draw.text((x + 52, y + SIDE + 62), f"{record.category}, {record.price:g} {record.currency}", "#666", plain)
    target = Path(__file__).parent / "images"
    target.mkdir(exist_ok=True)
    sheet.save(target / "examples.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
