"""The card's words follow from the source: base, licence, engines, calibration; reference.json is read strictly."""

import json
from pathlib import Path

import pytest
import yaml

from appraiser.backbone import EMBEDDED_MODELS
from appraiser.cli.export import EMBEDDED
from appraiser.config import config_from
from appraiser.errors import CheckpointError
from appraiser.exporting.card import card
from appraiser.exporting.reference import Checks, FirstToken, Reference, ReferenceAnswer, read_reference
from appraiser.exporting.source import ModelSource, find_source
from appraiser.trained_task import TrainedTask

ANSWER = ReferenceAnswer(
    id="7", origin="sample", pictures=["reference/01.jpg"], prompt="?", num_image_tokens=13, input_ids_sha256="a",
    pixel_values_sha256="b", answer="Red Bag", answer_ids=[5], first_tokens=[FirstToken(id=5, token=None, logit=1.5)],
)  # fmt: skip


def reference(weights: str = "float32", **checks) -> Reference:
    known = {"num_products": 1, "num_same_answers": 1} | checks
    return Reference(
        appraiser="0.1.0", torch="2", transformers="5", device="cpu", attention="sdpa", weights=weights,
        checks=Checks(**known), products=[ANSWER],
    )  # fmt: skip


def hub_run(tmp_path: Path, base: str | None = None, **model) -> ModelSource:
    """A run on the published model, of which only the settings are there."""
    name = "microsoft/Phi-3-vision-128k-instruct"
    (tmp_path / "adapter_config.json").write_text(json.dumps({"use_dora": False, "r": 8}))
    (tmp_path / "config.json").write_text(json.dumps({"img_processor": {"name": "clip_vision_model"}}))
    (tmp_path / "config.yaml").write_text(f"model: {{base: {name}}}\ndata: {{dataset: gone}}\nrun: {{out: here}}\n")
    settings = {"model": {"base": name} | model, "data": {"dataset": "gone"}, "run": {"out": "here"}}
    trained = TrainedTask(base=base, currency="EUR", choices={"category": ("BAGS", "HATS")})
    return ModelSource(str(tmp_path), tmp_path, trained, tmp_path, config_from(settings, "test"))


def test_a_run_on_the_published_model(tmp_path):
    text = card(hub_run(tmp_path), reference(), num_crops=4, is_adapter=False)
    head = yaml.safe_load(text.split("---")[1])
    assert (head["base_model"], head["license"]) == ("microsoft/Phi-3-vision-128k-instruct", "mit")
    assert "Prices are in EUR" in text
    assert "category had 2 values: BAGS, HATS" in text
    assert "at most 4 crop(s)" in text
    assert "by their source vLLM" in text
    assert "vLLM cannot load it" not in text
    assert "were not calibrated" in text
    assert "**This model was not evaluated**" in text
    assert "The data set was no longer there" in text


def test_an_adapter_of_four_bits_says_what_it_was_trained_on(tmp_path):
    found = hub_run(tmp_path, base="microsoft/Phi-3-vision-128k-instruct", quantize="nf4")
    text = card(found, reference(), num_crops=4, is_adapter=True)
    assert "LoRA of rank 8. The adapter alone" in text
    assert "trained on a base in 4 bits (nf4)" in text
    assert "vLLM cannot serve this adapter" in text
    assert 'model_folder("microsoft/Phi-3-vision-128k-instruct")' in text
    assert "trained_parts" not in text


def test_merging_and_rounding_are_told_apart():
    checks = {"merge_difference": 3e-6, "merge_tolerance": 1e-4, "rounding_difference": 0.02, "num_same_answers": 0}
    text = card(find_source("phi3v-tiny"), reference("bfloat16", **checks), num_crops=1, is_adapter=False)
    assert "logits at most 3.0e-06 of the largest apart (allowed: 1e-04)" in text
    assert "Rounded to bfloat16: 0 of 1 answers equal" in text
    assert "vLLM cannot load it" in text


def test_reference_json_is_read_back_and_damage_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"no reference\.json"):
        read_reference(tmp_path)
    path = tmp_path / "reference.json"
    path.write_text(reference().model_dump_json())
    assert read_reference(tmp_path) == reference()
    path.write_text(reference().model_copy(update={"format": 99}).model_dump_json())
    with pytest.raises(CheckpointError, match="format 99"):
        read_reference(tmp_path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        read_reference(tmp_path)


def test_an_export_of_the_first_format_is_still_read(tmp_path):
    document = json.loads(reference().model_dump_json())
    for name in ("num_prompt_tokens", "answer_logprobs", "runner_up_logprobs"):
        del document["products"][0][name]
    del document["num_crops"]
    (tmp_path / "reference.json").write_text(json.dumps(document | {"format": 1}))
    found = read_reference(tmp_path)
    assert (found.format, found.num_crops, found.products[0].answer_logprobs) == (1, None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"pictures": ["../secret.jpg"]},
        {"pictures": ["/etc/passwd"]},
        {"pictures": ["reference/../../secret.jpg"]},
        {"pictures": []},
        {"answer_logprobs": [-0.1, -0.2]},
    ],
)
def test_a_reference_names_its_own_pictures_and_one_probability_a_token(tmp_path, change):
    document = json.loads(reference().model_dump_json())
    document["products"][0] |= change
    (tmp_path / "reference.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="damaged"):
        read_reference(tmp_path)


def test_the_command_line_knows_the_embedded_models():
    assert EMBEDDED == EMBEDDED_MODELS
