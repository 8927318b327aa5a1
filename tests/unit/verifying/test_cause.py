"""A cause is named where it gives nearly all answers, and not where nothing or everything does."""

import pytest
from tiny import formula_picture, tiny_backbone

from appraiser.data.task import Task
from appraiser.exporting.answers import Question
from appraiser.verifying.cause import CauseFinder
from appraiser.verifying.mistakes import inputs_of, known_mistakes
from appraiser.verifying.replay import Replayed

MISTAKES = {mistake.name: mistake for mistake in known_mistakes(2)}


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    backbone = tiny_backbone(tmp_path_factory.mktemp("cause"), num_crops=2)
    backbone.network.generation_config.update(max_new_tokens=6, do_sample=False)
    questions = [Question(Task().prompt(), (formula_picture(60, 33, number),)) for number in range(6)]
    return CauseFinder(backbone.model, backbone, questions)


def answers(finder: CauseFinder, name: str, *, counted: bool = True) -> list[Replayed]:
    mistake, found = MISTAKES[name], []
    for what in finder.shown:
        length = inputs_of(finder.reader, mistake.apply(what))["input_ids"].shape[1]
        found.append(Replayed(finder._answer(mistake, what), length if counted else None, None))
    return found


@pytest.mark.parametrize("name", ["crops_1", "newline_after_tag", "second_bos", "bgr", "no_picture", "half"])
def test_a_mistake_is_recognized_by_its_answers(finder, name):
    cause = finder.find(answers(finder, name), [False] * 6)
    assert name in [mistake.name for mistake in cause.mistakes]
    assert cause.num_explained == 6


def test_prompts_that_were_counted_leave_fewer_to_try(finder):
    tried: list[tuple[int, int]] = []
    finder.find(answers(finder, "newline_after_tag"), [False] * 6, lambda *done: tried.append(done))
    counted = tried[-1][1]
    finder.find(answers(finder, "newline_after_tag", counted=False), [False] * 6, lambda *done: tried.append(done))
    assert 0 < counted < tried[-1][1]
    assert tried[-1][0] == tried[-1][1]


def test_a_few_answers_may_differ_by_rounding_and_more_may_not(finder):
    found = answers(finder, "bgr")
    one_off = [Replayed("?", found[0].num_prompt_tokens, None), *found[1:]]
    assert finder.find(one_off, [False] * 6).num_explained == 5
    two_off = [Replayed("?", found[0].num_prompt_tokens, None)] * 2 + found[2:]
    assert finder.find(two_off, [False] * 6) is None


def test_a_mistake_that_leaves_the_answers_of_training_explains_nothing(finder):
    assert finder.find(answers(finder, "bgr"), [True] * 6) is None
