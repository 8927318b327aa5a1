"""What the model, its configuration and its processor accept, and what they say about the rest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import shared_folder
from huggingface_hub.errors import StrictDataclassClassValidationError
from PIL import Image
from tiny import CROP, formula_picture, tiny_backbone, tiny_config, tiny_image_processor
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from appraiser.backbone import Backbone, Reader, load_reader, model_folder
from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration, Phi3VImageProcessor, Phi3VProcessor

ONE = "<|user|>\n<|image_1|>\nWhat is this?<|end|>\n<|assistant|>\n"
TWO = "<|user|>\n<|image_1|>\n<|image_2|>\nCompare.<|end|>\n<|assistant|>\n"
# The strict base class wraps a configuration's ValueError and repeats its message.
CONFIG_ERRORS = (ValueError, StrictDataclassClassValidationError)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(tmp_path_factory.mktemp("inputs"), num_crops=6)


@pytest.fixture
def inputs(backbone: Backbone) -> dict[str, Tensor]:
    """A prompt with two pictures of different crop grids: 3 x 2 and 1 x 4 crops."""
    pictures = [formula_picture(60, 90), formula_picture(120, 30)]
    return dict(backbone.processor(TWO, pictures, return_tensors="pt"))


# ------------------------------------------------------------------------------------------- pictures in the model


def test_pictures_without_placeholders_are_refused(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    text_only = inputs | {"input_ids": inputs["input_ids"].clamp(min=0)}
    with pytest.raises(ValueError, match="pictures were given, but input_ids hold no picture placeholders"):
        backbone.model(**text_only)


def test_placeholders_without_pictures_are_refused(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    for absent in ("pixel_values", "image_sizes"):
        rest = {key: value for key, value in inputs.items() if key != absent}
        with pytest.raises(ValueError, match="hold picture placeholders, but pixel_values or image_sizes are missing"):
            backbone.model(**rest)


def test_a_forgotten_picture_is_refused(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    first = {key: inputs[key][:1] for key in ("pixel_values", "image_sizes")}
    with pytest.raises(ValueError, match=r"places for 62 image tokens, the 1 pictures have 37.*same num_crops"):
        backbone.model(**(inputs | first))


def test_pictures_made_with_another_crop_budget_are_refused(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    other = backbone.processor.image_processor([formula_picture(60, 90), formula_picture(120, 30)], num_crops=2)
    pixels = {key: other[key] for key in ("pixel_values", "image_sizes")}
    with pytest.raises(ValueError, match=r"use the same num_crops for the text and the pictures"):
        backbone.model(**(inputs | pixels))


def test_two_pictures_in_the_wrong_order_are_refused(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    swapped = {key: inputs[key].flip(0) for key in ("pixel_values", "image_sizes")}
    with pytest.raises(ValueError, match="image tokens, but its run of placeholders has"):
        backbone.model(**(inputs | swapped))


def test_pictures_of_two_rows_in_the_wrong_order_are_refused(backbone: Backbone) -> None:
    # In sum the counts agree, and both runs hold -1: only the length of each run tells.
    pictures = [formula_picture(60, 90), formula_picture(120, 30)]
    batch = dict(backbone.processor([ONE, ONE], [[picture] for picture in pictures], return_tensors="pt"))
    swapped = {key: batch[key].flip(0) for key in ("pixel_values", "image_sizes")}
    with pytest.raises(ValueError, match="image tokens, but its run of placeholders has"):
        backbone.model(**(batch | swapped))


@pytest.mark.parametrize("size", [(CROP + 1, CROP), (CROP, 3), (0, CROP)])
def test_image_sizes_that_are_not_whole_crops_are_refused(
    size: tuple[int, int], backbone: Backbone, inputs: dict[str, Tensor]
) -> None:
    sizes = torch.tensor([size, inputs["image_sizes"][1].tolist()])
    with pytest.raises(ValueError, match=rf"multiples of {CROP} px \(height, width\), got \({size[0]}, {size[1]}\)"):
        backbone.model(**(inputs | {"image_sizes": sizes}))


def test_image_sizes_with_more_crops_than_pixels_are_refused(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"image_sizes ask for \[7, 5\] views, pixel_values hold 2 pictures of 3"):
        backbone.model(**(inputs | {"pixel_values": inputs["pixel_values"][:, :3]}))


def test_fewer_pictures_than_sizes_are_refused(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"image_sizes ask for \[7, 5\] views, pixel_values hold 1 pictures"):
        backbone.model(**(inputs | {"pixel_values": inputs["pixel_values"][:1]}))


def test_ids_and_embeddings_together_or_neither_are_refused(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    ids = torch.tensor([[1, 5, 9]])
    embeds = backbone.model.get_input_embeddings()(ids)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        backbone.model(input_ids=ids, inputs_embeds=embeds)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        backbone.model()
    with torch.no_grad():
        assert torch.equal(backbone.model(inputs_embeds=embeds).logits, backbone.model(ids).logits)


def test_decoding_steps_may_still_be_given_the_pictures(backbone: Backbone, inputs: dict[str, Tensor]) -> None:
    # Generation loops pass pixel_values at every step; only the first has placeholders.
    with torch.no_grad():
        first = backbone.model(**inputs, use_cache=True)
        token = first.logits[:, -1:].argmax(-1)
        pictures = {key: inputs[key] for key in ("pixel_values", "image_sizes")}
        step = backbone.model(token, past_key_values=first.past_key_values, **pictures)
    assert step.logits.shape == (1, 1, backbone.config.vocab_size)


# ------------------------------------------------------------------------------------------------- the processor


@pytest.mark.parametrize(
    ("prompt", "num_pictures", "message"),
    [
        (ONE, 0, "the prompt has 1 picture tags but 0 pictures were given"),
        (ONE, 2, "the prompt has 1 picture tags but 2 pictures were given"),
        ("No tag", 1, "the prompt has 0 picture tags but 1 pictures were given"),
        ("<|image_2|>", 1, r"must be <\|image_1\|> to <\|image_1\|>.*found: <\|image_2\|>"),
        ("<|image_1|><|image_1|>", 2, "each once and in this order"),
        ("<|image_2|><|image_1|>", 2, r"found: <\|image_2\|>, <\|image_1\|>"),
        ("<|image_0|>", 1, "each once and in this order"),
    ],
)
def test_tags_that_do_not_fit_the_pictures_are_refused(
    prompt: str, num_pictures: int, message: str, backbone: Backbone
) -> None:
    with pytest.raises(ValueError, match=message):
        backbone.processor(prompt, [formula_picture(20, 20)] * num_pictures)


def test_lists_of_other_lengths_are_refused(backbone: Backbone) -> None:
    picture = formula_picture(20, 20)
    with pytest.raises(ValueError, match="2 prompts but pictures for 1"):
        backbone.processor([ONE, ONE], [[picture]])
    with pytest.raises(ValueError, match="1 more pictures than picture tags in the 2 prompts"):
        backbone.processor([ONE, ONE], [picture] * 3)
    with pytest.raises(ValueError, match="give text, pictures or both"):
        backbone.processor()


def test_truncation_never_cuts_a_picture(backbone: Backbone) -> None:
    picture = formula_picture(20, 20)
    length = len(backbone.processor(ONE, picture)["input_ids"])
    with pytest.raises(ValueError, match="max_length 8 would cut image tokens of a row of"):
        backbone.processor(ONE, picture, max_length=8, truncation=True)
    assert len(backbone.processor(ONE, picture, max_length=length - 2, truncation=True)["input_ids"]) == length - 2


def test_something_else_than_a_picture_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match=r"picture 2 is a Tensor, not a PIL picture; open it with PIL first"):
        backbone.processor.image_processor([formula_picture(9, 9), torch.zeros(3, 9, 9)])


def test_a_thread_of_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"picture of 5000 x 1 pixels is too long and thin: at most 336 : 1"):
        Phi3VImageProcessor(num_crops=1)(Image.new("RGB", (5000, 1)))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [({"num_crops": 0}, "num_crops must be at least 1"), ({"num_img_tokens": 10}, "must be a square number, got 10")],
)
def test_impossible_processor_settings_are_refused(settings_: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Phi3VImageProcessor(**settings_)


def test_an_unknown_padding_side_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="'left' or 'right', got 'middle'"):
        backbone.processor([ONE], [formula_picture(9, 9)], padding_side="middle")


def test_colour_modes_are_converted_as_published() -> None:
    processor = tiny_image_processor(2)
    picture = formula_picture(40, 30)
    for mode in ("L", "RGBA", "P", "1", "CMYK"):
        other = picture.convert(mode)
        expected = processor(other.convert("RGB"))["pixel_values"]
        assert torch.equal(processor(other)["pixel_values"], expected), mode


# ----------------------------------------------------------------------------------------------- the configuration


def rope(**changes: Any) -> dict[str, Any]:
    return {"rope_scaling": {"type": "su", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4} | changes}


def pictures(**changes: Any) -> dict[str, Any]:
    base = tiny_config().img_processor
    return {"img_processor": base | {"clip_config": base["clip_config"] | changes}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (rope(short_factor=[1.0] * 5), r"rope_scaling.short_factor must be a list of 4 numbers .*got 5"),
        (rope(long_factor=[1.0] * 3), r"rope_scaling.long_factor must be a list of 4 numbers .*got 3"),
        (rope(long_factor=2.0), r"rope_scaling.long_factor must be a list .*got 2.0"),
        (rope(type="linear"), "rope_scaling type must be one of su, longrope, yarn, got 'linear'"),
        (rope(type=None), "rope_scaling type must be one of su, longrope, yarn, got None"),
        (pictures(image_size=35), "image_size 35 must be a multiple of twice the patch_size 7"),
        (pictures(image_size=30), "image_size 30 must be a multiple of twice the patch_size 7"),
        (pictures(hidden_size=48), "img_processor.image_dim_out 24 is not the tower's hidden_size 48"),
        ({"embd_layer": {"hd_transform_order": "glb_sub"}}, "published models use 'sub_glb' and 'mlp'"),
        ({"embd_layer": {"projection_cls": "linear"}}, "published models use 'sub_glb' and 'mlp'"),
        ({"hidden_size": 30}, "hidden_size 30 is not a multiple of num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"sliding_window": 128}, "sliding_window 128 is shorter than max_position_embeddings"),
    ],
)
def test_configurations_that_no_phi3_vision_has_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CONFIG_ERRORS, match=message):
        tiny_config(**changes)


@pytest.fixture(scope="module")
def published() -> Phi3VConfig:
    return Phi3VConfig.from_pretrained(shared_folder("spec") / "phi3_vision_config.json")


def test_the_published_configuration_reads_with_all_its_numbers(published: Phi3VConfig) -> None:
    expected = {
        "model_type": "phi3_v",
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "head_dim": 96,
        "num_key_value_heads": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "initializer_range": 0.02,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 32000,
        "rope_type": "su",
        "tokens_per_crop_side": 12,
        "answer_stop_ids": [32007, 32000],
    }
    assert {key: getattr(published, key) for key in expected} == expected
    assert published.dtype == torch.bfloat16
    assert published.rope_magnitude == pytest.approx(1.1902380714238083, abs=1e-15)
    factors = json.loads((shared_folder("spec") / "rope_factors.json").read_text())["phi3_vision"]
    for name in ("short_factor", "long_factor"):
        assert len(published.rope_scaling[name]) == 48
        assert published.rope_scaling[name] == factors[name]
    assert published.clip_config == {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "layer_norm_eps": 1e-5,
    }
    assert {key: published.img_processor[key] for key in ("name", "image_dim_out", "num_img_tokens")} == {
        "name": "clip_vision_model",
        "image_dim_out": 1024,
        "num_img_tokens": 144,
    }
    assert published.embd_layer == {
        "embedding_cls": "image",
        "hd_transform_order": "sub_glb",
        "projection_cls": "mlp",
        "use_hd_transform": True,
        "with_learnable_separator": True,
    }


def test_the_defaults_are_the_published_values(published: Phi3VConfig) -> None:
    default = Phi3VConfig().to_dict()
    differ = {key for key, value in published.to_dict().items() if default.get(key) != value}
    assert differ <= {"_name_or_path", "rope_scaling", "sliding_window", "torch_dtype", "transformers_version"}


def test_the_published_configuration_does_not_pull_in_flash_attention(published: Phi3VConfig) -> None:
    file = json.loads((shared_folder("spec") / "phi3_vision_config.json").read_text())
    assert file["_attn_implementation"] == "flash_attention_2"
    assert not hasattr(published, "auto_map")
    with torch.device("meta"):
        model = Phi3VForConditionalGeneration(published)
    assert model.config._attn_implementation == "sdpa"


def test_a_phi35_style_configuration_reads_too(tmp_path: Path) -> None:
    spec = shared_folder("spec")
    content = json.loads((spec / "phi3_vision_config.json").read_text())
    factors = json.loads((spec / "rope_factors.json").read_text())
    [name] = [key for key in factors if "3.5" in key or "35" in key or "3_5" in key]
    lists = {key: factors[name][key] for key in ("short_factor", "long_factor")}
    content |= {"rope_scaling": {"type": "longrope"} | lists, "sliding_window": 262144}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = Phi3VConfig.from_pretrained(tmp_path)
    assert config.rope_type == "longrope"
    assert config.sliding_window == 262144
    assert config.rope_magnitude == pytest.approx(1.1902380714238083, abs=1e-15)
    config.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again/config.json").read_text())
    assert saved["rope_scaling"] == content["rope_scaling"]


def test_su_and_longrope_are_the_same_mathematics(backbone: Backbone) -> None:
    tables = [
        Phi3VForConditionalGeneration(tiny_config(**rope(type=kind))).model.rotary_emb(
            torch.arange(400)[None], torch.float32
        )
        for kind in ("su", "longrope")
    ]
    assert all(torch.equal(a, b) for a, b in zip(*tables, strict=True))


def test_yarn_differs_in_its_magnitude_only() -> None:
    su, yarn = (tiny_config(**rope(type=kind)) for kind in ("su", "yarn"))
    assert su.rope_magnitude == pytest.approx(math.sqrt(1 + math.log(8) / math.log(256)))
    assert yarn.rope_magnitude == pytest.approx(0.1 * math.log(8) + 1)


def test_plain_rotary_embeddings_have_no_magnitude_and_one_list() -> None:
    config = tiny_config(rope_scaling=None)
    assert config.rope_magnitude == 1.0
    short, long = Phi3VForConditionalGeneration(config).model.rotary_emb.frequencies(torch.device("cpu"))
    assert torch.equal(short, long)
    expected = torch.tensor([10000.0 ** (-2 * k / config.head_dim) for k in range(config.head_dim // 2)])
    assert torch.allclose(short, expected, rtol=1e-6)


def test_stop_tokens_may_be_named() -> None:
    assert tiny_config(stop_token_ids=[7, 9]).answer_stop_ids == [7, 9]
    assert "stop_token_ids" not in tiny_config().to_dict()
    assert tiny_config(stop_token_ids=[7]).to_dict()["stop_token_ids"] == [7]


# The pipeline has the tokens that end an answer from the tokenizer, a plain `generate` from the configuration.
def test_answers_of_our_own_models_end_on_the_tokens_that_the_configuration_names(backbone: Backbone) -> None:
    assert backbone.stop_token_ids == backbone.config.answer_stop_ids
    embedded = Phi3VConfig.from_pretrained(model_folder("phi3v-tiny"))
    assert load_reader("phi3v-tiny").stop_token_ids == embedded.answer_stop_ids


def test_answers_of_the_published_models_end_on_the_tokens_of_the_configuration(phi3_tokenizer_folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(phi3_tokenizer_folder)
    published = Reader(Phi3VProcessor(tiny_image_processor(), tokenizer), "published")
    assert published.stop_token_ids == Phi3VConfig().answer_stop_ids


def test_fresh_weights_are_small_and_defined() -> None:
    torch.manual_seed(0)
    model = Phi3VForConditionalGeneration(tiny_config())
    for name, value in model.named_parameters():
        assert torch.isfinite(value).all(), name
        assert value.abs().max() <= 1.0, name
    assert not model.model.embed_tokens.weight[model.config.pad_token_id].any()
    for separator in (model.model.vision_embed_tokens.glb_GN, model.model.vision_embed_tokens.sub_GN):
        assert 0.01 < separator.std() < 0.03
