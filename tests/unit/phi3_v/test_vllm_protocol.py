"""What vLLM's phi3v.py asks of the processor, step by step as its source does; vLLM itself is not run."""

import importlib
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from tiny import formula_picture, tiny_backbone
from transformers import AutoConfig, AutoProcessor, AutoTokenizer

from appraiser import vllm_plugin
from appraiser.backbone import Reader
from appraiser.phi3_v import Phi3VConfig, Phi3VImageProcessor, Phi3VProcessor
from appraiser.verifying.mistakes import inputs_of, known_mistakes, shown

PROMPT = "<|user|>\n<|image_1|>What is shown in this image?<|end|>\n<|assistant|>\n"
GROUP, TARGET = "vllm.general_plugins", "appraiser.vllm_plugin:register"
PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("vllm")
    tiny_backbone(place, num_crops=4)
    return place


@pytest.fixture
def processor(folder, monkeypatch):
    """As vLLM loads it: with its own tokenizer, a revision, and without remote code."""
    monkeypatch.setattr(Phi3VProcessor, "reads_tags_alone", False)  # put back after the test
    vllm_plugin.register()
    return AutoProcessor.from_pretrained(
        folder, tokenizer=AutoTokenizer.from_pretrained(folder), revision=None, trust_remote_code=False
    )


def test_the_entry_point_is_declared_and_found_where_it_is_installed():
    assert PROJECT["entry-points"][GROUP] == {"appraiser": TARGET}
    # An installation from before the entry point does not have it.
    found = [entry for entry in entry_points(group=GROUP) if entry.name == "appraiser"]
    assert all(entry.load() is vllm_plugin.register for entry in found)
    module, _, function = TARGET.partition(":")
    assert getattr(importlib.import_module(module), function) is vllm_plugin.register


def test_registering_makes_the_auto_classes_know_the_model_in_a_fresh_process(folder):
    code = (
        "import sys\n"
        "from appraiser.vllm_plugin import register\n"
        "assert not {'torch', 'transformers', 'vllm'} & set(sys.modules), 'looking it up loads nothing'\n"
        "register(); register()\n"
        "from transformers import AutoConfig, AutoProcessor\n"
        f"print(type(AutoConfig.from_pretrained({str(folder)!r})).__module__, "
        f"type(AutoProcessor.from_pretrained({str(folder)!r})).__name__, 'vllm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["appraiser.phi3_v.configuration_phi3_v", "Phi3VProcessor", "False"]


def test_the_configuration_has_what_the_model_reads(folder):
    config = AutoConfig.from_pretrained(folder)
    assert isinstance(config, Phi3VConfig)
    assert config.architectures == ["Phi3VForCausalLM"]
    assert (config.img_processor["image_dim_out"], config.img_processor["num_img_tokens"]) == (24, 4)
    assert config.embd_layer["use_hd_transform"] is config.embd_layer["with_learnable_separator"] is True
    assert config.embd_layer["hd_transform_order"] == "sub_glb"


def test_picture_tags_are_a_list_by_number(processor):
    tags = processor.img_tokens
    assert isinstance(tags, list)
    assert tags[:2] == ["<|image_1|>", "<|image_2|>"]
    assert tags.__getitem__(998) == "<|image_999|>"
    assert "".join(tags[:0]) == ""


@pytest.mark.parametrize("num_crops", [1, 4, 16])
def test_the_picture_that_vllm_reserves_memory_for_can_be_counted(processor, num_crops):
    """50 x 8000 pixels, with the published crops of 336 px."""
    published = Phi3VProcessor(Phi3VImageProcessor(num_crops=num_crops), processor.tokenizer)
    count = published.calc_num_image_tokens_from_image_size(width=50, height=8000)
    assert count == (num_crops + 1) * 144 + 1 + (num_crops + 1) * 12


@pytest.mark.parametrize("size", [(60, 33), (28, 28), (33, 90)])
def test_image_tokens_are_counted_from_the_size_alone(processor, size):
    count = processor.calc_num_image_tokens_from_image_size(width=size[0], height=size[1])
    ids = processor(text=PROMPT, images=[formula_picture(*size)], return_tensors="pt")["input_ids"]
    assert int((ids < 0).sum()) == count
    assert processor.num_img_tokens == 4


def test_text_is_read_alone_and_pictures_alone(processor):
    """With its cache of pictures vLLM asks for the text without pictures, and for pictures with nothing but tags."""
    picture = formula_picture(60, 33)
    whole = processor(text=PROMPT, images=[picture], return_tensors="pt")
    alone = processor(text=PROMPT, return_tensors="pt", truncation=False)["input_ids"]
    assert alone.tolist() == [processor.tokenizer(PROMPT).input_ids]
    pictures = processor(text=processor.img_tokens[0], images=[picture], return_tensors="pt")
    assert torch.equal(pictures["pixel_values"], whole["pixel_values"])
    assert torch.equal(pictures["image_sizes"], whole["image_sizes"])


def test_a_prompt_that_is_decoded_and_encoded_again_has_spaces_that_verify_looks_for(processor):
    """vLLM does so before it puts the picture tokens in, and takes spaces away behind the tokens that
    `special_tokens_map` names; transformers 5 names neither <|user|> nor <|end|> there."""
    tokenizer = processor.tokenizer
    text = tokenizer.decode(tokenizer(PROMPT).input_ids[1:])
    for token in tokenizer.special_tokens_map.values():
        text = text.replace(f"{token} ", token)
    again = [tokenizer(part).input_ids for part in text.split(processor.img_tokens[0])]
    spaces = next(mistake for mistake in known_mistakes(4) if mistake.name == "spaces_after_tokens")
    picture = formula_picture(60, 33)
    reader = Reader(processor, "here")
    ids = inputs_of(reader, spaces.apply(shown(reader, PROMPT, (picture,))))["input_ids"][0].tolist()
    count = processor.calc_num_image_tokens_from_image_size(width=60, height=33)
    assert ids == [*again[0], *[-1] * count, *again[1]]


def test_a_forgotten_picture_stays_an_error_for_everybody_else(folder, monkeypatch):
    monkeypatch.setattr(Phi3VProcessor, "reads_tags_alone", False)
    processor = AutoProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match="0 pictures were given"):
        processor(text=PROMPT, return_tensors="pt")
    vllm_plugin.register()
    with pytest.raises(ValueError, match="0 pictures were given"):
        processor(text=PROMPT, images=[], return_tensors="pt")


def test_the_budget_of_crops_can_be_set_when_it_is_loaded(folder):
    assert AutoProcessor.from_pretrained(folder, num_crops=1).calc_num_image_tokens_from_image_size(60, 33) == 13


def test_the_tokenizer_that_an_engine_loads_reads_prompts_as_ours(folder):
    engine = AutoTokenizer.from_pretrained(folder)
    own = AutoProcessor.from_pretrained(folder).tokenizer
    for text in (PROMPT, "What is shown?", "<|end|>\n", " Price 12"):
        assert engine(text).input_ids == own(text).input_ids


def test_the_template_puts_a_picture_part_right_before_the_question(processor):
    parts = [{"type": "image"}, {"type": "text", "text": "What is shown in this image?"}]
    messages = [{"role": "user", "content": parts}]
    assert processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == PROMPT
