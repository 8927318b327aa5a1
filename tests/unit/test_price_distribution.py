"""The tree of price texts gives each its true probability, whatever else is in the batch."""

import math

import numpy as np
import pytest
import torch
from conftest import shared_folder
from tiny import formula_picture, tiny_backbone

from appraiser import price_distribution
from appraiser.backbone import load_reader
from appraiser.data.batches import collate
from appraiser.data.examples import prompt_example, views_of
from appraiser.data.task import Task
from appraiser.price_distribution import PriceDistribution, PriceGrammar, search_prices

TASK = Task(("title", "price"))
HEADS = ("Product: Bag, Full Price: ", "Product: a longer title of a coat, Full Price: ", "Product: Hat, Full Price: ")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A tiny model that would rather write digits and ends than anything else."""
    made = tiny_backbone(tmp_path_factory.mktemp("tiny"))
    grammar = PriceGrammar.of(made, TASK)
    bias = torch.zeros(made.config.vocab_size)
    bias[list(grammar.symbols)] = 9.0
    bias[list(grammar.ends)] = 10.0
    made.network.lm_head.register_forward_hook(lambda module, inputs, logits: logits + bias)
    return made


def prompts(backbone):
    """Prompts of three products with pictures of different shapes, so of different lengths."""
    views = [views_of([formula_picture(40 + 30 * number, 40, number)], backbone) for number in range(3)]
    return [prompt_example(backbone, TASK, str(number), pictures) for number, pictures in enumerate(views)]


def log_probability(backbone, example, head, text):
    """Of one price text and its end behind one prompt, token by token, without a cache."""
    batch = collate([example], backbone)
    before, after = backbone.text_ids(head.rstrip() + " 1")[:-1], backbone.text_ids(head + text)
    ids = torch.tensor([[*example.input_ids, *after]])
    inputs = {key: batch.inputs[key] for key in ("pixel_values", "image_sizes")}
    with torch.inference_mode():
        logits = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **inputs).logits
    logs = logits[0].double().log_softmax(-1)
    start = len(example.input_ids) + len(before)
    digits = sum(float(logs[place - 1, ids[0, place]]) for place in range(start, ids.shape[1]))
    ends = PriceGrammar.of(backbone, TASK).ends
    return digits + math.log(sum(math.exp(float(logs[-1, end])) for end in ends))


def searched(backbone, examples, heads):
    """What the search finds for a left-padded batch, as prediction calls it."""
    batch = collate(examples, backbone, padding_side="left")
    mask = batch.inputs["attention_mask"]
    answers = [backbone.text_ids(head.rstrip() + " 1")[:-1] if head else [5, 5, 5] for head in heads]
    width = max(map(len, answers))
    filled = torch.tensor([[*answer, *[0] * (width - len(answer))] for answer in answers])
    ids = torch.cat([batch.inputs["input_ids"], filled], dim=1)
    known = torch.nn.functional.pad(mask, (0, width), value=1)
    positions = (known.cumsum(-1) - 1).clamp(min=0)
    inputs = {key: batch.inputs[key] for key in ("pixel_values", "image_sizes")}
    with torch.inference_mode():
        output = backbone.model(input_ids=ids, attention_mask=known, position_ids=positions, use_cache=True, **inputs)
    lengths = torch.tensor([len(answer) for answer in answers])
    keys = torch.arange(ids.shape[1])
    context = known.bool() & (keys < mask.shape[1] + lengths[:, None])
    starts = torch.where(torch.tensor([bool(head) for head in heads]), mask.sum(1) + lengths, -1)
    first = torch.stack([output.logits[row, mask.shape[1] + int(n) - 1] for row, n in enumerate(lengths)])
    grammar = PriceGrammar.of(backbone, TASK)
    return search_prices(backbone, grammar, output.past_key_values, context, starts, first)


def test_every_price_has_the_probability_that_the_model_gives_its_text(backbone, monkeypatch):
    monkeypatch.setattr(price_distribution, "MIN_PROBABILITY", 1e-4)
    monkeypatch.setattr(price_distribution, "MIN_ENDING", 1e-5)
    monkeypatch.setattr(price_distribution, "MAX_NODES_IN_ALL", 10**6)
    monkeypatch.setattr(price_distribution, "MIN_MASS", 0.1)
    examples = prompts(backbone)
    for found, example, head in zip(searched(backbone, examples, HEADS), examples, HEADS, strict=True):
        assert len(found.prices) > 20
        likeliest = np.argsort(found.probabilities)[::-1][:8]
        for place in likeliest:
            price, probability = found.prices[place], found.probabilities[place] * found.mass
            if price == int(price):  # 7 could also have been written 7.00
                expected = log_probability(backbone, example, head, f"{price:.0f}")
                cents = log_probability(backbone, example, head, f"{price:.0f}.00")
                assert probability == pytest.approx(math.exp(expected) + math.exp(cents), rel=0.02)


def test_a_row_does_not_depend_on_its_neighbours_and_one_without_a_price_has_none(backbone, monkeypatch):
    monkeypatch.setattr(price_distribution, "MIN_MASS", 0.1)
    examples = prompts(backbone)
    together = searched(backbone, examples, (HEADS[0], "", HEADS[2]))
    assert together[1] is None
    for place in (0, 2):
        [alone] = searched(backbone, examples[place : place + 1], HEADS[place : place + 1])
        assert alone.prices == together[place].prices
        assert alone.probabilities == pytest.approx(together[place].probabilities, rel=1e-3)


def test_little_probability_of_a_price_is_no_distribution(backbone, monkeypatch):
    monkeypatch.setattr(price_distribution, "MIN_MASS", 0.999)
    assert searched(backbone, prompts(backbone), HEADS) == [None, None, None]


def test_a_model_that_holds_everything_possible_gets_no_distribution(backbone, monkeypatch):
    monkeypatch.setattr(price_distribution, "MIN_MASS", 0.1)
    monkeypatch.setattr(price_distribution, "MAX_NODES_IN_ALL", 5)
    assert searched(backbone, prompts(backbone), HEADS) == [None, None, None]


@pytest.mark.parametrize("fields", [("title", "category", "price"), ("price", "title"), ("price",)])
def test_the_price_is_found_in_an_answer_wherever_it_stands(fields):
    reader = load_reader("phi3v-tiny")
    task = Task(fields)
    values = {"title": "Full Price: 12, 3 Bags", "category": "BAGS 7", "price": 1290.5}
    answer = task.format(values)
    ids = reader.text_ids(answer)
    grammar = PriceGrammar.of(reader, task)
    start = grammar.start(reader, ids)
    assert "".join(grammar.symbols[token] for token in ids[start : start + 7]) == "1290.50"


def test_published_tokens_write_digits_one_by_one():
    folder = shared_folder("phi3_tokenizer")
    reader = load_reader_of(folder)
    grammar = PriceGrammar.of(reader, TASK)
    assert sorted(grammar.symbols.values()) == sorted("0123456789.")
    assert grammar.ends


def load_reader_of(folder):
    from transformers import PreTrainedTokenizerFast

    from appraiser.backbone import Reader
    from appraiser.phi3_v import Phi3VImageProcessor, Phi3VProcessor

    return Reader(Phi3VProcessor(Phi3VImageProcessor(), PreTrainedTokenizerFast.from_pretrained(folder)), "published")


def test_a_task_without_a_price_has_no_grammar():
    assert PriceGrammar.of(load_reader("phi3v-tiny"), Task(("title",))) is None


def test_points_of_a_distribution():
    found = PriceDistribution((100.0, 200.0, 400.0), (0.25, 0.5, 0.25), 0.9)
    assert (found.median, found.quantile(0.25), found.quantile(0.9)) == (200, 100, 400)
    assert found.mean == pytest.approx(200)
    assert found.spread == pytest.approx(math.log(2) / math.sqrt(2))
    assert PriceDistribution((50.0,), (1.0,), 1.0).spread == 0
