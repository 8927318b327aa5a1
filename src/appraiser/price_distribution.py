"""The prices that a model holds possible, and how likely: every price text it would write, followed digit by digit.

A greedy answer is the likeliest text, digit after digit. That is no good price: between 1,190 and 1,210 the first
digits decide, and the likeliest of a hundred texts may hold a twentieth of the probability. So all digits that have
more than one chance in 500 are followed as a tree, level by level. The nodes of a level are fed at once behind the
answer's own keys and values, each seeing the answer up to its price and its own ancestors:

    … Full Price:  1 ─ 2 ─ 9 ─ 0 ─ end     0.08
                   │   └─ 8 ─ 0 ─ end     0.07
                   └─ 1 ─ …
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from appraiser.backbone import Backbone, Reader
from appraiser.data.task import Task

MIN_PROBABILITY = 0.002
"""Of a node: together, what is not followed holds some percent."""
MIN_ENDING = 0.0003
"""Of a whole price: below, it is noise of the model, and a price a hundred times too small would weigh too much."""
MAX_NODES = 192
"""Of a product on one level; the likeliest stay."""
MAX_NODES_IN_ALL = 600
"""Of a product; a model that holds more prices possible knows none, and gets no distribution."""
MAX_LENGTH = 13
MIN_FILLED = 0.75
"""Of a level's places; with fewer, wide and narrow rows are fed apart."""
MIN_ROWS_TO_PART = 8
MIN_MASS = 0.5
"""With less of the probability found, the model was about to write something that is no price."""
COMPLETE = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]{2})?")
BEGUN = re.compile(r"(0|[1-9][0-9]{0,12})(\.[0-9]{0,2})?")


@dataclass(frozen=True)
class PriceDistribution:
    """Prices in ascending order with their probabilities, which sum to 1.

    Args:
        mass: probability of all texts that were followed to their end, before it was scaled to 1.
    """

    prices: tuple[float, ...]
    probabilities: tuple[float, ...]
    mass: float

    def quantile(self, share: float) -> float:
        """The smallest price that at least this share of the probability does not exceed."""
        place = int(np.searchsorted(np.cumsum(self.probabilities), share - 1e-12))
        return self.prices[min(place, len(self.prices) - 1)]

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    @property
    def mean(self) -> float:
        """Of the prices that are possible, the one nearest to the mean of ln price."""
        logs = np.log(self.prices)
        return self.prices[int(np.abs(logs - np.dot(self.probabilities, logs)).argmin())]

    @property
    def spread(self) -> float:
        """Standard deviation of ln price."""
        logs = np.log(self.prices)
        deviations = logs - np.dot(self.probabilities, logs)
        return math.sqrt(float(np.dot(self.probabilities, deviations**2)))


@dataclass(frozen=True)
class PriceGrammar:
    """Which tokens write a price in an answer, and which end it.

    Args:
        symbols: token -> the character it writes: a digit or the decimal point.
        ends: tokens that may follow a whole price.
        label: what stands before the price in the answer.
        is_first: whether the answer begins with it.
    """

    symbols: dict[int, str]
    ends: tuple[int, ...]
    label: str
    is_first: bool

    @classmethod
    def of(cls, backbone: Reader, task: Task) -> PriceGrammar | None:
        """The grammar of a task; None if it has no price, or the tokenizer does not write digits one by one."""
        if "price" not in task.fields:
            return None
        place = task.fields.index("price")
        label = f"{task.label('price')}: "
        symbols: dict[int, str] = {}
        for digit in "0123456789":
            # Behind another digit, where no space can be part of its token.
            tokens = backbone.text_ids(f"{label}1.{digit}{digit}")
            if len(tokens) < 4 or tokens[-1] != tokens[-2] or backbone.text_ids(f"{label}1")[:-1] != tokens[:-4]:
                return None
            symbols[tokens[-1]] = digit
            symbols[tokens[-3]] = "."
        if len(symbols) != 11:
            return None
        if place == len(task.fields) - 1:
            return cls(symbols, tuple(backbone.stop_token_ids), label, place == 0)
        whole = backbone.text_ids(f"{label}1")
        behind = backbone.text_ids(f"{label}1, {task.label(task.fields[place + 1])}: ")
        return cls(symbols, (behind[len(whole)],), label, place == 0) if behind[: len(whole)] == whole else None

    def start(self, backbone: Reader, ids: Sequence[int]) -> int | None:
        """Place of the price's first digit among the ids of an answer; None if it names no price."""
        label = self.label.rstrip()
        found = None
        for place in (place for place, token in enumerate(ids) if self.symbols.get(token, ".") != "."):
            before = backbone.decode(list(ids[:place]))
            if before == label if self.is_first else before.endswith(f", {label}"):
                found = place  # the last one, as `parse` has it: a title may hold the words of a later field
        return found


@dataclass
class _Node:
    text: str
    token: int
    log_probability: float
    ancestors: list[int]
    """Places of its ancestors among the nodes of its row that were fed before."""


@dataclass
class _Row:
    """One answer: nodes to be fed next, and the whole prices found."""

    log_probability: dict[float, float] = field(default_factory=dict)
    frontier: list[_Node] = field(default_factory=list)
    num_nodes: int = 0

    def follow(self, nodes: list[_Node]) -> None:
        """Feed these next; too many are given up, with what was found of them."""
        self.num_nodes += len(nodes)
        self.frontier = sorted(nodes, key=lambda node: -node.log_probability)[:MAX_NODES]
        if self.num_nodes > MAX_NODES_IN_ALL:
            self.frontier, self.log_probability = [], {}

    def found(self, text: str, log_probability: float) -> None:
        price = float(text)
        known = self.log_probability.get(price, -math.inf)
        self.log_probability[price] = float(np.logaddexp(known, log_probability))

    def result(self) -> PriceDistribution | None:
        pairs = sorted((price, math.exp(log)) for price, log in self.log_probability.items() if price > 0)
        mass = sum(probability for _, probability in pairs)
        if mass < MIN_MASS:
            return None
        return PriceDistribution(
            tuple(price for price, _ in pairs), tuple(probability / mass for _, probability in pairs), mass
        )


@torch.inference_mode()
def search_prices(
    backbone: Backbone,
    grammar: PriceGrammar,
    cache: Any,
    context: Tensor,
    positions: Tensor,
    first_logits: Tensor,
) -> list[PriceDistribution | None]:
    """Follow the prices of a batch of answers.

    Args:
        cache: keys and values of prompts and answers, [B, H, K, d] per layer; nodes are added to it.
        context: [B, K] bool: what stands before each row's price.
        positions: [B] position of the price's first digit; below 0 for rows without a price.
        first_logits: [B, vocab] for that digit.

    Returns:
        Per row the distribution; None where there is no price, or less than half of the probability is one.
    """
    rows = [_Row() for _ in positions]
    tokens = list(grammar.symbols)
    first = _log_probabilities(first_logits[:, None], [*tokens, *grammar.ends])
    for row, logs, position in zip(rows, first, positions.tolist(), strict=True):
        if position >= 0:
            row.follow(_children(_Node("", -1, 0.0, []), logs[0], tokens, grammar, None))
    _search(backbone, grammar, rows, _Fed(cache, context, positions.clamp(min=0), 0, 0))
    return [row.result() for row in rows]


@dataclass
class _Fed:
    """What the network has seen of some rows.

    Args:
        num_nodes: tree nodes behind the context in the cache, per row.
        depth: levels of the tree that these are.
    """

    cache: Any
    context: Tensor
    positions: Tensor
    num_nodes: int
    depth: int

    def of(self, rows: Sequence[int]) -> _Fed:
        """A copy for some of the rows."""
        chosen = torch.tensor(rows, device=self.context.device)
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            cache.update(layer.keys[chosen], layer.values[chosen], number)
        return _Fed(cache, self.context[chosen], self.positions[chosen], self.num_nodes, self.depth)


def _search(backbone: Backbone, grammar: PriceGrammar, rows: Sequence[_Row], fed: _Fed) -> None:
    """Feed level after level; what is found goes into the rows.

    Rows of a batch are as wide as their widest. Where filling would be most of the work, narrow and wide rows go on
    apart, each half with its own part of the cache.
    """
    tokens = list(grammar.symbols)
    while any(row.frontier for row in rows) and fed.depth < MAX_LENGTH + 3:
        widths = [len(row.frontier) for row in rows]
        if len(rows) >= MIN_ROWS_TO_PART and sum(widths) < max(widths) * len(rows) * MIN_FILLED:
            order = sorted(range(len(rows)), key=lambda place: widths[place])
            for half in (order[: len(order) // 2], order[len(order) // 2 :]):
                _search(backbone, grammar, [rows[place] for place in half], fed.of(half))
            return
        inputs, visible = _level(rows, max(widths), fed.num_nodes, fed.context)
        mask = torch.cat([fed.context[:, None].expand(-1, max(widths), -1), visible], dim=-1)
        output = backbone.model(
            input_ids=inputs,
            attention_mask=_additive(mask, backbone.network.dtype),
            position_ids=(fed.positions + fed.depth)[:, None].expand(-1, max(widths)),
            past_key_values=fed.cache,
            use_cache=True,
        )
        logs = _log_probabilities(output.logits, [*tokens, *grammar.ends])
        for place, row in enumerate(rows):
            children: list[_Node] = []
            for number, node in enumerate(row.frontier):
                own = [*node.ancestors, fed.num_nodes + number]
                if COMPLETE.fullmatch(node.text):
                    ending = float(np.logaddexp.reduce(logs[place, number, len(tokens) :]))
                    if node.log_probability + ending >= math.log(MIN_ENDING):
                        row.found(node.text, node.log_probability + ending)
                children += _children(node, logs[place, number], tokens, grammar, own)
            row.follow(children)
        fed.depth += 1
        fed.num_nodes += max(widths)


def _children(
    node: _Node, logs: np.ndarray, tokens: Sequence[int], grammar: PriceGrammar, ancestors: list[int] | None
) -> list[_Node]:
    """The node's continuations that are likely enough and still a price."""
    found = []
    for place in map(int, np.flatnonzero(node.log_probability + logs[: len(tokens)] >= math.log(MIN_PROBABILITY))):
        text = node.text + grammar.symbols[tokens[place]]
        if BEGUN.fullmatch(text):
            found.append(_Node(text, tokens[place], node.log_probability + float(logs[place]), ancestors or []))
    return found


def _level(rows: Sequence[_Row], width: int, fed: int, context: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B, width] of the nodes to feed, and [B, width, fed + width] bool: which fed nodes each may see."""
    inputs = torch.zeros(len(rows), width, dtype=torch.long)
    visible = torch.zeros(len(rows), width, fed + width, dtype=torch.bool)
    for place, row in enumerate(rows):
        for number, node in enumerate(row.frontier):
            inputs[place, number] = node.token
            visible[place, number, node.ancestors] = True
    own = torch.arange(width)
    visible[:, own, fed + own] = True  # also of the filling, whose softmax would be no number otherwise
    return inputs.to(context.device), visible.to(context.device)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 1, N, K]: 0 where a key is seen, the smallest number elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)[:, None]


def _log_probabilities(logits: Tensor, tokens: Sequence[int]) -> np.ndarray:
    """[B, N, vocab] logits -> [B, N, tokens] log probabilities."""
    wide = logits.float()
    chosen = wide[..., torch.tensor(tokens, device=logits.device)] - wide.logsumexp(-1, keepdim=True)
    return np.asarray(chosen.cpu())
