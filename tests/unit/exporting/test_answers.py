"""Answers are compared bit by bit, or within a stated tolerance; what differs is named."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import formula_picture, tiny_backbone

from appraiser.errors import CheckpointError
from appraiser.exporting.answers import (
    MERGE_TOLERANCE,
    Answer,
    Question,
    ask,
    check_equal,
    check_merged,
    difference,
    read_answers,
    write_answers,
)
from appraiser.exporting.reference import logprobs_of

ANSWER = Answer("a", 20, 13, "b", (5, 6, 7), "Red Bag", torch.tensor([[4.0, 1.0], [2.0, -8.0], [0.5, 0.25]]))


def with_logit(value: float, step: int = 2) -> Answer:
    logits = ANSWER.logits.clone()
    logits[step, 1] = value
    return replace(ANSWER, logits=logits)


def test_equal_answers_pass():
    check_equal([ANSWER, ANSWER], [ANSWER, with_logit(0.25)])
    assert check_merged([ANSWER], [ANSWER]) == 0.0


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (replace(ANSWER, input_ids_sha256="c"), "other token ids"),
        (replace(ANSWER, pixel_values_sha256="c"), "other pixels"),
        (replace(ANSWER, ids=(5, 6, 8), text="Red Hat"), "'Red Hat' instead of 'Red Bag'"),
        (with_logit(0.25 + 2**-25), "logits differ"),
        (with_logit(math.nan), "logits differ by up to nan"),
    ],
)
def test_a_single_bit_is_a_difference_and_is_named(found, said):
    with pytest.raises(CheckpointError, match="picture 2") as caught:
        check_equal([ANSWER, ANSWER], [ANSWER, found])
    assert said in str(caught.value)


def test_merged_may_round_otherwise_but_not_answer_otherwise():
    largest = 8.0
    near = with_logit(0.25 + 0.5 * MERGE_TOLERANCE * largest)
    assert check_merged([ANSWER, ANSWER], [ANSWER, near]) == pytest.approx(0.5 * MERGE_TOLERANCE, rel=1e-2)
    for other in (
        with_logit(0.25 + 2 * MERGE_TOLERANCE * largest),
        with_logit(math.nan),
        replace(ANSWER, ids=(5, 6, 8)),
    ):
        with pytest.raises(CheckpointError, match="answers differently to picture 1") as caught:
            check_merged([other], [ANSWER])
        assert "--adapter" in caught.value.fix


def test_logits_are_compared_as_long_as_the_texts_are_one():
    logits = ANSWER.logits.clone()
    logits[1] += 0.8
    logits[2] += 99.0  # a step that follows another word
    assert difference(ANSWER, replace(ANSWER, ids=(5, 9), logits=logits)) == pytest.approx(0.1)


def test_answers_are_greedy_and_go_through_a_file_unchanged(tmp_path):
    backbone = tiny_backbone(tmp_path / "model")
    backbone.network.generation_config.update(max_new_tokens=5, do_sample=False)
    question = Question("<|user|>\n<|image_1|>What is shown?<|end|>\n<|assistant|>\n", (formula_picture(40, 30),))
    threads, done = torch.get_num_threads(), []
    answers = ask(backbone.model, backbone, [question, question], done.append)
    assert (done, torch.get_num_threads()) == ([1, 2], threads)
    assert answers[0].num_image_tokens == backbone.num_image_tokens(40, 30)
    assert list(answers[0].ids) == answers[0].logits.argmax(-1).tolist()
    check_equal(answers[:1], answers[1:])
    write_answers(answers, tmp_path)
    again = read_answers(tmp_path)
    check_equal(answers, again)
    assert again[0].text == answers[0].text


def test_weights_are_moved_to_aligned_addresses(tmp_path):
    backbone = tiny_backbone(tmp_path / "model")
    row = torch.empty(backbone.network.lm_head.weight.numel() + 1)
    weight = row[1:].view_as(backbone.network.lm_head.weight)
    weight.copy_(backbone.network.lm_head.weight.detach())
    backbone.network.lm_head.weight.data = weight
    assert weight.data_ptr() % 64
    ask(backbone.model, backbone, [])
    assert all(value.data_ptr() % 64 == 0 for value in backbone.network.parameters())
    assert torch.equal(backbone.network.lm_head.weight, weight)


def test_log_probabilities_are_of_the_chosen_token_and_of_the_likeliest_other():
    chosen, others = logprobs_of(replace(ANSWER, ids=(0, 1, 0)))
    first = [4.0 - math.log(math.exp(4) + math.exp(1)), 1.0 - math.log(math.exp(4) + math.exp(1))]
    assert [chosen[0], others[0]] == pytest.approx(first)
    assert chosen[1] - others[1] == pytest.approx(-10.0)
    assert chosen[2] - others[2] == pytest.approx(0.25)
