"""Pre-train phi3v-tiny from random weights: `python -m appraiser.pretraining OUT`, under an hour on two cores.

Two stages, on rendered scenes of everyday things (`scenes.py`, `questions.py`):

1. looking: tower and projector learn to tell shape, colour, pattern, material, size and part, each through a head that
   attends to the image tokens; the heads are thrown away. Without this stage the decoder learns the language first
   and never looks (loss with right and with shuffled pictures stayed equal to six digits after 650 steps).
2. telling: the decoder learns to answer questions in the product's format from what the tower sees. Tower and projector
   stay as they are: trained along, they lost half of what they could tell (shapes 42 % to 18 %).

It never sees a catalogue title, a category code or a price that means anything: numbers in the price slot are drawn
without looking at the picture. Scene k is the same in every run; one process renders ahead while another trains.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from appraiser.backbone import IGNORE_INDEX, Backbone, Views, load
from appraiser.data.batches import Batch, Example, collate
from appraiser.data.samples.textures import COLOURS, MATERIALS, METALS, PATTERNS
from appraiser.phi3_v import Phi3VConfig, Phi3VForConditionalGeneration, Phi3VImageProcessor, Phi3VProcessor
from appraiser.pretraining.questions import ask, main_question
from appraiser.pretraining.scenes import PARTS, Scene, render, scene_for
from appraiser.pretraining.shapes import SHAPES
from appraiser.pretraining.tokenizer import build_tokenizer
from appraiser.training.optim import build_optimizers, schedule_factor, set_learning_rate


@dataclass(frozen=True)
class PretrainingConfig:
    """Recipe of phi3v-tiny."""

    looking_steps: int = 1500
    telling_steps: int = 600
    seed: int = 0
    looking_batch_size: int = 64
    telling_batch_size: int = 32
    turns: int = 3
    """Questions about each picture: the tower's work is shared by all of them."""
    muon_learning_rate: float = 0.015
    """Of the matrices inside blocks. After 200 steps the first stage's loss was 10.7 with Muon, 12.1 with AdamW."""
    adam_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    picture_px: int = 160
    bfloat16: bool = True
    num_threads: int = 2
    log_every: int = 50


def tiny_config(vocab_size: int, pad_token_id: int) -> Phi3VConfig:
    """All structural parts of Phi-3-Vision at about 5 million parameters."""
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
            "image_dim_out": 192,
            "num_img_tokens": 16,
            "clip_config": {
                "hidden_size": 192,
                "intermediate_size": 768,
                "num_hidden_layers": 6,
                "num_attention_heads": 6,
                "image_size": 128,
                "patch_size": 16,
            },
        },
    )


def new_backbone(folder: Path, seed: int) -> Backbone:
    """A randomly initialised phi3v-tiny with its tokenizer, saved in and loaded from `folder`."""
    from transformers import PreTrainedTokenizerFast

    build_tokenizer(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    vocab_size = math.ceil(len(tokenizer) / 32) * 32
    torch.manual_seed(seed)
    model = Phi3VForConditionalGeneration(tiny_config(vocab_size, tokenizer.pad_token_id))
    image_processor = Phi3VImageProcessor(num_crops=1, num_img_tokens=16, crop_size=128)
    backbone = Backbone(model, Phi3VProcessor(image_processor, tokenizer), "phi3v-tiny")
    backbone.save(folder)
    # Written-out attention: at 65 to 150 tokens PyTorch's CPU flash backward took a third of the step.
    return load(folder, attention="eager")


def dialogue(backbone: Backbone, record_id: str, views: Views, turns: list[tuple[str, str]]) -> Example:
    """One picture with several questions; answers are supervised, questions are not."""
    ids: list[int] = []
    labels: list[int] = []
    for position, (question, answer) in enumerate(turns):
        tag = "" if position else "<|image_1|>"
        prompt = f"<|user|>\n{tag}{question}<|end|>\n<|assistant|>\n"
        asked = backbone.prompt_ids(prompt, [] if position else [views.size], begins_text=position == 0)
        # Only the last answer ends the text; the others go on with the next question, as in a chat.
        told = backbone.completion_ids(answer, ends_text=position == len(turns) - 1)
        ids += asked + told
        labels += [IGNORE_INDEX] * len(asked) + told
    return Example(record_id, tuple(ids), tuple(labels), (views,))


def questions_about(scene: Scene, rng: np.random.Generator, turns: int) -> list[tuple[str, str]]:
    """`turns` different questions in random order, the main one always among them."""
    asked = dict([main_question(scene, rng)])
    for _ in range(4 * turns):
        if len(asked) == turns:
            break
        question, answer = ask(scene, rng)
        asked.setdefault(question, answer)
    pairs = list(asked.items())
    return [pairs[index] for index in rng.permutation(len(pairs))]


# What the heads of the first stage tell apart; index of a value = class.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "material": (*MATERIALS, *METALS),
    "size": ("small", "regular", "large"),
    "part": ("", *PARTS),
}
Looks = tuple[Tensor, Tensor]


class Corpus:
    """Makes micro-batches by number; lives in the worker process that renders ahead."""

    def __init__(self, folder: Path, config: PretrainingConfig) -> None:
        torch.set_num_threads(1)
        self.backbone = load(folder)
        self.config = config

    def looks(self, number: int) -> Looks:
        """[B, 3, S, S] global views and [B, attributes] classes of batch `number`, the same in every run."""
        size = self.config.looking_batch_size
        scenes = [scene_for(self.config.seed, item) for item in range(number * size, (number + 1) * size)]
        views = [self.backbone.views(render(scene, self.config.picture_px)).pixels[0] for scene in scenes]
        classes = [
            [values.index(getattr(scene.things[0], name)) for name, values in ATTRIBUTES.items()] for scene in scenes
        ]
        return torch.stack(views), torch.tensor(classes)

    def dialogues(self, number: int) -> Batch:
        """Batch `number` of the second stage; its scenes are others than the first stage's."""
        examples = []
        size = self.config.telling_batch_size
        first = self.config.looking_steps * self.config.looking_batch_size + number * size
        for item in range(first, first + size):
            scene = scene_for(self.config.seed, item)
            rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, item, 1]))
            views = self.backbone.views(render(scene, self.config.picture_px))
            turns = questions_about(scene, rng, self.config.turns)
            examples.append(dialogue(self.backbone, str(item), views, turns))
        return collate(examples, self.backbone)


_corpus: Corpus | None = None


def _start_worker(folder: Path, config: PretrainingConfig) -> None:
    global _corpus
    _corpus = Corpus(folder, config)


def _make(what: str, number: int) -> Any:
    return getattr(_corpus, what)(number)


def ahead_of(pool: ProcessPoolExecutor, what: str, num_steps: int, ahead: int = 6) -> Iterator[Any]:
    """Batches 0 .. num_steps - 1 in order, made by the worker process a few steps ahead."""
    waiting = deque(pool.submit(_make, what, number) for number in range(min(ahead, num_steps)))
    for number in range(num_steps):
        batch = waiting.popleft().result()
        if number + ahead < num_steps:
            waiting.append(pool.submit(_make, what, number + ahead))
        yield batch


class Heads(nn.Module):
    """Per attribute a learned query that attends to the image tokens, and a classifier; only for the first stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.zeros(len(ATTRIBUTES), width))  # zero: starts as the mean token
        self.heads = nn.ModuleList(nn.Linear(width, len(values)) for values in ATTRIBUTES.values())

    def forward(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Summed cross-entropy of [B, T, D] image tokens against [B, attributes] classes."""
        tokens = self.norm(tokens.float())
        weights = (tokens @ self.queries.T).softmax(dim=1)  # [B, T, attributes]
        pooled = torch.einsum("bta,btd->abd", weights, tokens)
        losses = [functional.cross_entropy(head(pooled[i]), classes[:, i]) for i, head in enumerate(self.heads)]
        return torch.stack(losses).sum()


def looking_loss(model: Phi3VForConditionalGeneration, heads: Heads, looks: Looks) -> Tensor:
    """Loss of the first stage. A one-crop picture shows the same view twice, so the tower runs it once."""
    views, classes = looks
    vision = model.model.vision_embed_tokens
    patches = vision.img_processor.vision_model(views).repeat_interleave(2, dim=0)
    side = views.shape[-1]
    tokens = vision.project(patches, torch.tensor([[side, side]] * len(views)))
    with torch.autocast("cpu", enabled=False):
        return heads(tokens.reshape(len(views), -1, tokens.shape[-1]), classes)


def telling_loss(model: Phi3VForConditionalGeneration, batch: Batch) -> Tensor:
    """Loss of the second stage: next token, answers only."""
    return model(**batch.inputs, labels=batch.labels, answer_only=True, use_cache=False).loss


def run_stage(
    name: str,
    modules: nn.Module,
    loss_of: Callable[[Any], Tensor],
    batches: Iterator[Any],
    num_steps: int,
    config: PretrainingConfig,
    progress: Callable[[str, dict[str, float]], None],
) -> None:
    """Plain training: warm-up, cosine, clipping."""
    optimizers = build_optimizers(
        modules,
        learning_rate=config.adam_learning_rate,
        muon_learning_rate=config.muon_learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.95),
    )
    started, total, seen = time.monotonic(), 0.0, 0
    for step, batch in enumerate(batches):
        factor = schedule_factor(step, num_steps, config.warmup_steps, final=0.02)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            loss = loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        for optimizer in optimizers:
            set_learning_rate(optimizer, factor)
            optimizer.step()
            optimizer.zero_grad()
        total, seen = total + loss.item(), seen + 1
        if (step + 1) % config.log_every == 0 or step + 1 == num_steps:
            rate = (step + 1) / (time.monotonic() - started)
            progress(name, {"step": step + 1, "of": num_steps, "loss": total / seen, "steps_per_s": rate})
            total, seen = 0.0, 0


def pretrain(out: Path, config: PretrainingConfig, progress: Callable[[str, dict[str, float]], None]) -> Path:
    """Train phi3v-tiny from nothing and write it to `out` in the published layout, in bfloat16.

    Args:
        progress: called every `log_every` steps with the stage and its step, of, loss, steps_per_s.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.num_threads)
    started = time.monotonic()
    backbone = new_backbone(out, config.seed)
    model = backbone.model.train()
    vision = model.model.vision_embed_tokens
    for parameter in vision.img_processor.vision_model.unused_parameters():
        parameter.requires_grad_(False)
    heads = Heads(model.config.hidden_size)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _start_worker, (out, config)) as pool:
        run_stage(
            "looking",
            nn.ModuleList([vision, heads]),
            lambda looks: looking_loss(model, heads, looks),
            ahead_of(pool, "looks", config.looking_steps),
            config.looking_steps,
            config,
            progress,
        )
        backbone.save(out)
        vision.requires_grad_(False)
        run_stage(
            "telling",
            model,
            lambda batch: telling_loss(model, batch),
            ahead_of(pool, "dialogues", config.telling_steps),
            config.telling_steps,
            config,
            progress,
        )
    # Half the size in the wheel; matrices of this size lose nothing that a score would show.
    model.to(torch.bfloat16)
    backbone.save(out)
    facts = {"recipe": asdict(config), "seconds": round(time.monotonic() - started), "torch": torch.__version__}
    (out / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return out
