"""The frame of every page: its looks, its main part, and a policy that lets it load nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from appraiser.pages.words import escape


def render_page(title: str, main: str, *, style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        main: HTML; whatever comes from data has to be escaped in it.
        style: CSS of this kind of page, after the common one.
        script: JavaScript at the end of the page; no other script can run on it.
    """
    looks = "\n" + resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8") + style
    allowed = [f"style-src 'sha256-{_digest(looks)}'", *([f"script-src 'sha256-{_digest(script)}'"] if script else [])]
    policy = f"default-src 'none'; img-src data:; {'; '.join(allowed)}; base-uri 'none'; form-action 'none'"
    code = f"<script>{script}</script>\n" if script else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{looks}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{main}
</main>
{code}</body>
</html>
"""


def with_sections(lead: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The main part: a lead, links, and the sections (key, heading, HTML) that have content."""
    present = [(key, heading, content) for key, heading, content in sections if content]
    body = "\n".join(
        f'<section id="{key}" aria-labelledby="{key}-h">\n<h2 id="{key}-h">{heading}</h2>\n{content}\n</section>'
        for key, heading, content in present
    )
    links = "\n".join(f'<li><a href="#{key}">{heading}</a></li>' for key, heading, _ in present)
    return f'{lead}\n<nav aria-label="On this page"><ul>{links}</ul></nav>\n{body}'


def facts_table(rows: Sequence[tuple[str, str]], caption: str) -> str:
    """A table of (label, HTML of the value)."""
    lines = "\n".join(f'<tr><th scope="row">{escape(label)}</th><td>{value}</td></tr>' for label, value in rows)
    return f'<table class="facts"><caption class="sr">{escape(caption)}</caption><tbody>\n{lines}\n</tbody></table>'


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
