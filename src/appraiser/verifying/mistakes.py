"""What is known to go wrong between a picture and a model that somebody else serves, and how a model answers then.

    reference product ── mistake ──▶ other prompt, pictures or processor ──▶ ids and pixels ──▶ the model's own answer

A mistake is a function from what should be shown to what is shown, so that each one can be computed here.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from appraiser.backbone import Reader

CROPS = (1, 2, 4, 6, 9, 12, 16)
"""Budgets that engines and recipes use; 4 and 16 are those of the published files."""


@dataclass(frozen=True)
class Shown:
    """What a model is shown of one product.

    Args:
        extra_bos, later_bos: the text begins with one more BOS; text behind a picture begins with its own.
    """

    prompt: str
    images: tuple[Image.Image, ...]
    num_crops: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    extra_bos: bool = False
    later_bos: bool = True


@dataclass(frozen=True)
class Mistake:
    """One way of showing something else than in training.

    Args:
        name: short, for machines.
        what: ends the sentence "the answers are those of ...".
    """

    name: str
    what: str
    apply: Callable[[Shown], Shown]


def shown(reader: Reader, prompt: str, images: tuple[Image.Image, ...]) -> Shown:
    """What training showed."""
    processor = reader.processor.image_processor
    return Shown(prompt, images, reader.num_crops, tuple(processor.image_mean), tuple(processor.image_std))


def inputs_of(reader: Reader, what: Shown) -> dict[str, Any]:
    """`input_ids` [1, S] and, with pictures, `pixel_values` and `image_sizes`."""
    image_processor = copy.copy(reader.processor.image_processor)
    image_processor.num_crops = what.num_crops
    image_processor.image_mean, image_processor.image_std = list(what.mean), list(what.std)
    processor = type(reader.processor)(image_processor, reader.processor.tokenizer)
    found = dict(processor(text=what.prompt, images=list(what.images), return_tensors="pt"))
    ids = found["input_ids"][0].tolist()
    bos = processor.tokenizer.bos_token_id
    if not what.later_bos:
        ids = [token for place, token in enumerate(ids) if place == 0 or token != bos]
    if what.extra_bos:
        ids = [bos, *ids]
    found["input_ids"] = found["input_ids"].new_tensor([ids])
    found["attention_mask"] = found["input_ids"].new_ones(1, len(ids))
    return found


def known_mistakes(num_crops: int) -> Iterator[Mistake]:
    """All that are looked for, the usual ones first.

    Args:
        num_crops: of training.
    """
    for crops in CROPS:
        if crops != num_crops:
            yield Mistake(
                f"crops_{crops}",
                f"pictures cut into at most {crops} crop(s) instead of {num_crops}",
                _with_crops(crops),
            )
    yield from (Mistake(name, what, _with_prompt(change)) for name, what, change in _TEMPLATES)
    yield Mistake("second_bos", "a prompt that begins with <s> twice", lambda found: replace(found, extra_bos=True))
    yield Mistake(
        "no_later_bos",
        "text behind the picture without the <s> that the published processor puts there",
        lambda found: replace(found, later_bos=False),
    )
    yield from (Mistake(name, what, _with_images(change)) for name, what, change in _PICTURES)
    yield Mistake("no_picture", "a prompt without its picture", lambda found: replace(_without_tags(found), images=()))
    for name, what, mean, std in _NORMALISATIONS:
        yield Mistake(name, what, _normalised(mean, std))


def question_of(prompt: str) -> str:
    """The question of a prompt of ours, as a user of a server would write it."""
    return _parts(prompt)[1]


def _with_crops(crops: int) -> Callable[[Shown], Shown]:
    return lambda found: replace(found, num_crops=crops)


def _with_prompt(change: Callable[[str], str]) -> Callable[[Shown], Shown]:
    return lambda found: replace(found, prompt=change(found.prompt))


def _with_images(change: Callable[[Image.Image], Image.Image]) -> Callable[[Shown], Shown]:
    return lambda found: replace(found, images=tuple(map(change, found.images)))


def _normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Shown], Shown]:
    return lambda found: replace(found, mean=mean, std=std)


_TAGS = re.compile(r"(?:<\|image_\d+\|>)*")
_USER, _END, _ASSISTANT = "<|user|>\n", "<|end|>\n", "<|assistant|>\n"


def _parts(prompt: str) -> tuple[str, str]:
    """Picture tags and question of a prompt of ours."""
    text = prompt.removeprefix(_USER).removesuffix(_END + _ASSISTANT)
    tags = _TAGS.match(text)
    end = tags.end() if tags else 0
    return text[:end], text[end:]


def _prompt(tags: str, question: str, between: str = "") -> str:
    return f"{_USER}{tags}{between}{question}{_END}{_ASSISTANT}"


def _text_first(prompt: str, between: str = "") -> str:
    tags, question = _parts(prompt)
    return _prompt(question, tags, between)


def _without_tags(found: Shown) -> Shown:
    return replace(found, prompt=_prompt("", _parts(found.prompt)[1]))


def _each_on_a_line(prompt: str) -> str:
    tags, question = _parts(prompt)
    return _prompt(tags.replace("|><|", "|>\n<|"), question, "\n")


_TEMPLATES: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("newline_after_tag", "a prompt with a newline between picture and question", _each_on_a_line),
    ("space_after_tag", "a prompt with a space between picture and question", lambda p: _prompt(*_parts(p), " ")),
    ("no_newline_after_user", "a prompt without the newline after <|user|>", lambda p: p.replace(_USER, "<|user|>")),
    (
        "no_newline_after_assistant",
        "a prompt without the newline after <|assistant|>",
        lambda p: p.removesuffix("\n"),
    ),
    ("no_end", "a prompt without <|end|> behind the question", lambda p: p.replace(_END, "\n")),
    ("no_newline_after_end", "a prompt without the newline after <|end|>", lambda p: p.replace(_END, "<|end|>")),
    (
        "spaces_after_tokens",
        "a prompt with a space behind <|user|> and <|end|>, as decoding and encoding it again puts there",
        lambda p: p.replace("|>\n", "|> \n"),
    ),
    ("no_newlines", "a prompt without any newline of the template", lambda p: p.replace("|>\n", "|>")),
    ("text_first", "a prompt with the question before the picture", _text_first),
    ("text_first_line", "a prompt with the question on a line before the picture", lambda p: _text_first(p, "\n")),
    (
        "system_prompt",
        "a prompt with a system message before it",
        lambda p: "<|system|>\nYou are a helpful assistant.<|end|>\n" + p,
    ),
    ("no_template", "picture and question without the chat template", lambda p: "".join(_parts(p))),
    ("no_question", "a prompt without its question", lambda p: _prompt(_parts(p)[0], "")),
)


def _channels_swapped(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge("RGB", (blue, green, red))


def _blank(colour: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.new("RGB", image.size, (colour,) * 3)


def _squared(image: Image.Image) -> Image.Image:
    side = max(image.size)
    return image.resize((side, side), Image.Resampling.BICUBIC)


_PICTURES: tuple[tuple[str, str, Callable[[Image.Image], Image.Image]], ...] = (
    ("bgr", "pictures with swapped channels (BGR instead of RGB)", _channels_swapped),
    ("grey", "pictures without their colours", lambda image: image.convert("L").convert("RGB")),
    ("black", "black pictures", _blank(0)),
    ("white", "white pictures", _blank(255)),
    ("square", "pictures stretched to squares", _squared),
    ("mirrored", "mirrored pictures", lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    ("upside_down", "pictures turned by 180 degrees", lambda image: image.transpose(Image.Transpose.ROTATE_180)),
)
_NORMALISATIONS: tuple[tuple[str, str, tuple[float, ...], tuple[float, ...]], ...] = (
    (
        "not_normalised",
        "pictures that are not normalised: values from 0 to 1, without CLIP's mean and standard deviation",
        (0.0,) * 3,
        (1.0,) * 3,
    ),
    ("not_scaled", "pictures with values from 0 to 255", (0.0,) * 3, (1 / 255,) * 3),
    ("half", "pictures normalised with mean 0.5 and standard deviation 0.5", (0.5,) * 3, (0.5,) * 3),
    (
        "imagenet",
        "pictures normalised with ImageNet's mean and standard deviation",
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
    ),
)
