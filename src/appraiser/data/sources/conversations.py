"""The conversation JSON that other trainers read: pictures, and what was said about them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appraiser.data.sources.source import Rows, not_utf8
from appraiser.data.task import Task
from appraiser.errors import DataError

BARE_PRICE = re.compile(r" [0-9.,]+\s*$")


def read_conversations(path: Path) -> tuple[list[str], Rows]:
    """Pictures and what was said about them, as LLaVA (`conversations`) or chat (`messages`) files have it.

    The first answer counts: taken apart where all are in the form of ours, a title otherwise.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is no JSON: {error}", fix="write it again") from None
    if not isinstance(entries, list):
        raise DataError(f"{path.name} is no list of conversations", fix="one object per conversation, in a list")
    table = [_conversation(entry, number, path) for number, entry in enumerate(entries, start=1)]
    texts = [row["answer"] for row in table if row["answer"]]
    parsed = [Task().parse(text) for text in texts]
    # Of `£9`, taken apart, only the 9 would be left.
    if parsed and all(answer.is_complete for answer in parsed) and all(map(BARE_PRICE.search, texts)):
        answers = iter(parsed)
        table = [row | (next(answers).fields if row["answer"] else {}) for row in table]
    else:
        table = [row | {"title": row["answer"]} for row in table]
    columns = list(dict.fromkeys(name for row in table for name in row))
    return columns, lambda: iter(enumerate(table, start=1))


def _conversation(entry: Any, number: int, path: Path) -> dict[str, Any]:
    """id, images, question, answer of one conversation; the whole of it as well where it has more than that."""
    turns = (entry.get("conversations") or entry.get("messages")) if isinstance(entry, Mapping) else None
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(
            f"entry {number} has neither conversations nor messages",
            where=path.name,
            fix='it needs "conversations": [{"from": "human", "value": ...}, ...] or "messages": [{"role": ...}, ...]',
        )
    said: dict[str, list[str]] = {"user": [], "assistant": []}
    shown: list[str] = []
    for turn in turns:
        speaker = str(turn.get("from", turn.get("role", ""))).lower()
        role = {"human": "user", "gpt": "assistant"}.get(speaker, speaker)
        texts, pictures = _content(turn.get("value", turn.get("content")))
        said.setdefault(role, []).extend(texts)
        shown += pictures
    images = entry.get("images", entry.get("image", shown))
    row = {
        "id": entry.get("id"),
        "images": [images] if isinstance(images, str) else images,
        "question": next(iter(said["user"]), None),
        "answer": next(iter(said["assistant"]), None),
    }
    if sum(map(len, said.values())) > 2:
        row["conversation"] = json.dumps(turns, ensure_ascii=False)
    return row


def _content(content: Any) -> tuple[list[str], list[str]]:
    """Texts and pictures of a turn, which is a text or a list of parts."""
    texts: list[str] = []
    pictures: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, Mapping):
            place = part.get("image", part.get("image_url", part.get("url")))
            place = place.get("url") if isinstance(place, Mapping) else place
            pictures += [place] if isinstance(place, str) else []
    return texts, pictures
