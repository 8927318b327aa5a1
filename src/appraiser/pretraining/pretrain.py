"""Pre-train phi3v-tiny from random weights: `python -m appraiser.pretraining OUT`, under an hour on two cores.

Three stages on rendered scenes of everyday things (`scenes.py`): looking (`looking.py`) trains tower and projector,
weighing and telling (`telling.py`) train the decoder. Every core runs one process (`team.py`).

It never sees a catalogue title, a category code or a price that means anything (`questions.py`). Scene k is the same in
every run; which process draws it depends on their number, and so do the last digits of the weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from appraiser.backbone import Backbone, load
from appraiser.data.batches import Batch
from appraiser.errors import ConfigError
from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration, Phi3VImageProcessor, Phi3VProcessor
from appraiser.pretraining.beginning import begin_locally
from appraiser.pretraining.looking import Looking, look_at, look_batch
from appraiser.pretraining.replay import Replay
from appraiser.pretraining.scenes import make_scene, scene_for
from appraiser.pretraining.team import Team, team_of
from appraiser.pretraining.telling import dialogue_batch, topic_of, weighing_batch
from appraiser.pretraining.tokenizer import build_tokenizer
from appraiser.training.optim import build_optimizers, schedule_factor, set_learning_rate

IMAGE_SIZE, PATCH_SIZE = 96, 8
PATCHES_PER_SIDE = IMAGE_SIZE // PATCH_SIZE
Progress = Callable[[str, dict[str, float]], None]


@dataclass(frozen=True)
class PretrainingConfig:
    """Recipe of phi3v-tiny. Batch sizes are those of all processes together."""

    looking_steps: int = 5000
    weighing_steps: int = 375
    telling_steps: int = 700
    seed: int = 0
    looking_batch_size: int = 64
    weighing_batch_size: int = 128
    telling_batch_size: int = 32
    fresh_share: float = 0.375
    """New pictures per picture trained on; the others come up again from among the latest `replay_size`."""
    replay_size: int = 6000
    whitening_pictures: int = 800
    """Pictures whose patches the first weights are made from."""
    turns: int = 3
    """Questions about each picture: the tower's work is shared by all of them."""
    muon_learning_rate: float = 0.015
    """Of the matrices inside blocks. After 200 steps the first stage's loss was 10.7 with Muon, 12.1 with AdamW."""
    adam_learning_rate: float = 1e-3
    weight_decay: float = 0.1
    """Of the stage that trains tower and projector."""
    decoder_weight_decay: float = 0.4
    """Of the stages that train the decoder. At 0.01 its matrices grow, and fine-tuning prices worsens (docs/log.md)."""
    warmup_steps: int = 50
    picture_px: int = 144
    bfloat16: bool = True
    num_processes: int = 2
    log_every: int = 50

    def __post_init__(self) -> None:
        for name in ("looking_batch_size", "weighing_batch_size", "telling_batch_size"):
            if getattr(self, name) % self.num_processes:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, which {self.num_processes} processes cannot share evenly",
                    fix=f"choose a multiple of {self.num_processes}",
                )


def tiny_config(vocab_size: int, pad_token_id: int) -> Phi3VConfig:
    """All structural parts of Phi-3-Vision at about 3.6 million parameters."""
    head_dim = 32
    return Phi3VConfig(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=8192,
        original_max_position_embeddings=2048,
        initializer_range=0.05,  # 0.7 / sqrt(width); 0.02 suits models sixteen times as wide
        rope_scaling={
            "type": "su",
            "short_factor": [1.0] * (head_dim // 2),
            "long_factor": [float(x) for x in np.linspace(1.0, 4.0, head_dim // 2).round(4)],
        },
        pad_token_id=pad_token_id,
        img_processor={
            "name": "clip_vision_model",
            "model_name": "phi3v-tiny",
            "image_dim_out": 128,
            "num_img_tokens": (PATCHES_PER_SIDE // 2) ** 2,
            "clip_config": {
                "hidden_size": 128,
                "intermediate_size": 512,
                "num_hidden_layers": 6,
                "num_attention_heads": 4,
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,  # with 16, 67 % of hardware was told apart instead of 84 % (docs/log.md)
            },
        },
    )


def new_backbone(folder: Path, seed: int) -> Backbone:
    """A randomly initialised phi3v-tiny; its tokenizer is written to `folder`."""
    from transformers import PreTrainedTokenizerFast

    build_tokenizer(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    vocab_size = math.ceil(len(tokenizer) / 32) * 32
    torch.manual_seed(seed)
    model = Phi3VForConditionalGeneration(tiny_config(vocab_size, tokenizer.pad_token_id))
    image_processor = Phi3VImageProcessor(
        num_crops=1, num_img_tokens=(PATCHES_PER_SIDE // 2) ** 2, crop_size=IMAGE_SIZE
    )
    backbone = Backbone(Phi3VProcessor(image_processor, tokenizer), "phi3v-tiny", model)
    return backbone


@dataclass(frozen=True)
class Stage:
    """One stage as `run_stage` trains it."""

    name: str
    modules: nn.Module
    loss_of_next_batch: Callable[[], Tensor]
    num_steps: int
    weight_decay: float


def run_stage(stage: Stage, team: Team, config: PretrainingConfig, progress: Progress) -> None:
    """Plain training: warm-up, cosine, clipping."""
    optimizers = build_optimizers(
        stage.modules,
        learning_rate=config.adam_learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=stage.weight_decay,
        betas=(0.9, 0.95),
    )
    parameters = [parameter for parameter in stage.modules.parameters() if parameter.requires_grad]
    started, total, seen = time.monotonic(), 0.0, 0
    for step in range(stage.num_steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            loss = stage.loss_of_next_batch()
        loss.backward()  # type: ignore[no-untyped-call]
        team.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        factor = schedule_factor(step, stage.num_steps, config.warmup_steps, final=0.02)
        for optimizer in optimizers:
            set_learning_rate(optimizer, factor)
            optimizer.step()
            optimizer.zero_grad()
        total, seen = total + loss.item(), seen + 1
        if (step + 1) % config.log_every == 0 or step + 1 == stage.num_steps:
            rate = (step + 1) / (time.monotonic() - started)
            numbers = {"step": step + 1, "of": stage.num_steps, "loss": total / seen, "steps_per_s": rate}
            progress(stage.name, numbers)
            total, seen = 0.0, 0


def looking_stage(backbone: Backbone, team: Team, config: PretrainingConfig) -> Stage:
    """Tower and projector, asked about patches and tokens."""
    share = config.looking_batch_size // team.size
    replay = Replay(
        lambda item: look_at(scene_for(config.seed, item), backbone, PATCHES_PER_SIDE, config.picture_px),
        first=team.rank,
        stride=team.size,
        capacity=config.replay_size // team.size,
        seed=[config.seed, team.rank, 2],
    )
    replay.add(16 * share)
    torch.manual_seed(config.seed)  # every process the same heads
    looking = Looking(backbone.model)
    fresh = max(1, round(config.fresh_share * share))

    def loss_of_next_batch() -> Tensor:
        replay.add(fresh)
        return looking(look_batch(replay.draw(share), replay.rng))

    return Stage("looking", looking, loss_of_next_batch, config.looking_steps, config.weight_decay)


def weighing_stage(backbone: Backbone, team: Team, config: PretrainingConfig) -> Stage:
    """The decoder alone, without pictures."""
    backbone.model.model.vision_embed_tokens.requires_grad_(False)
    share = config.weighing_batch_size // team.size
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, team.rank, 4]))

    def loss_of_next_batch() -> Tensor:
        return telling_loss(backbone.model, weighing_batch([make_scene(rng) for _ in range(share)], backbone))

    return Stage("weighing", backbone.model, loss_of_next_batch, config.weighing_steps, config.decoder_weight_decay)


def telling_stage(backbone: Backbone, team: Team, config: PretrainingConfig) -> Stage:
    """The decoder alone, asked for whole answers about pictures, and about as many things that are only described."""
    backbone.model.model.vision_embed_tokens.requires_grad_(False)
    share = config.telling_batch_size // team.size
    # Far from the first stage's scenes, so that the decoder learns from pictures that the tower was not trained on.
    first = 10 * config.looking_steps * config.looking_batch_size + team.rank
    replay = Replay(
        lambda item: topic_of(scene_for(config.seed, item), item, backbone, config.picture_px),
        first=first,
        stride=team.size,
        capacity=config.replay_size // (4 * team.size),
        seed=[config.seed, team.rank, 3],
    )
    replay.add(16 * share)
    fresh = max(1, round(config.fresh_share * share))

    def loss_of_next_batch() -> Tensor:
        replay.add(fresh)
        told = dialogue_batch(replay.draw(share), backbone, config.turns, replay.rng)
        weighed = weighing_batch([make_scene(replay.rng) for _ in range(share)], backbone)
        return telling_loss(backbone.model, told) + telling_loss(backbone.model, weighed)

    return Stage("telling", backbone.model, loss_of_next_batch, config.telling_steps, config.decoder_weight_decay)


def telling_loss(model: Phi3VForConditionalGeneration, batch: Batch) -> Tensor:
    """Next token, answers only."""
    return model(**batch.inputs, labels=batch.labels, answer_only=True, use_cache=False).loss


def train_all(team: Team, folder: Path, config: PretrainingConfig, progress: Progress | None = None) -> Backbone:
    """What every process does: all stages, starting from the model in `folder`; rank 0 keeps the first stage's."""
    report = progress or (lambda stage, numbers: None)
    backbone = load(folder, attention="eager")  # faster than PyTorch's own on CPUs at 85 to 200 tokens
    model = backbone.model.train()
    for parameter in backbone.unused_parameters():
        parameter.requires_grad_(False)
    run_stage(looking_stage(backbone, team, config), team, config, report)
    if team.rank == 0:
        backbone.save(folder)
    run_stage(weighing_stage(backbone, team, config), team, config, report)
    run_stage(telling_stage(backbone, team, config), team, config, report)
    model.eval()
    return backbone


def pretrain(out: Path, config: PretrainingConfig, progress: Progress) -> Path:
    """Train phi3v-tiny from nothing and write it to `out` in the published layout, in bfloat16.

    Args:
        progress: called every `log_every` steps with the stage and its step, of, loss, steps_per_s.
    """
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    begin(out, config)
    with team_of(config.num_processes, train_all, out, config) as team:
        backbone = train_all(team, out, config, progress)
    # Half the size in the wheel; matrices of this size lose nothing that a score would show.
    backbone.model.to(torch.bfloat16)
    backbone.save(out)
    facts = {"recipe": asdict(config), "seconds": round(time.monotonic() - started), "torch": torch.__version__}
    (out / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return out


def begin(folder: Path, config: PretrainingConfig) -> None:
    """Write the untrained model that all processes start from."""
    backbone = new_backbone(folder, config.seed)
    looks = [
        look_at(scene_for(config.seed, item), backbone, PATCHES_PER_SIDE, config.picture_px)
        for item in range(config.whitening_pictures)
    ]
    tower = backbone.model.model.vision_embed_tokens.img_processor.vision_model
    begin_locally(tower, torch.stack([look.pixels for look in looks]).float())
    backbone.save(folder)
