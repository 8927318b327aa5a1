"""README.md of an export: what the model answers, how it is asked and loaded, how good it is, and what was checked."""

from __future__ import annotations

import json
import platform
from pathlib import PurePath
from typing import Any

import peft
import yaml

from appraiser.adapters import TRAINED_PARTS
from appraiser.data.dataset import Manifest
from appraiser.evaluation.report.words import METRICS, MORE_METRICS, lookup, methods, number, other_metrics, short_span
from appraiser.exporting.reference import REFERENCE_FILE, Reference
from appraiser.exporting.source import ModelSource, base_folder

NUM_SHOWN_CHOICES = 20


def card(found: ModelSource, reference: Reference, *, num_crops: int, is_adapter: bool) -> str:
    """The model card.

    Args:
        num_crops: crop budget of the export's processor.
    """
    loading = _adapter_loading(found) if is_adapter else _LOADING
    parts = [
        f"# {found.title}\n\n{_summary(found, reference, is_adapter)}",
        f"## What it answers\n\n{_answers(found, num_crops)}",
        f"## How to load it\n\n{loading}{_PREDICTOR}",
        f"## Data\n\n{_data(found)}",
        f"## Scores\n\n{_scores(found, reference)}",
        f"## What was checked\n\n{_checks(found, reference, is_adapter)}",
        f"## Limits\n\n{_limits(found, is_adapter)}",
        f"## Licence\n\n{_licence(found)}",
        f"## Made with\n\n{_versions(reference)}",
    ]
    return f"---\n{_front_matter(found, is_adapter)}---\n\n" + "\n\n".join(part.strip() for part in parts) + "\n"


def _front_matter(found: ModelSource, is_adapter: bool) -> str:
    head: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": found.origin.licence or "unknown",
        "tags": ["phi3_v", "appraiser", "product-pictures"],
    }
    if found.origin.hub_id:
        head["base_model"] = found.origin.hub_id
    return yaml.safe_dump(head, sort_keys=False)


def _summary(found: ModelSource, reference: Reference, is_adapter: bool) -> str:
    fields = _listed(found.trained.fields)
    kind = (
        "The adapter alone, in PEFT's format."
        if is_adapter
        else f"Whole weights in {reference.weights}, in the published layout of Phi-3-Vision"
        + (", the adapter merged into them." if found.is_adapter else ".")
    )
    return (
        f"From a product's picture it answers {fields}. Made from {found.origin.name} by appraiser "
        f"{reference.appraiser}: {found.method}. {kind}"
    )


def _answers(found: ModelSource, num_crops: int) -> str:
    task, trained = found.trained.task, found.trained
    form = ", ".join(f"{task.label(field)}: {{{field}}}" for field in task.fields)
    lines = [
        f"The prompt, and the form of the answer:\n\n```\n{task.prompt()}{form}\n```\n",
        f"- Language: `{task.language}`. The prompt is the one that it was trained on: another gets another answer.",
        f"- Pictures: upright RGB, transparency on white; at most {num_crops} crop(s), as in training and in "
        "`preprocessor_config.json`. Several pictures of one product go in as `<|image_1|><|image_2|>...`.",
    ]
    if trained.currency and "price" in task.fields:
        lines.append(f"- Prices are in {trained.currency}; the answer does not name it.")
    for field, choices in trained.choices.items():
        shown = ", ".join(choices[:NUM_SHOWN_CHOICES]) + (", ..." if len(choices) > NUM_SHOWN_CHOICES else "")
        lines.append(f"- In training, {field} had {len(choices)} values: {shown}.")
    return "\n".join(lines)


_SETUP = """\
```
pip install appraiser
```

"""
_ASKING = """\
processor = AutoProcessor.from_pretrained("{here}")
example = json.loads(Path("{here}/reference.json").read_text())["products"][0]
pictures = [Image.open(Path("{here}") / path).convert("RGB") for path in example["pictures"]]
inputs = processor(text=example["prompt"], images=pictures, return_tensors="pt")
ids = model.generate(**inputs)[:, inputs["input_ids"].shape[1]:]  # settings: generation_config.json
print(processor.decode(ids[0], skip_special_tokens=True))  # example["answer"] in float32
```

"""
_LOADING = (
    _SETUP
    + """\
With transformers, from this folder (`.`):

```python
import json
from pathlib import Path

import appraiser.phi3_v  # registers phi3_v with the Auto classes; no remote code
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(".")
"""
    + _ASKING.format(here=".")
)
_PREDICTOR = """\
With its answers read, and prices with their intervals:

```python
from appraiser import Predictor
from appraiser.data.pictures import decode

(answer,) = Predictor.load(".").predict([decode(open("reference/01.jpg", "rb").read())])
print(answer.fields, answer.price_interval, answer.text)
```
"""


def _adapter_loading(found: ModelSource) -> str:
    base = base_folder(str(found.trained.base))
    parts = (found.folder / TRAINED_PARTS).is_file()
    restored = f'model.load_state_dict(load_file("{TRAINED_PARTS}"), strict=False)\n' if parts else ""
    imported = "from safetensors.torch import load_file\n" if parts else ""
    why = (
        f"\nBeside the adapter, weights of the base model were trained in full. They are in `{TRAINED_PARTS}`, which "
        "PEFT does not read: without that line answers are wrong.\n"
        if parts
        else ""
    )
    return f"""\
{_SETUP}It goes on top of `{base}`, which is not in this folder. With PEFT:

```python
import json
from pathlib import Path

from appraiser.backbone import model_folder  # registers phi3_v with the Auto classes; no remote code
from peft import PeftModel
from PIL import Image
{imported}from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

model = AutoModelForImageTextToText.from_pretrained(model_folder({json.dumps(base)}), dtype="float32")
{restored}model.generation_config = GenerationConfig.from_pretrained(".")
model = PeftModel.from_pretrained(model, ".")
{_ASKING.format(here=".")}{why}
"""


def _data(found: ModelSource) -> str:
    if found.config is None:
        return "It belongs to no run of appraiser: nothing is known here of the data that it was trained on."
    if found.data is None:
        return "The data set was no longer there when this was exported."
    manifest: Manifest = found.data.manifest
    counts = "".join(f"| {name} | {count:,} |\n" for name, count in manifest.splits.items() if count)
    sample = " It is appraiser's rendered sample catalogue: no photograph is in it." if manifest.sample else ""
    licence = manifest.licence or "not stated by the source"
    split_by = f"column {manifest.split_by}" if manifest.split_by else "product group"
    return (
        f"Products of `{PurePath(manifest.source).name}` (licence: {licence}).{sample} Of {manifest.rows_in:,} rows "
        f"{manifest.ok:,} were kept; content `{manifest.content_sha256[:16]}`.\n\n"
        f"| split | products |\n| --- | ---: |\n{counts}\n"
        f"Split by {split_by}. The checkpoint was chosen on val, price intervals were measured on calib; test is for "
        "scores alone."
    )


def _scores(found: ModelSource, reference: Reference) -> str:
    scores = found.report
    if scores is None:
        return "**This model was not evaluated**: no report of this checkpoint was there when it was exported."
    shown = [metric for metric in (*METRICS, *other_metrics(scores)) if lookup(scores, metric)]
    rows = []
    for method in methods(scores):
        cells = []
        for metric in shown:
            score = lookup(method.part, metric)
            cells.append(f"{number(score['value'], metric.unit)} ({short_span(score, metric.unit)})" if score else "-")
        rows.append(f"| {method.name} | {' | '.join(cells)} |\n")
    more = [
        f"- {metric.name}: {number(score['value'], metric.unit)} ({short_span(score, metric.unit)})\n"
        for metric in MORE_METRICS
        if (score := lookup(scores, metric))
    ]
    point = scores.get("price_point", "answer")
    how = (
        f" Prices are the {point} of the price distribution, as `Predictor` gives them; the price in the plain text "
        "can be another."
        if point != "answer" and "price" in found.trained.fields
        else ""
    )
    rounded = (
        f" They were measured with the weights in float32; here they are rounded to {reference.weights}."
        if reference.checks.rounding_difference is not None
        else ""
    )
    return (
        f"By free generation on the {scores['n']:,} products of the {scores['split']} split, with 95 % intervals."
        f"{how}{rounded}\n\n"
        f"| | {' | '.join(metric.name for metric in shown)} |\n| --- |{' ---: |' * len(shown)}\n{''.join(rows)}\n"
        f"{''.join(more)}\n" + "".join(f"- {sentence}\n" for sentence in scores.get("verdict", []))
    )


def _checks(found: ModelSource, reference: Reference, is_adapter: bool) -> str:
    checks, count = reference.checks, reference.checks.num_products
    origins = [product.origin for product in reference.products]
    own = sum(origin != "sample" for origin in origins)
    pictures = f"{own} from the data set, {count - own} rendered" if own else "all rendered"
    lines = [
        f"Before this folder was published, a fresh process without network loaded it through "
        f"`AutoModelForImageTextToText` and `AutoProcessor` and answered {count} reference products ({pictures}). "
        "Token ids, pixels, answers and the logits of every step were bit for bit those of the model in memory "
        f"({reference.device}, float32, {reference.attention} attention).",
    ]
    if checks.merge_difference is not None:
        lines.append(
            f"- Merged against attached adapter (float32): all answers equal, logits at most "
            f"{checks.merge_difference:.1e} of the largest apart (allowed: {checks.merge_tolerance:.0e})."
        )
    if checks.rounding_difference is not None:
        lines.append(
            f"- Rounded to {reference.weights}: {checks.num_same_answers} of {count} answers equal those of the "
            f"float32 weights, logits at most {checks.rounding_difference:.1e} of the largest apart."
        )
    lines.append(
        f"- `{REFERENCE_FILE}` holds the pictures' names, prompts, hashes, answers and first tokens; `manifest.json` "
        "holds size and SHA-256 of every file but this one."
    )
    lines.append("- `appraiser verify .` asks the same again; `appraiser verify URL --reference .` asks a server.")
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _limits(found: ModelSource, is_adapter: bool) -> str:
    lines = [
        "- A price from a picture is a guess about a picture. It does not know condition, provenance or counterfeit.",
        "- It knows products like those it was trained on, in the prices of their time.",
    ]
    if found.trained.price_intervals is None and "price" in found.trained.fields:
        lines.append("- Its prices were not calibrated: `Predictor` gives no intervals.")
    if found.config is not None and found.config.model.quantize != "none":
        lines.append(
            f"- The adapter was trained on a base in 4 bits ({found.config.model.quantize}). Answers and scores here "
            "are those on the base's full weights."
        )
    if is_adapter:
        lines.append(
            "- vLLM cannot serve this adapter: reports against it say that it rejects adapters on the fused `qkv_proj` "
            "and `gate_up_proj` and ignores those on the vision tower. Export merged weights for it. This project has "
            "not run it."
        )
    else:
        lines.append(
            "- Other engines: by their source vLLM (`Phi3VForCausalLM`), mlx-vlm and onnxruntime-genai read this "
            "layout; this project has run none of them. SGLang and llama.cpp do not know it."
        )
        if not _has_published_tower(found):
            lines.append("- Its tower is not the ViT-L/14-336 that vLLM is written for: vLLM cannot load it.")
    return "\n".join(lines)


def _has_published_tower(found: ModelSource) -> bool:
    base = found.trained.base
    path = found.folder / "config.json" if base is None else None
    if path is None and found.origin.folder is not None:
        path = found.origin.folder / "config.json"
    if path is None or not path.is_file():
        return True  # a Hub id: published
    return "clip_config" not in json.loads(path.read_text(encoding="utf-8")).get("img_processor", {})


def _licence(found: ModelSource) -> str:
    origin = found.origin
    known = f"`{origin.licence}`" if origin.licence else "not known here: look where it came from"
    return (
        f"The base model, {origin.name}: {known}. What was learned comes from the data set above, under whatever "
        "its licence allows."
    )


def _versions(reference: Reference) -> str:
    return (
        f"appraiser {reference.appraiser}, Python {platform.python_version()}, torch {reference.torch}, transformers "
        f"{reference.transformers}, PEFT {peft.__version__}."
    )


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
