"""Draw docs/images/sheet.jpg: sixty sample pictures, 6 x 10, each with its title below."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from appraiser.data.samples.items import draw_item, iter_products
from appraiser.data.samples.titles import make_title

COLUMNS, ROWS, SIDE, BELOW = 10, 6, 224, 34
SEED = 2026


def main(path: Path) -> None:
    """Draw the first item of each of sixty products; 28 types come up at least once."""
    chosen, seen = [], set()
    for entry in iter_products(2000, SEED):
        if entry.product_id not in seen:
            seen.add(entry.product_id)
            chosen.append(entry)
    by_type = list({entry.product.type: entry for entry in chosen}.values())
    chosen = (by_type + [entry for entry in chosen if entry not in by_type])[: COLUMNS * ROWS]
    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * (SIDE + BELOW)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for place, entry in enumerate(chosen):
        x, y = place % COLUMNS * SIDE, place // COLUMNS * (SIDE + BELOW)
        sheet.paste(draw_item(entry, SEED, 336).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
        for line, text in enumerate(_two_lines(make_title(entry.product))):
            pen.text((x + SIDE / 2, y + SIDE + 8 + 14 * line), text, fill=(40, 40, 40), anchor="mm")
    sheet.save(path, quality=82)


def _two_lines(title: str) -> list[str]:
    words = title.split()
    half = next((k for k in range(len(words)) if len(" ".join(words[:k])) >= len(title) / 2), len(words))
    return [" ".join(words[:half]), " ".join(words[half:])] if len(title) > 30 else [title]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images" / "sheet.jpg")
