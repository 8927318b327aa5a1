"""The project's own vectors: a bare clone, without the reference material, notices when the numbers move.

They were written by `vectors/make_vectors.py` when this code had just been shown to equal the published reference.
Tolerances as for the golden vectors (fp32, CPU): features 1e-5, logits 1e-4, loss 1e-5, gradients 5e-5 relative.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from golden_cases import ATOL_FEATURES, ATOL_LOGITS, ATOL_LOSS, RTOL_GRADIENTS, close
from safetensors.torch import load_file
from test_mutations import MUTATIONS, Mutation
from torch import Tensor

FOLDER = Path(__file__).resolve().parent / "vectors"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vectors", FOLDER / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return load_file(FOLDER / "vectors.safetensors")


@pytest.fixture(scope="module")
def computed(maker: ModuleType) -> dict[str, Tensor]:
    return maker.cases(maker.model())


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return json.loads((FOLDER / "processor.json").read_text(encoding="utf-8"))


def check_numbers(computed: dict[str, Tensor], stored: dict[str, Tensor], ending: str, atol: float) -> None:
    names = [name for name in stored if name.endswith(ending)]
    assert names
    for name in names:
        close(computed[name], stored[name], atol, name)


def check_gradients(computed: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    norms = stored["train.norms"]
    close(computed["train.norms"] / norms, torch.ones_like(norms), RTOL_GRADIENTS, "gradient norms")
    names = [name for name in stored if name.startswith("train.grad.")]
    assert len(names) == 9
    for name in names:
        scale = stored[name].abs().max()
        assert scale > 0, name
        close(computed[name] / scale, stored[name] / scale, RTOL_GRADIENTS, name)


def check_answers(computed: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    for name in ("generate.text", "generate.crossing", "generate.pictures"):
        assert torch.equal(computed[name], stored[name]), name


def check_processor(actual: dict[str, Any], facts: dict[str, Any]) -> None:
    assert actual["hd_sizes"] == facts["hd_sizes"]
    assert actual["prompts"] == facts["prompts"]
    for picture, expected in zip(actual["pictures"], facts["pictures"], strict=True):
        assert picture["hd_sha256"] == expected["hd_sha256"]
        assert picture["view_sums"] == pytest.approx(expected["view_sums"], abs=0.05)
        assert picture["view_points"] == pytest.approx(expected["view_points"], abs=2e-5)


TOLERANCES = {
    ".cos": 1e-6,
    ".sin": 1e-6,
    ".features": ATOL_FEATURES,
    ".logits": ATOL_LOGITS,
    ".loss": ATOL_LOSS,
}


def test_all_vectors_are_there_and_small(stored: dict[str, Tensor], computed: dict[str, Tensor]) -> None:
    assert stored.keys() == computed.keys()
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 300 * 1024


@pytest.mark.parametrize(("ending", "atol"), TOLERANCES.items())
def test_numbers_are_unchanged(
    ending: str, atol: float, stored: dict[str, Tensor], computed: dict[str, Tensor]
) -> None:
    check_numbers(computed, stored, ending, atol)


def test_gradients_are_unchanged(stored: dict[str, Tensor], computed: dict[str, Tensor]) -> None:
    check_gradients(computed, stored)


def test_greedy_answers_are_unchanged(stored: dict[str, Tensor], computed: dict[str, Tensor]) -> None:
    # Closest race among all steps: 0.014 between first and second, a thousand times the rounding.
    check_answers(computed, stored)


def test_the_two_factor_lists_are_both_in_use(stored: dict[str, Tensor]) -> None:
    assert (stored["text_48.cos"] - stored["text_49.cos"][:8]).abs().max() > 0.1


def test_sizes_pictures_and_ids_are_unchanged(maker: ModuleType, facts: dict[str, Any]) -> None:
    check_processor(json.loads(json.dumps(maker.processor_facts())), facts)


# Each fault once, under its first name.
FAULTS = {mutate: name for name, mutate, *_ in reversed(MUTATIONS)}


@pytest.mark.parametrize("mutate", FAULTS, ids=FAULTS.values())
def test_planted_fault_is_caught_without_the_reference_material(
    mutate: Mutation,
    maker: ModuleType,
    stored: dict[str, Tensor],
    facts: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = maker.model()
    mutate(monkeypatch, net)

    def check() -> None:
        check_processor(json.loads(json.dumps(maker.processor_facts())), facts)
        found = maker.inference_cases(net)
        for ending in (".cos", ".sin", ".features", ".logits"):
            check_numbers(found, stored, ending, TOLERANCES[ending])
        check_answers(found, stored)

    with pytest.raises(AssertionError):
        check()
