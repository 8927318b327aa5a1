"""Which weights a run trains."""

import pytest

from appraiser.config import load_config
from appraiser.errors import ConfigError
from appraiser.training.preparation import prepare_model

TOWER = "model.vision_embed_tokens.img_processor.vision_model."


@pytest.mark.parametrize("num_frozen", [0, 3])
def test_lower_layers_of_the_tower_can_keep_their_weights(num_frozen):
    places = ["data.dataset=unused", "run.out=unused", f"model.frozen_tower_layers={num_frozen}"]
    model = prepare_model(load_config("demo", places), data=None).network
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for layer in range(5):  # the sixth is saved and never computed
        own = [is_trained for name, is_trained in trained.items() if f"{TOWER}encoder.layers.{layer}." in name]
        assert own
        assert set(own) == {layer >= num_frozen}
    embeddings = [is_trained for name, is_trained in trained.items() if name.startswith(f"{TOWER}embeddings.")]
    assert set(embeddings) == {num_frozen == 0}
    assert all(is_trained for name, is_trained in trained.items() if ".layers." in name and "img_processor" not in name)


def test_more_frozen_layers_than_the_tower_has_are_refused():
    places = ["data.dataset=unused", "run.out=unused"]
    prepare_model(load_config("demo", [*places, "model.frozen_tower_layers=6"]), data=None)
    with pytest.raises(ConfigError, match="frozen_tower_layers is 7, but the tower of phi3v-tiny has 6 layers"):
        prepare_model(load_config("demo", [*places, "model.frozen_tower_layers=7"]), data=None)
