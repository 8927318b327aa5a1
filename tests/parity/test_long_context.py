"""A long prompt that fills its cache in chunks gives what one pass gives, in bounded memory (fp32, CPU, tiny models).

`prefill_chunk_size` makes the chunks small here; without it they begin above `PREFILL_CHUNK` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tiny import formula_picture, tiny_backbone
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from appraiser.backbone import Backbone
from appraiser.phi3_v import Phi3VForConditionalGeneration, modeling_phi3_v
from appraiser.phi3_v.growing_cache import SPARE_PLACES

# Sums in another order: measured at most 7e-6 for logits of standard deviation 2.4, 3e-6 for keys and values.
ATOL_LOGITS, ATOL_CACHE = 2e-5, 1e-5
SHORT_LENGTH = 64
NUM_CROPS = 6
NO_END = {"do_sample": False, "eos_token_id": None}

# Prompts and the sizes of their pictures; lengths on both sides of 64, pictures of 13 to 45 tokens.
Prompt = tuple[str, list[tuple[int, int]]]
SHORT_TEXT: Prompt = ("<|user|>\nWhat is this item?<|end|>\n<|assistant|>\n", [])
LONG_TEXT: Prompt = ("<|user|>\n" + "Price of the Red Bag, " * 9 + "please.<|end|>\n<|assistant|>\n", [])
ONE_PICTURE: Prompt = ("<|user|>\n<|image_1|>\nWhat is shown?<|end|>\n<|assistant|>\n", [(30, 30)])
THREE_PICTURES: Prompt = (
    "<|user|>\n<|image_1|>\n<|image_2|>\nand<|image_3|>\nCompare.<|end|>\n<|assistant|>\n",
    [(90, 60), (20, 70), (30, 30)],
)
CASES: dict[str, list[Prompt]] = {
    "short text": [SHORT_TEXT],
    "long text": [LONG_TEXT],
    "one picture": [ONE_PICTURE],
    "three pictures": [THREE_PICTURES],
    "rows of four lengths": [ONE_PICTURE, THREE_PICTURES, SHORT_TEXT, LONG_TEXT],
}


@pytest.fixture(scope="module", params=["sdpa", "blocks"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("long")
    made = tiny_backbone(folder, num_crops=NUM_CROPS, original_max_position_embeddings=SHORT_LENGTH)
    made.model.set_attn_implementation(request.param)
    return made


@pytest.fixture
def model(backbone: Backbone) -> Any:
    return backbone.model


def inputs_of(backbone: Backbone, prompts: list[Prompt]) -> dict[str, Tensor]:
    """One left-padded batch."""
    pictures = [
        [formula_picture(*size, number=10 * row + k) for k, size in enumerate(sizes)]
        for row, (_, sizes) in enumerate(prompts)
    ]
    texts = [text for text, _ in prompts]
    return dict(backbone.processor(texts, pictures if any(pictures) else None, return_tensors="pt"))


def with_positions(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    mask = inputs["attention_mask"]
    return inputs | {"position_ids": (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)}


@torch.no_grad()
def prefill(
    model: Any, inputs: dict[str, Tensor], size: int | None = None, **settings: Any
) -> tuple[Any, DynamicCache]:
    cache = DynamicCache(config=model.config)
    output = model(**inputs, past_key_values=cache, use_cache=True, prefill_chunk_size=size, **settings)
    assert output.past_key_values is cache
    return output, cache


def assert_close(actual: Tensor, expected: Tensor, atol: float = ATOL_LOGITS) -> None:
    assert actual.shape == expected.shape
    worst = (actual - expected).abs().max().item()
    assert worst <= atol, f"differs by {worst:.3g}, allowed {atol:.3g}"


@contextmanager
def seen_by(model: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Tokens of every call of the first decoder layer, crops of every call of the tower."""
    tokens: list[int] = []
    crops: list[int] = []
    tower = model.model.vision_embed_tokens.img_processor.vision_model
    hooks = [
        model.model.layers[0].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[1])),
        tower.register_forward_pre_hook(lambda _, inputs: crops.append(len(inputs[0]))),
    ]
    try:
        yield tokens, crops
    finally:
        for hook in hooks:
            hook.remove()


# ------------------------------------------------------------------------------------------------- same numbers


# 7 cuts every picture; 64 and 65 stand about the short length; none divides all lengths.
@pytest.mark.parametrize("size", [7, 16, 64, 65])
@pytest.mark.parametrize("case", CASES)
def test_chunks_equal_one_pass(case: str, size: int, backbone: Backbone, model: Any) -> None:
    inputs = with_positions(inputs_of(backbone, CASES[case]))
    real = inputs["attention_mask"].bool()
    expected, whole = prefill(model, inputs)
    with seen_by(model) as (tokens, crops):
        actual, parts = prefill(model, inputs, size)
    length = real.shape[1]
    assert tokens == [min(size, length - start) for start in range(0, length, size)]
    assert len(crops) == sum(len(sizes) for _, sizes in CASES[case]), "every picture is seen once"
    assert_close(actual.logits[real], expected.logits[real])
    for mine, theirs in zip(parts.layers, whole.layers, strict=True):
        for name in ("keys", "values"):
            states = (getattr(layer, name).transpose(1, 2)[real] for layer in (mine, theirs))
            assert_close(*states, ATOL_CACHE)


def test_the_cases_lie_on_both_sides_of_the_short_length(backbone: Backbone) -> None:
    lengths = [inputs_of(backbone, [prompt])["input_ids"].shape[1] for prompt in CASES["rows of four lengths"]]
    assert min(lengths) < SHORT_LENGTH < max(lengths)
    assert len(set(lengths)) == len(lengths)


@pytest.mark.parametrize("length", [SHORT_LENGTH - 1, SHORT_LENGTH, SHORT_LENGTH + 1])
def test_every_chunk_has_the_factors_of_the_final_length(length: int, model: Any) -> None:
    ids = torch.arange(length)[None] * 7 % 400
    expected, _ = prefill(model, {"input_ids": ids})
    for size in (SHORT_LENGTH // 2, SHORT_LENGTH - 2):
        actual, _ = prefill(model, {"input_ids": ids}, size)
        assert_close(actual.logits, expected.logits)


@pytest.mark.parametrize("size", [7, 50])
@pytest.mark.parametrize("case", CASES)
def test_the_same_tokens_are_generated(case: str, size: int, backbone: Backbone, model: Any) -> None:
    inputs = inputs_of(backbone, CASES[case])
    expected = model.generate(**inputs, max_new_tokens=8, **NO_END)
    with seen_by(model) as (tokens, _):
        actual = model.generate(**inputs, max_new_tokens=8, prefill_chunk_size=size, **NO_END)
    assert max(tokens) <= size
    assert torch.equal(actual, expected)


def test_rows_of_a_batch_answer_as_alone(backbone: Backbone, model: Any) -> None:
    prompts = CASES["rows of four lengths"]
    batch = inputs_of(backbone, prompts)
    settings = {"max_new_tokens": 8, "prefill_chunk_size": 16, **NO_END}
    answers = model.generate(**batch, **settings)[:, batch["input_ids"].shape[1] :]
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        alone = inputs_of(backbone, [SHORT_TEXT] * row + [prompt])  # pictures are numbered by row
        expected = model.generate(**alone, max_new_tokens=8, **NO_END)[row, alone["input_ids"].shape[1] :]
        assert answer.tolist() == expected.tolist()


@pytest.mark.parametrize("prompt", [ONE_PICTURE, SHORT_TEXT], ids=["picture", "text"])
def test_the_recomputation_at_the_short_length_is_in_chunks_too(prompt: Prompt, backbone: Backbone, model: Any) -> None:
    inputs = inputs_of(backbone, [prompt])
    steps = SHORT_LENGTH - inputs["input_ids"].shape[1] + 6
    assert steps > 6
    expected = model.generate(**inputs, max_new_tokens=steps, **NO_END)
    with seen_by(model) as (tokens, crops):
        actual = model.generate(**inputs, max_new_tokens=steps, prefill_chunk_size=16, **NO_END)
    assert torch.equal(actual, expected)
    assert max(tokens) == 16
    # All of the prompt, then token by token, then again 65 tokens at once.
    assert sum(tokens) == inputs["input_ids"].shape[1] + steps - 2 + SHORT_LENGTH + 1
    assert len(crops) == 2 * len(prompt[1])


def test_kept_features_come_chunk_by_chunk(backbone: Backbone, model: Any) -> None:
    inputs = with_positions(inputs_of(backbone, CASES["rows of four lengths"]))
    expected, _ = prefill(model, inputs, 16)
    pixels = inputs.pop("pixel_values")
    with torch.no_grad():
        features = model.model.vision_embed_tokens.encode_crops(pixels, inputs["image_sizes"])
    with seen_by(model) as (_, crops):
        actual, _ = prefill(model, inputs | {"image_features": features}, 16)
    assert crops == []
    assert_close(actual.logits, expected.logits)


def test_embeddings_can_be_given_instead_of_ids(model: Any) -> None:
    ids = torch.arange(90)[None] * 7 % 400
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
    expected, _ = prefill(model, {"input_ids": ids})
    actual, _ = prefill(model, {"inputs_embeds": embeds}, 16)
    assert_close(actual.logits, expected.logits)


def test_a_cache_with_a_past_is_continued_in_chunks(model: Any) -> None:
    ids = torch.arange(90)[None] * 7 % 400
    total = torch.tensor([90])
    expected, _ = prefill(model, {"input_ids": ids})
    _, cache = prefill(model, {"input_ids": ids[:, :20]}, total_lengths=total)
    with torch.no_grad():
        actual = model(ids[:, 20:], past_key_values=cache, prefill_chunk_size=16, total_lengths=total)
    assert_close(actual.logits, expected.logits[:, 20:])


@pytest.mark.parametrize("keep", [1, 3, 16, 40, 0])
def test_only_the_last_states_are_kept_for_the_logits(keep: int, model: Any) -> None:
    ids = torch.arange(90)[None] * 7 % 400
    expected, _ = prefill(model, {"input_ids": ids})
    for size in (16, None):
        actual, _ = prefill(model, {"input_ids": ids}, size, logits_to_keep=keep)
        assert_close(actual.logits, expected.logits[:, -keep:])
    with torch.no_grad():
        states = model.model(ids, use_cache=True, states_to_keep=keep, prefill_chunk_size=16).last_hidden_state
    assert states.shape[1] == (keep or 90)


# --------------------------------------------------------------------------------------------- when, and when not


def test_long_prompts_are_cut_without_asking(backbone: Backbone, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_of(backbone, [THREE_PICTURES])
    expected = model.generate(**inputs, max_new_tokens=4, **NO_END)
    monkeypatch.setattr(modeling_phi3_v, "PREFILL_CHUNK", 16)
    with seen_by(model) as (tokens, _):
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, **NO_END), expected)
    assert max(tokens) == 16


def test_beams_and_a_given_configuration_work_alike(backbone: Backbone, model: Any) -> None:
    inputs = inputs_of(backbone, [ONE_PICTURE, SHORT_TEXT, LONG_TEXT])
    settings = {"max_new_tokens": 5, "num_beams": 3, **NO_END}
    config = type(model.generation_config)(prefill_chunk_size=16, pad_token_id=model.config.pad_token_id, **settings)
    with seen_by(model) as (tokens, _):
        actual = model.generate(**inputs, generation_config=config)
    assert max(tokens) == 16
    assert config.prefill_chunk_size == 16
    assert torch.equal(actual, model.generate(**inputs, **settings))


def test_what_needs_the_whole_row_runs_in_one_pass(model: Any) -> None:
    ids = torch.arange(90)[None] * 7 % 400
    expected, _ = prefill(model, {"input_ids": ids})
    settings: dict[str, Any] = {"prefill_chunk_size": 16}
    with seen_by(model) as (tokens, _):
        loss = model(ids, labels=ids, use_cache=True, **settings).loss
        loss.backward()
        model.zero_grad()
        with torch.no_grad():
            states = model(ids, output_hidden_states=True, logits_to_keep=1, **settings).hidden_states
            model(ids, use_cache=False, **settings)
            mask = torch.zeros(1, 1, 90, 90).masked_fill_(~torch.ones(90, 90, dtype=torch.bool).tril(), -1e9)
            masked = model(ids, attention_mask=mask, **settings)
    assert tokens == [90] * 4
    assert [state.shape[1] for state in states] == [90] * 3
    assert_close(masked.logits, expected.logits)


def test_a_cache_of_fixed_size_gives_the_same_answer(backbone: Backbone, model: Any) -> None:
    inputs = inputs_of(backbone, CASES["rows of four lengths"])
    expected = model.generate(**inputs, max_new_tokens=4, **NO_END)
    settings = {"max_new_tokens": 4, "cache_implementation": "static", "prefill_chunk_size": 16, **NO_END}
    assert torch.equal(model.generate(**inputs, **settings), expected)


def test_mistakes_in_pictures_are_found_before_the_first_chunk(backbone: Backbone, model: Any) -> None:
    inputs = inputs_of(backbone, [THREE_PICTURES])
    text = inputs | {"input_ids": inputs["input_ids"].clamp(min=0)}
    fewer = inputs | {name: inputs[name][:2] for name in ("pixel_values", "image_sizes")}
    swapped = inputs | {name: inputs[name].flip(0) for name in ("pixel_values", "image_sizes")}
    without = {name: value for name, value in inputs.items() if name != "pixel_values"}
    for given, message in (
        (text, "hold no picture placeholders"),
        (fewer, "the 2 pictures have"),
        (swapped, "its run of placeholders has"),
        (without, "pixel_values or image_sizes are missing"),
    ):
        with seen_by(model) as (tokens, _), pytest.raises(ValueError, match=message):
            prefill(model, given, 16)
        assert tokens == []


# ------------------------------------------------------------------------------------------------------- memory


@dataclass
class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that an operation made."""

    num_bytes: int = 0
    known: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.num_bytes = max(self.num_bytes, tensor.untyped_storage().nbytes())
        return made


def largest_tensor(model: Phi3VForConditionalGeneration, inputs: dict[str, Tensor], size: int) -> int:
    known = [*inputs.values(), *model.parameters()]
    with LargestTensor(known={tensor.untyped_storage().data_ptr() for tensor in known}) as largest:
        prefill(model, inputs, size, logits_to_keep=1)
    return largest.num_bytes


def test_no_tensor_of_a_prompt_in_chunks_is_larger_than_its_cache_or_chunk(backbone: Backbone, model: Any) -> None:
    num_pictures, chunk = 100, 128
    text = "".join(f"<|image_{k + 1}|>\n" for k in range(num_pictures))
    inputs = inputs_of(backbone, [(f"<|user|>\n{text}Compare.<|end|>\n", [(90, 60)] * num_pictures)])
    length, config = inputs["input_ids"].shape[1], model.config
    assert length > 3000
    cache = 4 * config.num_key_value_heads * config.head_dim * (length + SPARE_PLACES)
    activations = 4 * chunk * 2 * config.intermediate_size
    # PyTorch's attention wants a mask, of all queries of a chunk; ours does not.
    mask = 4 * chunk * length if config._attn_implementation == "sdpa" else 0
    assert largest_tensor(model, inputs, chunk) <= max(cache, activations, mask)
    assert largest_tensor(model, inputs, length) > 2 * max(cache, activations)


def test_padded_rows_never_meet_a_mask_of_all_their_tokens(backbone: Backbone, model: Any) -> None:
    chunk, length = 64, 1200
    ids = torch.arange(length).repeat(2, 1) * 7 % 400
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["attention_mask"][1, :400] = 0
    bound = 2 * 4 * chunk * length  # fp32: PyTorch's kernel adds its masks
    assert largest_tensor(model, inputs, chunk) <= bound
    assert largest_tensor(model, inputs, length) > 2 * bound


def test_the_cache_of_a_long_prompt_grows_in_place(model: Any) -> None:
    ids = torch.arange(90)[None] * 7 % 400
    _, cache = prefill(model, {"input_ids": ids}, 16)
    before = [layer.keys.data_ptr() for layer in cache.layers]
    with torch.no_grad():
        for _ in range(20):
            model(ids[:, :1], past_key_values=cache)
    assert [layer.keys.data_ptr() for layer in cache.layers] == before
