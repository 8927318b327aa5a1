"""Every known mistake shows something else, and only that."""

import pytest
import torch
from tiny import formula_picture, tiny_backbone

from appraiser.data.task import Task
from appraiser.verifying.mistakes import inputs_of, known_mistakes, question_of, shown

NUM_CROPS = 3


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return tiny_backbone(tmp_path_factory.mktemp("mistakes"), num_crops=NUM_CROPS)


@pytest.fixture(scope="module")
def right(reader):
    return shown(reader, Task().prompt(), (formula_picture(60, 33, 1),))


MISTAKES = {mistake.name: mistake for mistake in known_mistakes(NUM_CROPS)}


def test_without_a_mistake_it_is_what_the_processor_gives(reader, right):
    expected = dict(reader.processor(text=right.prompt, images=list(right.images), return_tensors="pt"))
    found = inputs_of(reader, right)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


PIXELS = {
    "bgr",
    "grey",
    "black",
    "white",
    "mirrored",
    "upside_down",
    "not_normalised",
    "not_scaled",
    "half",
    "imagenet",
}
"""Change pixels and nothing else."""


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_shows_something_else(reader, right, name):
    wrong = MISTAKES[name].apply(right)
    assert wrong != right
    found, expected = inputs_of(reader, wrong), inputs_of(reader, right)
    same_text = torch.equal(found["input_ids"], expected["input_ids"])
    same_pixels = "pixel_values" in found and torch.equal(found["pixel_values"], expected["pixel_values"])
    if name in PIXELS:
        assert (same_text, same_pixels) == (True, False)
    elif name.startswith("crops_") or name in ("no_picture", "square"):
        assert not same_pixels
    else:
        # The tokenizer takes the newline behind <|assistant|> as part of it, as the published one does.
        assert (same_text, same_pixels) == (name == "no_newline_after_assistant", True)


def test_names_are_unique_and_the_trained_budget_is_no_mistake():
    names = [mistake.name for mistake in known_mistakes(4)]
    assert len(names) == len(set(names))
    assert "crops_4" not in names
    assert "crops_16" in names


def test_the_processor_stays_as_it_is(reader, right):
    for mistake in MISTAKES.values():
        inputs_of(reader, mistake.apply(right))
    assert shown(reader, right.prompt, right.images) == right


def test_templates_are_changed_where_they_say(right):
    prompts = {name: MISTAKES[name].apply(right).prompt for name in ("newline_after_tag", "text_first", "no_end")}
    question = "What is shown in this image?"
    assert prompts == {
        "newline_after_tag": f"<|user|>\n<|image_1|>\n{question}<|end|>\n<|assistant|>\n",
        "text_first": f"<|user|>\n{question}<|image_1|><|end|>\n<|assistant|>\n",
        "no_end": f"<|user|>\n<|image_1|>{question}\n<|assistant|>\n",
    }


@pytest.mark.parametrize("task", [Task(), Task(language="ja"), Task(question="Which |> is it?")])
@pytest.mark.parametrize("num_images", [1, 2])
def test_the_question_is_found_in_any_prompt_of_ours(task, num_images):
    assert question_of(task.prompt(num_images)) == task.user_text(0)
