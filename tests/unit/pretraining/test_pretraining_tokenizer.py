"""The small tokenizer behaves as the published one does, apart from its pieces."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from appraiser.pretraining.questions import main_question
from appraiser.pretraining.scenes import scene_for
from appraiser.pretraining.tokenizer import CHAT_TEMPLATE, added_tokens, build_tokenizer

REPOSITORY = Path(__file__).parents[3]
SHARED = Path(os.environ.get("APPRAISER_SHARED", REPOSITORY.parent / "shared"))
PUBLISHED = SHARED / "phi3_tokenizer"
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

needs_published = pytest.mark.skipif(
    not (PUBLISHED / "tokenizer.json").exists(),
    reason=f"the published tokenizer is not at {PUBLISHED}; set APPRAISER_SHARED to its parent folder",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(out)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="module")
def published() -> Any:
    return PreTrainedTokenizerFast.from_pretrained(PUBLISHED)


def pieces(tokenizer: Any, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)


def test_two_builds_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in FILES)


def test_the_vocabulary_has_the_promised_order_and_size(folder: Path, tokenizer: Any) -> None:
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert 1000 <= len(vocab) <= 1100
    assert len(tokenizer) == len(vocab) + 45 <= 1152
    assert sorted(vocab.values()) == list(range(len(vocab)))
    assert [vocab[name] for name in ("<unk>", "<s>", "</s>", "<0x00>", "<0x0A>", "<0xFF>")] == [0, 1, 2, 3, 13, 258]
    assert "\n" not in vocab
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|endoftext|>", "<|endoftext|>", "<s>")
    assert tokenizer.padding_side == "right"


@given(text=st.text(max_size=60))
def test_any_text_survives_the_round_trip(tokenizer: Any, text: str) -> None:
    if any(token["content"] in text for token in added_tokens(0)):
        return
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("text", ["", " two  spaces ", "製品: 青いコート", "🧥👜 é€ß", "a\nb\tc", "Price: 1290", "١٢٣"])
def test_chosen_texts_survive_the_round_trip(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@given(number=st.integers(0, 10**9))
def test_digits_stand_alone_and_apart_from_the_space(tokenizer: Any, number: int) -> None:
    assert pieces(tokenizer, f"Full Price: {number}")[-len(str(number)) - 1 :] == ["▁", *str(number)]


def test_no_piece_holds_a_digit_and_more(folder: Path) -> None:
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    with_digit = [p for p in vocab if any(c.isdigit() for c in p) and not p.startswith("<0x")]
    assert sorted(with_digit) == list("0123456789")


def test_newlines_around_the_tags_are_as_published(tokenizer: Any) -> None:
    assert pieces(tokenizer, "<|user|>\n") == ["<|user|>", "▁", "<0x0A>"]
    tag, *rest = pieces(tokenizer, "<|assistant|>\nX")
    assert tag == "<|assistant|>"
    assert "".join(rest) == "▁X"
    assert tokenizer("").input_ids == [1]


def test_the_chat_template_writes_the_published_prompt(tokenizer: Any) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = "<|user|>\na<|end|>\n<|assistant|>\nb<|end|>\n"
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == text
    prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>\na<|end|>\n<|assistant|>\n"


def test_a_main_answer_takes_few_tokens(tokenizer: Any) -> None:
    answers = [main_question(scene_for(5, k), np.random.default_rng(k))[1] for k in range(200)]
    assert np.mean([len(pieces(tokenizer, answer)) for answer in answers]) < 24


@needs_published
def test_added_tokens_have_the_published_flags(folder: Path) -> None:
    def tokens(path: Path, num_base: int) -> list[dict[str, Any]]:
        added = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        return [{**token, "id": token["id"] - (num_base if token["id"] > 2 else 0)} for token in added]

    assert tokens(folder, 1100) == tokens(PUBLISHED, 32000)


@needs_published
def test_everything_but_pieces_is_the_published_structure(folder: Path) -> None:
    ours, theirs = (json.loads((path / "tokenizer.json").read_text(encoding="utf-8")) for path in (folder, PUBLISHED))
    for tree in (ours, theirs):
        del tree["model"]["vocab"], tree["model"]["merges"], tree["added_tokens"]
    assert ours == theirs


@needs_published
@pytest.mark.parametrize("text", ["<|user|>\nHi<|end|>\n<|assistant|>\n", "<|end|>  x", "</s> \n y", "<|image|>\n\n12"])
def test_tags_split_text_where_the_published_tokenizer_does(tokenizer: Any, published: Any, text: str) -> None:
    def shown(which: Any) -> str:
        return which.decode(which(text).input_ids, clean_up_tokenization_spaces=False)

    assert shown(tokenizer) == shown(published)


@needs_published
def test_the_chat_template_agrees_with_the_published_one(tokenizer: Any, published: Any) -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "<|image_1|>\n1"}]
    for conversation in (turns, [*turns, {"role": "assistant", "content": " b "}]):
        for is_open in (True, False):
            ours, theirs = (
                which.apply_chat_template(conversation, tokenize=False, add_generation_prompt=is_open)
                for which in (tokenizer, published)
            )
            assert ours == theirs
