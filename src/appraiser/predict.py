"""Predictor: load once, answer one or many. Shared by evaluation and batch prediction.

Prompt and parser are those of training (`data/task.py`); what was trained is written beside the weights
(`appraiser.json`).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from appraiser.answer_grammar import closed_answers
from appraiser.backbone import Backbone, Features, Reader, Views, load, side_by_side
from appraiser.data.batches import Example, collate
from appraiser.data.examples import prompt_example, views_of
from appraiser.data.task import MAX_ANSWER_TOKENS, QUESTIONS, FieldValue, Language, ParsedAnswer
from appraiser.errors import ConfigError
from appraiser.price_distribution import MAX_LENGTH, PriceDistribution, PriceGrammar, search_prices
from appraiser.trained_task import PricePoint, TrainedTask, checkpoint_folder, read_task

# Prompt tokens of one batch: bounds memory, and lets short rows go in large batches.
TOKENS_PER_BATCH = 16_384
MAX_ROWS_PER_BATCH = 64
# Processed pictures in memory at a time; rows of like length are looked for among these.
WINDOW_BYTES = 256 << 20
MAX_ROWS_PER_WINDOW = 4096

Pictures = Image.Image | Sequence[Image.Image]
"""One picture, or several of one product."""
WatchOf = Callable[[int], StoppingCriteria]


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Args:
        fields: what could be read of the answer.
        currency: as the answer says; the data set's one where answers do not state it, or this one could not be read.
        price_interval, price_interval_90: (low, high) that should hold the true price in 80 % and 90 % of cases; None
            where not calibrated.
        confidence: geometric mean of the answer tokens' probabilities, 0 to 1.
        text: the raw answer.
        parsed: whether every field was there and readable.
        stopped: whether the answer ended by itself.
        num_tokens: of the answer, its end included.
        price_distribution: all prices that the model holds possible; `fields` has one of them. None where the model
            wrote no price, or its tokenizer does not write digits one by one.
        abstained: why the price was left out although there is one; None where it was not.
    """

    fields: dict[str, FieldValue]
    currency: str | None
    price_interval: tuple[float, float] | None
    confidence: float
    text: str
    parsed: bool
    stopped: bool
    num_tokens: int = 0
    price_interval_90: tuple[float, float] | None = None
    price_distribution: PriceDistribution | None = None
    abstained: str | None = None

    @property
    def title(self) -> str | None:
        value = self.fields.get("title")
        return None if value is None else str(value)

    @property
    def category(self) -> str | None:
        value = self.fields.get("category")
        return None if value is None else str(value)

    @property
    def price(self) -> float | None:
        value = self.fields.get("price")
        return None if value is None else float(value)

    @property
    def uncertainty(self) -> float | None:
        """Spread of ln price over the prices that the model holds possible: 0.1 is about 10 %; None without them."""
        return None if self.price_distribution is None else self.price_distribution.spread

    def interval(self, percent: int) -> tuple[float, float] | None:
        """The price interval of 80 or 90 percent."""
        return {80: self.price_interval, 90: self.price_interval_90}[percent]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and tables."""
        low, high = self.price_interval or (None, None)
        return (
            self.fields
            | {
                "currency": self.currency if self.price is not None else self.fields.get("currency"),
                "price_low": low,
                "price_high": high,
                "confidence": round(self.confidence, 4),
                "parsed": self.parsed,
                "text": self.text,
            }
            | ({"abstained": self.abstained} if self.abstained else {})
        )


class Predictor:
    """A model that answers, with the task it was trained on.

    Args:
        closed: fields whose values have to be among those of training; the whole answer then follows its grammar, so
            that it can always be read.
        answer_share: leave prices out where the model is less sure than on this share of usual products.

    Raises:
        ConfigError: `closed` or `answer_share` ask for what this model does not know.
    """

    def __init__(
        self,
        backbone: Backbone,
        trained: TrainedTask,
        *,
        max_new_tokens: int | None = None,
        closed: Sequence[str] = (),
        answer_share: float | None = None,
    ) -> None:
        self.backbone = backbone
        self.trained = trained
        self.task = trained.task
        self.max_new_tokens = max_new_tokens or max_answer_tokens(backbone, self.task.language)
        self._grammar = PriceGrammar.of(backbone, self.task) if backbone.takes_any_mask else None
        self._answers = closed_answers(backbone, trained, closed) if closed else None
        if self._answers is not None:
            self.max_new_tokens = max(self.max_new_tokens, self._answers.max_tokens)
        self._max_spread: float | None = None
        if answer_share is not None:
            if trained.price_intervals is None:
                raise ConfigError(
                    "the model's prices were not calibrated, so it does not know how sure is usual",
                    where="answer_share",
                    fix="train it on a data set with calibration products, or let it answer always",
                )
            self._max_spread = trained.price_intervals.surest(answer_share)

    @classmethod
    def load(
        cls,
        run_or_folder: str | Path,
        *,
        dtype: str = "float32",
        device: str | None = None,
        closed: Sequence[str] = (),
        answer_share: float | None = None,
    ) -> Predictor:
        """Load a run (its best checkpoint), a checkpoint, a model folder, an embedded model or a Hub id.

        Raises:
            CheckpointError: nothing there, or damaged.
        """
        folder = checkpoint_folder(run_or_folder)
        trained = read_task(folder)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if trained.base is not None:
            from appraiser.adapters import load_adapted

            backbone = load_adapted(Path(folder), trained.base, dtype=dtype, device=device)
        else:
            backbone = load(folder, dtype=dtype, device=device)
        backbone.model.eval()
        return cls(backbone, trained, closed=closed, answer_share=answer_share)

    @property
    def abstains(self) -> bool:
        """Whether prices are left out where the model is unsure."""
        return self._max_spread is not None

    def answering_always(self) -> Predictor:
        """The same, but no price is left out."""
        other = copy.copy(self)
        other._max_spread = None
        return other

    @property
    def finds_distributions(self) -> bool:
        """Whether answers come with all prices that the model holds possible."""
        return self._grammar is not None

    def predict(self, images: Iterable[Pictures], progress: Callable[[int], None] | None = None) -> list[Prediction]:
        """Answer for every picture, or every group of pictures of one product, in the order given.

        Pictures are RGB (`data.pictures.decode` makes them so). They are taken as they are needed, so an iterator that
        decodes keeps few of them in memory. Rows of like length are answered together.
        """
        answers: list[Prediction] = []

        def report(done: int) -> None:
            if progress:
                progress(len(answers) + done)

        for window in self._windows(images):
            answers += self.answer(window, report)
        return answers

    def prompts(self, images: Iterable[Pictures], *, see: bool = False) -> Iterator[Example]:
        """What `answer` takes, one per row of `predict`; for pictures that are asked about more than once.

        Pictures of a few rows are processed side by side, so as many are in memory.

        Args:
            see: run the tower now and keep its features instead of the pixels; right as long as it does not learn.
        """

        def process(given: Pictures) -> Sequence[Views | Features]:
            pictures = views_of([given] if isinstance(given, Image.Image) else given, self.backbone)
            return self.backbone.see(pictures) if see else pictures

        num_threads = torch.get_num_threads()
        side = side_by_side(self.backbone) if see else _threads(num_threads)
        with side as in_turn:
            numbers, rows = itertools.count(), iter(images)
            while group := list(itertools.islice(rows, 2 * num_threads)):
                for pictures in in_turn(process, group):
                    yield prompt_example(self.backbone, self.task, str(next(numbers)), pictures)

    def answer(self, prompts: Sequence[Example], progress: Callable[[int], None] | None = None) -> list[Prediction]:
        """Answers to prompts, in the order given."""
        batches = list(_batches([len(prompt.input_ids) for prompt in prompts]))
        examples = ([prompts[position] for position in positions] for positions in batches)
        found: dict[int, Prediction] = {}
        with side_by_side(self.backbone) as in_turn:
            for positions, batch in zip(batches, in_turn(self.answer_together, examples), strict=True):
                found |= zip(positions, batch, strict=True)
                if progress:
                    progress(len(found))
        return [found[position] for position in range(len(prompts))]

    def _windows(self, images: Iterable[Pictures]) -> Iterator[list[Example]]:
        """Prompts with their processed pictures, as many as may be in memory at a time."""
        window: list[Example] = []
        size = 0
        for prompt in self.prompts(images):
            window.append(prompt)
            size += sum(picture.nbytes for picture in prompt.pictures)
            if size >= WINDOW_BYTES or len(window) >= MAX_ROWS_PER_WINDOW:
                yield window
                window, size = [], 0
        if window:
            yield window

    @torch.inference_mode()
    def answer_together(self, examples: Sequence[Example], watch: WatchOf | None = None) -> list[Prediction]:
        """Greedy answers of one left-padded batch, in the calling thread; the model has to be in evaluation mode.

        Args:
            watch: gives what looks at the batch at each token and may end rows or all of it, from the batch's width.
        """
        batch = collate(examples, self.backbone, padding_side="left").to(self.backbone.device)
        inputs = {key: value for key, value in batch.inputs.items() if key != "position_ids"}
        prompt_length = inputs["input_ids"].shape[1]
        grammar = self._answers
        allowed = None if grammar is None else lambda _, ids: grammar.allowed(ids[prompt_length:].tolist())
        output = self.backbone.model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            eos_token_id=self.backbone.stop_token_ids,
            return_dict_in_generate=True,
            output_logits=True,
            prefix_allowed_tokens_fn=allowed,
            stopping_criteria=None if watch is None else StoppingCriteriaList([watch(prompt_length)]),
        )
        ids = output.sequences[:, prompt_length:]
        chosen = [
            step.float().log_softmax(-1).gather(1, ids[:, position : position + 1]).squeeze(1)
            for position, step in enumerate(output.logits)
        ]
        log_probabilities = torch.stack(chosen, dim=1).cpu()
        distributions = self._distributions(output, inputs["attention_mask"])
        return [
            self._read(row.tolist(), logs.tolist(), distribution)
            for row, logs, distribution in zip(ids.cpu(), log_probabilities, distributions, strict=True)
        ]

    def _distributions(self, output: Any, prompt_mask: Tensor) -> list[PriceDistribution | None]:
        """Price distributions of a batch of greedy answers, found behind their cached keys and values."""
        num_rows, prompt_length = prompt_mask.shape
        ids = output.sequences[:, prompt_length:]
        none: list[PriceDistribution | None] = [None] * num_rows
        # Where a row grew past the short-factor length, its prompt was fed again, and keys are not where they were.
        if self._grammar is None or output.past_key_values.get_seq_length() != prompt_length + ids.shape[1] - 1:
            return none
        starts = [self._grammar.start(self.backbone, row) for row in ids.tolist()]
        lengths = prompt_mask.sum(dim=1)
        limit = self.backbone.config.original_max_position_embeddings
        positions = torch.tensor([-1 if start is None else start for start in starts], device=lengths.device)
        ends = lengths + positions + MAX_LENGTH
        crosses = (lengths <= limit) & (ends > limit)
        positions = torch.where((positions < 0) | crosses, -1, lengths + positions)
        if bool((positions < 0).all()):
            return none
        places = torch.tensor([start or 0 for start in starts], device=lengths.device)
        keys = torch.arange(prompt_length + ids.shape[1] - 1, device=lengths.device)
        known = torch.nn.functional.pad(prompt_mask.bool(), (0, ids.shape[1] - 1), value=True)
        context = known & (keys[None] < prompt_length + places[:, None])
        logits = torch.stack([output.logits[start or 0][row] for row, start in enumerate(starts)])
        return search_prices(self.backbone, self._grammar, output.past_key_values, context, positions, logits)

    def _read(
        self, ids: list[int], log_probabilities: list[float], distribution: PriceDistribution | None
    ) -> Prediction:
        """Turn one row of generated ids into a prediction."""
        stops = set(self.backbone.stop_token_ids)
        end = next((position for position, token in enumerate(ids) if token in stops), None)
        length = len(ids) if end is None else end + 1
        text = self.backbone.decode(ids)
        parsed = self.task.parse(text)
        price = price_at(self.trained.price_point, distribution, parsed)
        found = parsed.fields | ({} if price is None else {"price": price})
        fields = {name: found[name] for name in self.task.fields if name in found}
        is_whole = len(fields) == len(self.task.fields)
        abstained = self._abstention(distribution) if "price" in fields else None
        if abstained:
            del fields["price"]
        return Prediction(
            fields=fields,
            currency=str(fields["currency"]) if "currency" in fields else self.trained.currency,
            price_interval=self._interval(fields.get("price"), distribution, 80),
            price_interval_90=self._interval(fields.get("price"), distribution, 90),
            confidence=math.exp(sum(log_probabilities[:length]) / max(1, length)),
            text=text,
            parsed=is_whole,
            stopped=end is not None,
            num_tokens=length,
            price_distribution=distribution,
            abstained=abstained,
        )

    def _interval(
        self, price: FieldValue | None, distribution: PriceDistribution | None, percent: int
    ) -> tuple[float, float] | None:
        """Calibrated interval about the predicted price."""
        if price is None or self.trained.price_intervals is None:
            return None
        spread = None if distribution is None else distribution.spread
        return self.trained.price_intervals.around(float(price), spread, percent)

    def _abstention(self, distribution: PriceDistribution | None) -> str | None:
        if self._max_spread is None:
            return None
        if distribution is None:
            return "no price distribution: how sure the model is cannot be said"
        if distribution.spread <= self._max_spread:
            return None
        return f"prices from {distribution.quantile(0.1):.0f} to {distribution.quantile(0.9):.0f} seem possible"


@contextmanager
def _threads(number: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map` for work that lets go of the interpreter, as decoders and scalers of pictures do."""
    with ThreadPoolExecutor(number) as pool:
        yield pool.map


def max_answer_tokens(reader: Reader, language: Language) -> int:
    """Tokens after which an answer ends: more where the tokenizer has no tokens for a language's letters.

    phi3v-tiny spells Russian in bytes: a usual answer has 147 tokens instead of 26.
    """
    english, own = (len(reader.text_ids(QUESTIONS[name])) for name in ("en", language))
    return math.ceil(MAX_ANSWER_TOKENS * max(1.0, own / english))


def price_at(point: PricePoint, distribution: PriceDistribution | None, answer: ParsedAnswer) -> float | None:
    """The predicted price: a point of the distribution, or what the answer says where there is none."""
    if distribution is not None and point != "answer":
        return distribution.median if point == "median" else distribution.mean
    price = answer.fields.get("price")
    return None if price is None else float(price)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions of rows, longest first, in batches of a bounded number of tokens."""
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    while order:
        rows = max(1, min(MAX_ROWS_PER_BATCH, TOKENS_PER_BATCH // lengths[order[0]]))
        yield order[:rows]
        order = order[rows:]
