"""Settings: defaults, recipes and overrides in this order; an unknown key names the nearest real one."""

import pytest
import yaml
from pydantic import ValidationError

from appraiser.config import (
    AdapterConfig,
    RunConfig,
    config_from,
    known_settings,
    load_config,
    recipe_names,
    save_config,
)
from appraiser.errors import AppraiserError, ConfigError

PLACES = ["data.dataset=shop", "run.out=runs/a"]
REQUIRED = {"data": {"dataset": "shop"}, "run": {"out": "runs/a"}}


def error_of(action) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        action()
    assert caught.value.exit_code == 2
    assert caught.value.fix
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AppraiserError)
    return caught.value


def test_defaults_are_complete_but_for_the_data_set_and_the_run_folder():
    config = load_config(overrides=PLACES)
    assert config.model.base == "phi3v-tiny"
    assert (config.adapter.kind, config.adapter.rank, config.adapter.alpha) == ("lora", 32, 16.0)
    assert config.optim.learning_rate == 2e-4
    assert (config.run.epochs, config.run.steps, config.run.batch_size) == (2.0, None, 16)
    assert config.tracking.wandb == "offline"
    problems = error_of(lambda: load_config()).what
    assert "data is required and not set" in problems
    assert "run is required and not set" in problems


def test_every_recipe_of_the_package_loads():
    assert {"demo", "lora-24gb"} <= set(recipe_names())
    for name in recipe_names():
        config = load_config(name, PLACES)
        assert config.data.dataset == "shop"
        assert config.run.batch_size % config.run.micro_batch_size == 0


def test_a_recipe_wins_over_defaults_and_an_override_over_the_recipe(tmp_path):
    recipe = tmp_path / "own.yaml"
    recipe.write_text("data: {dataset: shop}\nrun: {out: runs/a, epochs: 5, seed: 3}\nadapter: {rank: 4}\n")
    config = load_config(recipe, ["run.epochs=7", "parts.tower=freeze", "run.max_minutes=1.5", "data.question=null"])
    assert (config.run.epochs, config.run.seed, config.adapter.rank, config.adapter.alpha) == (7, 3, 4, 16)
    assert config.parts_that("freeze") == ("tower",)
    assert config.run.max_minutes == 1.5
    assert config.data.question is None


@pytest.mark.parametrize("language", ["en", "fr", "ru", "ro", "no", "ja"])
def test_a_language_needs_no_quotes(tmp_path, language):
    assert load_config("demo", [*PLACES, f"data.language={language}"]).data.language == language
    (tmp_path / "a.yaml").write_text(f"data:\n  language: {language}\n")
    assert load_config(tmp_path / "a.yaml", PLACES).data.language == language


def test_toml_says_the_same_as_yaml(tmp_path):
    (tmp_path / "a.toml").write_text(
        '[data]\ndataset = "shop"\n[run]\nout = "runs/a"\nepochs = 5\n[optim]\nlearning_rate = 1e-3\n'
    )
    (tmp_path / "a.yaml").write_text(
        "data: {dataset: shop}\nrun: {out: runs/a, epochs: 5}\noptim: {learning_rate: 1e-3}\n"
    )
    assert load_config(tmp_path / "a.toml") == load_config(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("optim.learning_rat", "optim.learning_rate"),
        ("optim.lr_rate", "optim.learning_rate"),
        ("run.epoch", "run.epochs"),
        ("adapter.ranks", "adapter.rank"),
        ("run.batchsize", "run.batch_size"),
        ("model.num_crop", "model.num_crops"),
    ],
)
def test_an_unknown_setting_suggests_the_nearest(key, nearest):
    error = error_of(lambda: load_config("demo", [*PLACES, f"{key}=1"]))
    assert error.what == f"unknown setting {key}; did you mean {nearest}?"
    assert error.where == "demo"
    assert nearest in known_settings()


def test_an_unknown_section_is_an_unknown_setting():
    assert "unknown setting optm" in error_of(lambda: load_config("demo", [*PLACES, "optm.beta2=0.9"])).what


def test_all_problems_are_shown_at_once():
    overrides = [*PLACES, "run.epochs=-1", "run.seed=x", "adapter.kind=qlora", "data.langage=en", "optim.beta2=0"]
    error = error_of(lambda: load_config("demo", overrides))
    problems = error.what.splitlines()
    assert len(problems) == 5
    assert any(line.startswith("run.epochs: ") and line.endswith("got -1") for line in problems)
    assert any("run.seed" in line and "'x'" in line for line in problems)
    assert any("'none', 'lora' or 'dora'" in line and "'qlora'" in line for line in problems)
    assert any("did you mean data.language?" in line for line in problems)
    assert any(line.startswith("optim.beta2") for line in problems)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.micro_batch_size=5", "run.batch_size 32 is not a multiple of run.micro_batch_size 5"),
        ("optim.learning_rate=0", "nothing would be learned"),
        ("run.max_minutes=null", "the run would never end"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(override, message):
    assert message in error_of(lambda: load_config("demo", [*PLACES, override])).what


def test_a_model_frozen_altogether_is_refused():
    frozen = [f"parts.{part}=freeze" for part in ("decoder", "tower", "projector")]
    error = error_of(lambda: load_config("lora-24gb", [*PLACES, *frozen]))
    assert error.what == "parts: all three are frozen: nothing would be trained"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dtype=float16"], "model.dtype=float16 is refused"),
        (["adapter.kind=none", "parts.tower=adapt"], "parts.tower=adapt, but adapter.kind is none"),
        (["model.quantize=nf4", "parts.decoder=train"], "model.quantize=nf4 freezes the decoder's matrices"),
        (["parts.tower=freeze", "optim.tower_learning_rate=1e-5"], "optim.tower_learning_rate has no effect"),
    ],
)
def test_methods_that_do_not_fit_are_refused(overrides, message):
    assert message in error_of(lambda: load_config("lora-24gb", [*PLACES, *overrides])).what


def test_each_part_has_its_method():
    config = load_config("lora-24gb", [*PLACES, "parts.projector=train", "parts.tower=freeze"])
    assert [config.method(part) for part in ("decoder", "tower", "projector")] == ["adapt", "freeze", "train"]
    assert load_config("demo", PLACES).parts_that("train") == ("decoder", "tower", "projector")


def test_frozen_tower_layers_beside_an_adapter_are_refused():
    error = error_of(lambda: load_config("lora-24gb", [*PLACES, "model.frozen_tower_layers=3"]))
    assert "model.frozen_tower_layers has no effect on a tower that is adapted" in error.what


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize("key", ["optim.learning_rate", "run.epochs", "adapter.alpha", "optim.max_grad_norm"])
def test_numbers_that_are_not_finite_are_refused(key, value):
    assert key in error_of(lambda: load_config("demo", [*PLACES, f"{key}={value}"])).what


@pytest.mark.parametrize("override", ["nonsense", "run=3", "run.", "=3", ".x=3", "run.epochs", ""])
def test_an_override_of_another_form_is_explained(override):
    assert "section.key=value" in error_of(lambda: load_config("demo", [override])).fix


def test_an_override_with_a_value_that_is_no_yaml_says_quote_it():
    error = error_of(lambda: load_config("demo", ["data.question=[what"]))
    assert "data.question=[what" in error.what
    assert error.fix == "quote it"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "run: [1, 2", "cannot be read"),
        ("a.yaml", "run: !!python/object/apply:os.system ['true']", "cannot be read"),
        ("a.yaml", "just words", "holds no settings"),
        ("a.yaml", "", "holds no settings"),
        ("a.toml", "run = {", "cannot be read"),
        ("a.yaml", b"run: {out: \xff\xfe}", "cannot be read"),
        ("a.toml", b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_damaged_recipe_is_a_config_error(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in error_of(lambda: load_config(path)).what


def test_a_recipe_that_does_not_exist_names_those_that_do(tmp_path):
    error = error_of(lambda: load_config("lora-80gb"))
    assert error.what == "no recipe 'lora-80gb'"
    assert "demo, dpo-24gb, fast, full-80gb, full-8x80gb, lora-24gb, qlora-16gb-t4" in error.fix
    assert "no recipe" in error_of(lambda: load_config(tmp_path)).what


def test_a_section_without_keys_takes_overrides(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("data:\n  # the data set comes by --set\nrun:\n")
    assert load_config(path, PLACES).run.out == "runs/a"


def test_a_section_that_is_no_section_is_an_error(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("run: fast\n")
    assert "'run' is no section" in error_of(lambda: load_config(path, PLACES)).what


def test_a_saved_config_gives_itself_back(tmp_path):
    config = load_config("lora-24gb", [*PLACES, "data.question='Что это?'", "optim.tower_learning_rate=1e-5"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "Что это?" in text
    assert list(yaml.safe_load(text)) == list(RunConfig.model_fields)


def test_a_config_cannot_be_changed_after_it_was_made():
    config = config_from(REQUIRED, "settings")
    with pytest.raises(ValidationError, match="frozen"):
        config.run.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.adapter = AdapterConfig()


def test_every_tunable_setting_has_a_default_and_every_key_is_known():
    required = [
        f"{section}.{key}"
        for section, field in RunConfig.model_fields.items()
        for key, own in field.annotation.model_fields.items()
        if own.is_required()
    ]
    assert required == ["data.dataset", "run.out"]
    assert len(known_settings()) == len(set(known_settings())) > 30
