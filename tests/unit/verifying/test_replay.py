"""What counts as rounding, what as another answer, and what is known of prompts."""

import pytest
from tiny import tiny_backbone

from appraiser.exporting.reference import FirstToken, ReferenceAnswer
from appraiser.verifying.replay import Replayed, compare, parting_step
from appraiser.verifying.verify import _findings


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return tiny_backbone(tmp_path_factory.mktemp("replay"))


def expected(reader, text: str = "Red Bag 1290", gap: float = 2.0, **changes) -> ReferenceAnswer:
    ids = reader.completion_ids(text, ends_text=False)[:-1]
    known = {
        "id": "7", "origin": "sample", "pictures": ["reference/01.jpg"], "prompt": "?", "num_prompt_tokens": 30,
        "num_image_tokens": 13, "input_ids_sha256": "a", "pixel_values_sha256": "b", "answer": text, "answer_ids": ids,
        "answer_logprobs": [-0.1] * len(ids), "runner_up_logprobs": [-0.1 - gap] * len(ids),
        "first_tokens": [FirstToken(id=5, token=None, logit=1.5)],
    }  # fmt: skip
    return ReferenceAnswer(**(known | changes))


def test_texts_part_at_the_first_token_that_one_does_not_have(reader):
    ids = expected(reader).answer_ids
    for text, common in (
        ("Blue", ""),
        ("Red Hat", "Red "),
        ("Red Bag 1390", "Red Bag 1"),
        ("Red Bag 12", "Red Bag 12"),
    ):
        step = parting_step(reader, ids, text)
        assert reader.decode(ids[:step]) == common.strip()
    assert parting_step(reader, ids, "Red Bag 1290 and more") == len(ids) - 1, "where the recorded one ended"
    assert parting_step(reader, ids, "") == 0


def test_another_answer_is_rounding_only_where_two_tokens_were_nearly_equally_likely(reader):
    near = compare(reader, expected(reader, gap=0.05), Replayed("Red Bag 1390", 30, None))
    far = compare(reader, expected(reader, gap=0.5), Replayed("Red Bag 1390", 30, None))
    old = compare(reader, expected(reader, answer_logprobs=None), Replayed("Red Bag 1390", 30, None))
    assert [one.is_clear(0.1) for one in (near, far, old)] == [False, True, True]
    assert near.gap == pytest.approx(0.05)
    assert [finding.ok for finding in _findings([near], [], 0.1)] == [True, True, True]
    assert "nearly equally likely" in _findings([near], [], 0.1)[1].text
    assert "'Red Bag 1390' instead of 'Red Bag 1290' (reference/01.jpg)" in _findings([far], [], 0.1)[1].text


@pytest.mark.parametrize(("missing", "compared"), [(0, True), (1, True), (2, False), (-1, False)])
def test_probabilities_are_compared_where_the_tokens_are_the_same_ones(reader, missing, compared):
    wanted = expected(reader)
    logprobs = [-0.4] * (len(wanted.answer_ids) - missing)
    found = compare(reader, wanted, Replayed(wanted.answer, 30, tuple(logprobs)))
    assert bool(found.distances) is compared
    assert found.distances == pytest.approx([0.3] * len(logprobs) * compared)
    assert [finding.ok for finding in _findings([found], [], 0.1)] == [True, True, not compared]


def test_prompts_are_compared_by_number_and_where_possible_by_ids(reader):
    wanted = expected(reader)
    same = compare(reader, wanted, Replayed(wanted.answer, 30, None, "a", "b"))
    longer = compare(reader, wanted, Replayed(wanted.answer, 31, None))
    other = compare(reader, wanted, Replayed(wanted.answer, 30, None, "c", "b"))
    silent = compare(reader, wanted, Replayed(wanted.answer, None, None))
    assert [one.has_other_prompt for one in (same, longer, other, silent)] == [False, True, True, False]
    assert "31 tokens instead of 30" in _findings([longer], [], 0.1)[0].text
    assert "as many tokens, but other ones" in _findings([other], [], 0.1)[0].text
    assert "known for 0 of 1" in _findings([silent], [], 0.1)[0].text


def test_pixels_of_other_bits_matter_where_something_else_differs(reader):
    wanted = expected(reader)
    rounded = compare(reader, wanted, Replayed(wanted.answer, 30, None, "a", "c"))
    wrong = compare(reader, wanted, Replayed("Blue Hat", 30, None, "a", "c"))
    assert [finding.ok for finding in _findings([rounded], [], 0.1)] == [True, True, True, True]
    assert [finding.ok for finding in _findings([wrong], [], 0.1)] == [True, False, True, False]
