"""EvalResult -> one HTML page that needs nothing else: no network, no script; pictures and plots are inside.

Order of the page: what to believe (verdict and a figure per field), how it compares, whether it looks and reasons, how
training went, prices and how far to trust them, where it goes wrong, the worst and best products, facts, words.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from appraiser.evaluation.evaluate import EvalResult
from appraiser.evaluation.report.against import against_section
from appraiser.evaluation.report.breakdown import slices_section
from appraiser.evaluation.report.calibration import calibration_section
from appraiser.evaluation.report.comparison import comparison_section
from appraiser.evaluation.report.confusion import confusion_section
from appraiser.evaluation.report.curves import learning_curve_section, training_section
from appraiser.evaluation.report.facts import facts, glossary, more_figures
from appraiser.evaluation.report.gains import lead_section, picture_section
from appraiser.evaluation.report.judged import judge
from appraiser.evaluation.report.prices import price_section
from appraiser.evaluation.report.products import card_section, choose_cards
from appraiser.evaluation.report.reasoning import reasoning_section
from appraiser.evaluation.report.top import top
from appraiser.pages.page import render_page, with_sections


def render_report(result: EvalResult, gallery: str | None = None) -> str:
    """The whole page. Every text that comes from data is escaped; parts without scores are left out.

    Args:
        gallery: relative address of the page with all products; None if there is none.
    """
    scores = result.scores
    judged = judge(result.records, result.predictions, scores, result.neighbours)
    shown = choose_cards(judged)
    anchors = {product.row: f"{gallery}#product={product.row + 1}" for product in judged} if gallery else {}
    anchors |= {product.row: f"#{product.anchor}" for _, _, products in shown for product in products}
    sections = [
        ("numbers", "How it compares", comparison_section(scores)),
        ("lead", "How far ahead it is", lead_section(scores)),
        ("against", "Beside the other model", against_section(scores, anchors)),
        ("picture", "Does it need the picture?", picture_section(scores)),
        ("reasoning", "Does it follow what it sees?", reasoning_section(scores)),
        ("training", "How training went", training_section(scores)),
        ("more-data", "What more data would bring", learning_curve_section(scores)),
        ("prices", "Prices", price_section(result, anchors)),
        ("trust", "How far to trust a price", calibration_section(scores)),
        ("slices", "Errors by kind of product", slices_section(scores, gallery)),
        ("confusion", "Categories mixed up", confusion_section(scores)),
        *(
            (f"products-{i}", heading, card_section(note, products, gallery))
            for i, (heading, note, products) in enumerate(shown)
        ),
        ("figures", "More figures", more_figures(scores)),
        ("facts", "Facts", facts(scores)),
        ("units", "How to read the numbers", glossary(scores)),
    ]
    return render_page(
        f"Evaluation of {display_name(scores['model'])}",
        with_sections(top(result, gallery), sections),
        style=looks("cards.css") + looks("report.css"),
    )


def looks(name: str) -> str:
    """A style sheet of the report or the gallery."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def display_name(path: str) -> str:
    """What people call a model: `runs/demo` for its checkpoint `runs/demo/checkpoints/step-4`."""
    parts = Path(path).parts
    if "checkpoints" in parts:
        parts = parts[: parts.index("checkpoints")]
    return "/".join(parts[-2:]).lstrip("/") or path
