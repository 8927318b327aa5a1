"""Trains the small tokenizer of phi3v-tiny and writes it in the published Phi-3-Vision layout.

It is the published tokenizer in small: byte-pair encoding with byte fallback, `▁` for a space, no pre-tokenizer, the
same added tokens with the same flags. What the processor, the chat template and the stop ids rely on therefore holds
for both. Only the pieces differ; they come from text made here (`questions.py`, `words.txt`).

    ids   0 1 2        <unk> <s> </s>
          3 .. 258     <0x00> .. <0xFF>
          259 ..       pieces, longer ones after their halves        up to NUM_BASE_PIECES
          ..           <|endoftext|> <|assistant|> ... <|image|>     45 added tokens, in the published order
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from appraiser.pretraining.questions import ask, title_case
from appraiser.pretraining.scenes import scene_for

NUM_BASE_PIECES = 1100
NUM_SCENES = 8000
SPACE = "▁"

CONTROL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))

# Letters beyond ASCII that titles and prices in the built-in languages use; all else falls back to bytes.
LETTERS = "".join(map(chr, range(33, 127))) + "éèêàçäöüåøæñ£€\N{RIGHT SINGLE QUOTATION MARK}\N{EN DASH}"

CHAT_TEMPLATE = (
    "{%- for turn in messages -%}"
    "{{ '<|' ~ turn['role'] ~ '|>\\n' ~ turn['content'] ~ '<|end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}{{ '<|assistant|>\\n' }}{%- endif -%}"
)

# The place of each tag among the 45: the published tokenizer has its placeholders between the tags.
_TAGS = {
    0: "<|endoftext|>",
    1: "<|assistant|>",
    6: "<|system|>",
    7: "<|end|>",
    10: "<|user|>",
    44: "<|image|>",
}
_KEEPS_WHITESPACE = frozenset({"<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|end|>", "<|user|>"})
"""Added tokens that leave the whitespace after them alone; the others swallow it (`rstrip`)."""


def build_tokenizer(out: Path) -> None:
    """Train the tokenizer and write its three files into `out`; the same bytes on every call."""
    vocab, merges = _train()
    added = added_tokens(len(vocab))
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "tokenizer.json", _tokenizer_json(vocab, merges, added))
    _write(out / "tokenizer_config.json", _config_json(added))
    _write(out / "special_tokens_map.json", _special_tokens_json())


def added_tokens(num_base: int) -> list[dict[str, Any]]:
    """The control tokens and the 45 tags that follow the base vocabulary, with their flags."""
    names = [*CONTROL]
    num_placeholders = 0
    for place in range(45):
        if place not in _TAGS:
            num_placeholders += 1
        names.append(_TAGS.get(place, f"<|placeholder{num_placeholders}|>"))
    return [
        {
            "id": place if place < len(CONTROL) else num_base + place - len(CONTROL),
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": name not in _KEEPS_WHITESPACE,
            "normalized": False,
            "special": name != "</s>",  # as published: it survives skip_special_tokens
        }
        for place, name in enumerate(names)
    ]


def corpus(num_scenes: int = NUM_SCENES) -> Iterator[str]:
    """The text that decides which pieces exist: answers about scenes, and common words in three spellings."""
    for item in range(num_scenes):
        rng = np.random.default_rng(np.random.SeedSequence([1, item]))
        question, answer = ask(scene_for(1, item), rng)
        yield question
        yield answer
    for weight, words in _word_list():
        if all(word.isupper() for word in words):
            yield from [" ".join(words)] * weight
            continue
        # Title Case counts most: that is how product titles are written.
        for spelling, share in ((title_case, 8), (str.lower, 1), (str.upper, 1)):
            yield from [" ".join(map(spelling, words))] * (weight * share)


def _word_list() -> list[tuple[int, list[str]]]:
    text = (resources.files("appraiser.pretraining") / "words.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [(int(weight), words) for weight, *words in rows]


def _train() -> tuple[dict[str, int], list[list[str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    # Only while training: a piece is letters of one word, with the space before it. Digits and punctuation stay
    # alone, so no merge holds one and the published layout, which has no pre-tokenizer, gives the same pieces.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{SPACE}?\p{{L}}+|."), behavior="isolated")
    alphabet = sorted({*LETTERS, SPACE})
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_BASE_PIECES - len(CONTROL) - len(BYTES),
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(trained["vocab"], key=trained["vocab"].__getitem__)
    vocab = {piece: place for place, piece in enumerate((*CONTROL, *BYTES, *pieces))}
    return vocab, trained["merges"]


def _tokenizer_json(vocab: dict[str, int], merges: list[list[str]], added: list[dict[str, Any]]) -> dict[str, Any]:
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    second = [{"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    first = [bos, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": first,
            "pair": first + second,
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _config_json(added: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added
        },
        "additional_special_tokens": ["<|system|>", "<|end|>", "<|user|>", "<|end|>"],
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "padding_side": "right",
        "sp_model_kwargs": {},
        # Not the published "LlamaTokenizer": from transformers 5 on, that class ignores tokenizer.json's normalizer.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def _special_tokens_json() -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    roles = {
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
    }
    return {
        "additional_special_tokens": ["<|system|>", "<|end|>", "<|user|>", "<|end|>"],
        **{role: {"content": token, **flags} for role, token in roles.items()},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
