"""Answers that can always be read: at every step only tokens that keep the answer within its grammar.

    Product: <any text>, Category: <one of the list>, Full Price: <digits> <end>

Labels and ends are given, fields with a closed list take one of its values, prices are digits, and free text goes on
until the model itself writes what comes next, or until it is long enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from appraiser.backbone import Reader
from appraiser.data.task import Task
from appraiser.errors import ConfigError
from appraiser.price_distribution import BEGUN, COMPLETE, PriceGrammar
from appraiser.trained_task import TrainedTask

MAX_TEXT_TOKENS = 48
"""Of a free text: more than the longest titles of the shops known take."""
MAX_PRICE_TOKENS = 16
"""Thirteen digits, the point, two decimals."""

Tokens = list[int]


@dataclass
class _Choice:
    """A closed list as a tree of tokens; a path to an empty node is a value and what follows it."""

    tree: dict[int, _Choice] = field(default_factory=dict)

    def add(self, tokens: Tokens) -> None:
        node = self
        for token in tokens:
            node = node.tree.setdefault(token, _Choice())

    def depth(self) -> int:
        return 1 + max((node.depth() for node in self.tree.values()), default=-1)


@dataclass(frozen=True)
class _Field:
    """One field: the tokens before its value, and what its value may be.

    Args:
        ending: tokens after the value: the next field's label, or the end of the answer.
        choice: of a closed list, with the ending behind every value; None for prices and free text.
    """

    label: Tokens
    ending: Tokens
    choice: _Choice | None
    is_price: bool


class AnswerGrammar:
    """Which tokens may come next in an answer.

    Args:
        closed: field -> its values; prices are digits anyway, other fields are free text.

    Raises:
        ConfigError: the tokenizer does not separate labels from values, or does not write digits one by one.
    """

    def __init__(self, reader: Reader, task: Task, closed: Mapping[str, Sequence[str]]) -> None:
        self._end = reader.stop_token_ids[0]
        prices = PriceGrammar.of(reader, task)
        if "price" in task.fields and prices is None:
            raise ConfigError(
                "this model's tokenizer does not write digits one by one: prices cannot be constrained",
                fix="leave `closed` out",
            )
        self._symbols = {} if prices is None else prices.symbols
        self._fields = [_read_field(reader, task, place, closed) for place in range(len(task.fields))]
        tokenizer = reader.processor.tokenizer
        controls = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        texts = [token for token in range(len(tokenizer)) if token not in controls]
        self._text = texts
        self._first_text = [
            token for token, piece in zip(texts, tokenizer.convert_ids_to_tokens(texts), strict=True)
            if len(piece) > 1 and piece[0] in "▁Ġ"
        ]  # fmt: skip

    @property
    def max_tokens(self) -> int:
        """Of the longest answer."""
        return sum(
            len(part.label)
            + len(part.ending)
            + (part.choice.depth() if part.choice else MAX_PRICE_TOKENS if part.is_price else MAX_TEXT_TOKENS)
            for part in self._fields
        )

    def allowed(self, written: Tokens) -> Tokens:
        """Tokens that may follow those of an answer so far."""
        rest = written
        for number, part in enumerate(self._fields):
            if number == 0:  # later labels are the endings of the fields before
                if len(rest) < len(part.label):
                    return [part.label[len(rest)]]
                rest = rest[len(part.label) :]
            if part.choice is not None:
                following, used = _follow(part.choice, rest)
            elif part.is_price:
                following, used = self._follow_price(part, rest)
            else:
                following, used = self._follow_text(part, rest)
            if following:
                return following
            rest = rest[used:]
        return [self._end]

    def _follow_price(self, part: _Field, rest: Tokens) -> tuple[Tokens, int]:
        text, used = "", 0
        while used < len(rest) and rest[used] in self._symbols:
            text += self._symbols[rest[used]]
            used += 1
        if used == len(rest):
            digits = [token for token, symbol in self._symbols.items() if BEGUN.fullmatch(text + symbol)]
            return digits + (part.ending[:1] if COMPLETE.fullmatch(text) else []), 0
        written = len(rest) - used
        if written < len(part.ending):
            return [part.ending[written]], 0
        return [], used + len(part.ending)

    def _follow_text(self, part: _Field, rest: Tokens) -> tuple[Tokens, int]:
        size = len(part.ending)
        for start in range(1, len(rest) - size + 1):
            if rest[start : start + size] == part.ending:
                return [], start + size
        if not rest:
            return self._first_text, 0
        begun = next(count for count in range(size - 1, -1, -1) if rest[len(rest) - count :] == part.ending[:count])
        if len(rest) - begun >= MAX_TEXT_TOKENS:
            return [part.ending[begun]], 0
        return [*self._text, part.ending[begun]], 0


def _follow(choice: _Choice, rest: Tokens) -> tuple[Tokens, int]:
    """Tokens that may come next on the way through a tree, or none and the length of the way where it is complete."""
    node = choice
    for used, token in enumerate(rest):
        if not node.tree:
            return [], used
        node = node.tree[token]
    return list(node.tree), len(rest)


def _read_field(reader: Reader, task: Task, place: int, closed: Mapping[str, Sequence[str]]) -> _Field:
    """Tokens around a field's value, read off texts that hold it: tokens may depend on what stands beside them."""
    name = task.fields[place]
    label = f"{task.label(name)}:"
    is_price = name == "price"
    # A price begins behind a space that is a token of its own; in other values it belongs to the first word.
    before = reader.text_ids(f"{label} 1")[:-1] if is_price else reader.text_ids(label)
    ending = [reader.stop_token_ids[0]]
    next_label = ""
    if place + 1 < len(task.fields):
        following = task.fields[place + 1]
        next_label = f", {task.label(following)}:" + (" 1" if following == "price" else "")
        ending = _behind(reader, "x", next_label)
    if name not in closed:
        return _Field(before, ending, None, is_price)
    choice = _Choice()
    for value in closed[name]:
        written = f"{label} {task.written(name, value)}"
        tokens = reader.text_ids(written)
        if tokens[: len(before)] != before:
            raise ConfigError(f"the value {value!r} of {name} cannot be told from its label", fix="leave it open")
        choice.add(tokens[len(before) :] + (_behind(reader, written, next_label) if next_label else ending))
    return _Field(before, ending, choice, False)


def _behind(reader: Reader, text: str, following: str) -> Tokens:
    """Tokens that `following` adds to a text; without the digit that stands for a price."""
    tokens = reader.text_ids(text)
    whole = reader.text_ids(text + following)
    if whole[: len(tokens)] != tokens:
        raise ConfigError(f"{text!r} and what follows it share a token", fix="leave its field open")
    return whole[len(tokens) : -1] if following.endswith(" 1") else whole[len(tokens) :]


def closed_answers(reader: Reader, trained: TrainedTask, fields: Sequence[str]) -> AnswerGrammar:
    """The grammar of a model's answers with these fields closed to the values that they had in training.

    Raises:
        ConfigError: a field that the model does not state, or whose values are not known.
    """
    for name in fields:
        if name not in trained.task.fields or name == "price":
            raise ConfigError(f"the model states no field {name!r} with words", where="closed",
                              fix=f"choose from {', '.join(trained.task.fields)}")  # fmt: skip
        if name not in trained.choices:
            raise ConfigError(
                f"the values of {name} are not known: there were too many, or the model was not trained here",
                where="closed",
                fix="close only fields with few values, such as category",
            )
    return AnswerGrammar(reader, trained.task, {name: trained.choices[name] for name in fields})
