"""For any picture size: what the processor promises from the size alone is what it makes, and the model takes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import CROP, PATCH, formula_picture, tiny_backbone, tiny_image_processor

from appraiser.backbone import Backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(tmp_path_factory.mktemp("sizes"), num_crops=6)


sides = st.integers(1, 120)
budgets = st.integers(1, 9)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(width=sides, height=sides, num_crops=budgets)
def test_token_counts_by_size_equal_those_of_the_pixels(width: int, height: int, num_crops: int) -> None:
    processor = tiny_image_processor(num_crops)

    def count_or_error(function: Callable[[], int]) -> int | str:
        try:
            return function()
        except ValueError as error:
            return str(error)

    def by_pixels() -> int:
        features = processor(formula_picture(width, height))
        [[padded_height, padded_width]] = features["image_sizes"].tolist()
        rows, columns = padded_height // CROP, padded_width // CROP
        side = CROP // PATCH // 2
        assert 1 <= rows * columns <= num_crops
        assert features["pixel_values"][0, 1 + rows * columns :].abs().sum() == 0
        [count] = features["num_img_tokens"]
        assert count == rows * side * (columns * side + 1) + 1 + side * (side + 1)
        return count

    assert count_or_error(by_pixels) == count_or_error(lambda: processor.num_tokens_for_size(width, height))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.tuples(st.integers(10, 90), st.integers(10, 90)), min_size=1, max_size=3))
def test_the_model_takes_what_the_processor_makes(backbone: Backbone, sizes: list[tuple[int, int]]) -> None:
    prompt = "".join(f"<|image_{k + 1}|>\n" for k in range(len(sizes))) + "What?"
    inputs = backbone.processor(prompt, [formula_picture(*size) for size in sizes], return_tensors="pt")
    counted = backbone.model.model.vision_embed_tokens.num_tokens(inputs["image_sizes"])
    assert counted == [backbone.num_image_tokens(*size) for size in sizes]
    with torch.no_grad():
        assert torch.isfinite(backbone.model(**inputs).logits).all()
