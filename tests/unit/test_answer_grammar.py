"""Whatever tokens a model prefers: an answer within the grammar can be read, and closed fields hold known values."""

from __future__ import annotations

import random

import pytest

from appraiser.answer_grammar import MAX_PRICE_TOKENS, MAX_TEXT_TOKENS, AnswerGrammar, closed_answers
from appraiser.backbone import Reader, load_reader
from appraiser.data.task import QUESTIONS, Task
from appraiser.errors import ConfigError
from appraiser.trained_task import TrainedTask

CATEGORIES = ("COATS", "T-SHIRTS", "T-SHIRTS & TOPS", "a, Full Price: 3", "Handtaschen")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader("phi3v-tiny")


def walk(grammar: AnswerGrammar, reader: Reader, rng: random.Random) -> list[int]:
    """An answer of a model that likes all tokens alike."""
    ids: list[int] = []
    while not ids or ids[-1] not in reader.stop_token_ids:
        ids.append(rng.choice(grammar.allowed(ids)))
        assert len(ids) <= grammar.max_tokens
    return ids


@pytest.mark.parametrize("language", QUESTIONS)
@pytest.mark.parametrize(
    "fields",
    [("title", "category", "price"), ("category",), ("price", "category"), ("category", "title"), ("title",)],
)
def test_any_walk_can_be_read(reader: Reader, language: str, fields: tuple[str, ...]) -> None:
    task = Task(fields, language=language)  # type: ignore[arg-type]
    closed = {"category": CATEGORIES} if "category" in fields else {}
    grammar = AnswerGrammar(reader, task, closed)
    rng = random.Random(0)
    for _ in range(25):
        parsed = task.parse(reader.decode(walk(grammar, reader, rng)))
        assert parsed.is_complete
        if "category" in fields:
            assert parsed.fields["category"] in CATEGORIES


def test_every_value_can_be_reached_in_the_tokens_that_training_writes(reader: Reader) -> None:
    task = Task()
    grammar = AnswerGrammar(reader, task, {"category": CATEGORIES})
    for category in CATEGORIES:
        for price in (5.0, 1290.0, 109.99, 0.5):
            answer = task.format({"title": "Mini Check, Wool Coat", "category": category, "price": price})
            ids = reader.completion_ids(answer)
            ids = ids[: ids.index(reader.stop_token_ids[0]) + 1]
            for place, token in enumerate(ids):
                assert token in grammar.allowed(ids[:place]), (category, reader.decode(ids[:place]))


def test_a_title_that_never_ends_is_ended(reader: Reader) -> None:
    grammar = AnswerGrammar(reader, Task(), {})
    word = reader.text_ids("Coat")
    ids = reader.text_ids("Product:")
    for _ in range(MAX_TEXT_TOKENS):
        ids += word
    assert grammar.allowed(ids) == reader.text_ids("x, Category:")[len(reader.text_ids("x")) :][:1]
    assert grammar.max_tokens < 2 * MAX_TEXT_TOKENS + MAX_PRICE_TOKENS + 20


def test_the_published_tokenizer_takes_it_too(phi3_tokenizer_folder) -> None:
    from transformers import PreTrainedTokenizerFast

    from appraiser.phi3_v import Phi3VImageProcessor, Phi3VProcessor

    tokenizer = PreTrainedTokenizerFast.from_pretrained(phi3_tokenizer_folder)
    reader = Reader(Phi3VProcessor(Phi3VImageProcessor(num_crops=1), tokenizer), "published")
    for language in QUESTIONS:
        task = Task(language=language)  # type: ignore[arg-type]
        grammar = AnswerGrammar(reader, task, {"category": CATEGORIES})
        parsed = task.parse(reader.decode(walk(grammar, reader, random.Random(1))))
        assert parsed.is_complete


def test_fields_that_cannot_be_closed_are_named(reader: Reader) -> None:
    with pytest.raises(ConfigError, match="no field 'colour'"):
        closed_answers(reader, TrainedTask(), ["colour"])
    with pytest.raises(ConfigError, match="values of category are not known"):
        closed_answers(reader, TrainedTask(), ["category"])
    with pytest.raises(ConfigError, match="no field 'price' with words"):
        closed_answers(reader, TrainedTask(), ["price"])
