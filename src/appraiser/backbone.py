"""The narrow seam between the pipeline and a model; the only module that imports `phi3_v`
(besides `pretraining`, which makes the embedded model).

Data, training and prediction see a model through four things: a processor call (pictures -> views), image-token counts,
ids of prompts and completions, and the network itself. Another model family would be another module like this one.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.utils import is_flash_attn_2_available

from appraiser.errors import CheckpointError, MissingDependencyError, ModelInputError
from appraiser.phi3_v import IGNORE_INDEX, Phi3VConfig, Phi3VForConditionalGeneration, Phi3VProcessor

__all__ = [
    "DTYPES",
    "EMBEDDED_MODELS",
    "IGNORE_INDEX",
    "Backbone",
    "Features",
    "Reader",
    "Views",
    "load",
    "load_reader",
    "model_folder",
    "side_by_side",
]

logger = logging.getLogger(__name__)
EMBEDDED_MODELS = ("phi3v-tiny",)
SMALL_MODEL = 50_000_000
"""Parameters: one operation of a larger model keeps all cores busy."""
DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Views:
    """One picture as the tower sees it: [1 + h * w, 3, S, S] global view and crops, and its padded (height, width)."""

    pixels: Tensor
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


@dataclass(frozen=True)
class Features:
    """One picture as the tower has seen it: [1 + h * w, P, C] patch features of its views, and its padded size."""

    patches: Tensor
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return self.patches.nbytes


@dataclass
class Reader:
    """What turns pictures and text into what a network reads: a processor, without its network."""

    processor: Phi3VProcessor
    name: str

    @property
    def num_crops(self) -> int:
        return int(self.processor.image_processor.num_crops)

    @property
    def pad_token_id(self) -> int:
        return int(self.processor.tokenizer.pad_token_id)

    def views(self, image: Image.Image) -> Views:
        """Process one RGB picture; see the processor for the HD transform."""
        try:
            pixels, size = self.processor.image_processor.views(image)
        except ValueError as error:
            raise ModelInputError(str(error), fix="crop the picture to a more usual shape") from error
        return Views(pixels, size)

    def num_image_tokens(self, width: int, height: int) -> int:
        """Image tokens of a picture of this size in pixels."""
        return self.processor.image_processor.num_tokens_for_size(width, height)

    def prompt_ids(self, prompt: str, sizes: Sequence[tuple[int, int]], *, begins_text: bool = True) -> list[int]:
        """Ids of a prompt with one run of placeholders per picture.

        Args:
            prompt: chat text with tags `<|image_1|>` ... ; written by us, never by a user.
            sizes: padded (height, width) of each picture, as in `Views.size`.
            begins_text: False for a later turn without pictures, which has no BOS.
        """
        processor = self.processor.image_processor
        counts = [processor.num_tokens_for_size(width, height) for height, width in sizes]
        return self.processor.prompt_ids(prompt, counts, add_special_tokens=begins_text)

    def completion_ids(self, answer: str, *, ends_text: bool = True) -> list[int]:
        """Ids of a target text and its end: answer, `<|end|>`, newline, and `<|endoftext|>` if it ends the text.

        The answer holds users' titles, so it is encoded without any control token: `<|end|>` in a title stays text.
        """
        return self.text_ids(answer) + (self._ending_ids if ends_text else self._ending_ids[:-1])

    def text_ids(self, text: str) -> list[int]:
        """Ids of user text in which no control token can appear."""
        return list(self._plain_tokenizer.encode(text, add_special_tokens=False).ids)

    def collate_pictures(self, pictures: Sequence[Views | Features]) -> dict[str, Tensor]:
        """`image_sizes` [n, 2], and `pixel_values` [n, most views, 3, S, S] (missing views zero, never computed), or
        `image_features` [N, P, C] of all views where the tower has seen the pictures already.

        Raises:
            ModelInputError: some pictures have been seen and some have not.
        """
        sizes = torch.tensor([picture.size for picture in pictures])
        seen = [picture.patches for picture in pictures if isinstance(picture, Features)]
        if seen:
            if len(seen) != len(pictures):
                raise ModelInputError("a batch mixes pictures with and without kept features")
            return {"image_features": torch.cat(seen), "image_sizes": sizes}
        return {"pixel_values": self._pixel_values(pictures), "image_sizes": sizes}

    @staticmethod
    def _pixel_values(pictures: Sequence[Any]) -> Tensor:
        most = max(len(picture.pixels) for picture in pictures)
        shape = (len(pictures), most, *pictures[0].pixels.shape[1:])
        pixels = torch.zeros(shape, dtype=pictures[0].pixels.dtype)
        for row, picture in zip(pixels, pictures, strict=True):
            row[: len(picture.pixels)] = picture.pixels
        return pixels

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids up to the first stop token, without surrounding space."""
        stops = set(self.stop_token_ids)
        kept: list[int] = []
        for token in ids:
            if token in stops:
                break
            kept.append(token)
        return self.processor.decode(kept, clean_up_tokenization_spaces=False).strip()

    @property
    def stop_token_ids(self) -> list[int]:
        """Tokens that end an answer, those that completions end with: `<|end|>` and `<|endoftext|>`."""
        return [self._ending_ids[0], self._ending_ids[-1]]

    @cached_property
    def _ending_ids(self) -> list[int]:
        return list(self.processor.tokenizer("<|end|>\n<|endoftext|>", add_special_tokens=False).input_ids)

    @cached_property
    def _plain_tokenizer(self) -> Tokenizer:
        """The same BPE without its added tokens: control tokens do not exist for it."""
        serialized = json.loads(self.processor.tokenizer.backend_tokenizer.to_str())
        serialized["added_tokens"] = []
        serialized["post_processor"] = None
        return Tokenizer.from_str(json.dumps(serialized))


@dataclass
class Backbone(Reader):
    """A loaded network with its processor."""

    model: Any

    @property
    def network(self) -> Phi3VForConditionalGeneration:
        """The network itself, also where an adapter is wrapped around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def config(self) -> Phi3VConfig:
        return self.network.config

    @property
    def takes_any_mask(self) -> bool:
        """Whether its attention takes a mask of any shape; flash and flex attention know padding and causality only."""
        return self.network.config._attn_implementation in ("eager", "sdpa", "blocks")

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def unused_parameters(self) -> list[torch.nn.Parameter]:
        """Parameters that are saved but never computed (the tower's last block)."""
        return self.network.model.vision_embed_tokens.img_processor.vision_model.unused_parameters()

    def lower_tower_parameters(self, num_layers: int) -> list[torch.nn.Parameter]:
        """Weights of the tower's embeddings and first layers."""
        tower = self.network.model.vision_embed_tokens.img_processor.vision_model
        parts = [tower.embeddings, tower.pre_layrnorm, *tower.encoder.layers[:num_layers]]
        return [parameter for part in parts for parameter in part.parameters()]

    @property
    def tower_is_frozen(self) -> bool:
        """Whether no weight of the tower is trained, so that its features of a picture stay what they are."""
        tower = self.network.model.vision_embed_tokens.img_processor
        return not any(parameter.requires_grad for parameter in tower.parameters())

    @torch.inference_mode()
    def see(self, pictures: Sequence[Views]) -> list[Features]:
        """Run pictures through the tower once, for later use in its place; as in prediction, also in mid-training."""
        batch = self.collate_pictures(pictures)
        sizes = batch["image_sizes"]
        vision = self.network.model.vision_embed_tokens
        was_training = vision.training
        vision.eval()
        try:
            patches = vision.encode_crops(batch["pixel_values"].to(self.device), sizes.to(self.device))
        finally:
            vision.train(was_training)
        parts = torch.split(patches.cpu(), [len(picture.pixels) for picture in pictures])
        return [Features(part, picture.size) for part, picture in zip(parts, pictures, strict=True)]

    def patch_features(self, pixels: Tensor) -> Tensor:
        """[N, P, C] features of the tower for [N, 3, S, S] views."""
        vision = self.network.model.vision_embed_tokens.img_processor.vision_model
        return vision(pixels.to(self.device, self.network.dtype))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write weights (the adapter's alone where there is one), tokenizer and preprocessor file as published.

        Args:
            weights: to be written instead of the network's own, where this process holds only a share of them.
        """
        self.model.save_pretrained(folder, **({} if weights is None else {"state_dict": weights}))
        self.processor.save_pretrained(folder)


@contextmanager
def side_by_side(backbone: Backbone) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map` for work on a model that is not training; on a CPU, for a small model, several calls at a time.

    One operation of a small model cannot fill two cores: threads inside operations made it slower, calls side by side
    make it nearly twice as fast.
    """
    threads = torch.get_num_threads()
    was_training = backbone.model.training
    backbone.model.eval()
    try:
        if backbone.device.type != "cpu" or threads == 1 or backbone.num_parameters > SMALL_MODEL:
            yield map
        else:
            # Autocasting is a thread's own affair: the workers have to be told.
            casts, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

            def as_here(function: Callable[..., Any], *arguments: Any) -> Any:
                with torch.autocast("cpu", dtype, enabled=casts):
                    return function(*arguments)

            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield lambda function, *values: pool.map(partial(as_here, function), *values)
    finally:
        torch.set_num_threads(threads)  # the workers' number reaches libraries that keep one for the whole process
        backbone.model.train(was_training)


def model_folder(name_or_path: str | Path) -> str:
    """Where a model lies: an embedded one, a folder, or a Hub id left as it is.

    Raises:
        CheckpointError: a path that is no model folder.
    """
    if str(name_or_path) in EMBEDDED_MODELS:
        return str(files("appraiser") / "models" / str(name_or_path))
    path = Path(name_or_path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise CheckpointError(
                f"no model in {path}: config.json is missing",
                fix="name a model folder, a run folder or a Hub id such as microsoft/Phi-3-vision-128k-instruct",
            )
        return str(path)
    looks_like_hub_id = str(name_or_path).count("/") == 1 and not str(name_or_path).startswith((".", "/", "~"))
    if path.exists() or not looks_like_hub_id:
        raise CheckpointError(
            f"no model folder at {path}",
            fix=f"name a folder, a Hub id (owner/name) or an embedded model: {', '.join(EMBEDDED_MODELS)}",
        )
    return str(name_or_path)


def load_reader(name_or_path: str | Path, *, num_crops: int | None = None) -> Reader:
    """Load a model's processor alone, which takes no weights.

    Raises:
        CheckpointError: nothing there, or another architecture.
    """
    folder = model_folder(name_or_path)
    _check_architecture(folder)
    try:
        return Reader(Phi3VProcessor.from_pretrained(folder, num_crops=num_crops), str(name_or_path))
    except Exception as error:
        raise _unreadable(folder, error) from error


def load(
    name_or_path: str | Path,
    *,
    dtype: str = "float32",
    num_crops: int | None = None,
    attention: str = "auto",
    device: str | torch.device = "cpu",
    quantize: str = "none",
) -> Backbone:
    """Load a model in the published layout, ours or anybody's.

    Args:
        name_or_path: `phi3v-tiny`, a folder, or a Hub id.
        num_crops: crop budget; None keeps the folder's own.
        attention: as in the settings; auto is `blocks` on a CPU and `sdpa` elsewhere.
        quantize: `nf4` holds the decoder's matrices in 4 bits; they cannot be trained, only adapted.

    Raises:
        CheckpointError: nothing there, another architecture, missing or damaged weights.
        MissingDependencyError: 4 bits without bitsandbytes.
    """
    folder = model_folder(name_or_path)
    _check_architecture(folder)
    is_cpu = torch.device(device).type == "cpu"
    try:
        processor = Phi3VProcessor.from_pretrained(folder, num_crops=num_crops)
        model, info = Phi3VForConditionalGeneration.from_pretrained(
            folder,
            dtype=DTYPES[dtype],
            attn_implementation=_attention(attention, is_cpu),
            use_safetensors=True,
            output_loading_info=True,
            **_quantized(quantize, dtype, device),
        )
    except MissingDependencyError:
        raise
    except Exception as error:
        raise _unreadable(folder, error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the model's tensors, among them {', '.join(missing[:3])}",
            fix="download or copy the folder again; a model with fresh random parts would answer nonsense",
        )
    if quantize == "none":
        return Backbone(processor, str(name_or_path), model.to(device))
    for module in model.modules():
        # On CPUs with AVX-512 bitsandbytes repacks its weights at the first evaluation; from then on its products have
        # no gradient, and training goes on without a word (0.50.2).
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return Backbone(processor, str(name_or_path), model)


def _attention(asked: str, is_cpu: bool) -> str:
    """What transformers is to use; without flash-attn, PyTorch's own kernel, and that is said."""
    if asked == "auto":
        return "blocks" if is_cpu else "sdpa"
    if asked == "flash_attention_2" and not is_flash_attn_2_available():
        logger.warning("flash-attn is not installed or has no GPU: PyTorch's own attention (sdpa) is used")
        return "sdpa"
    return asked


def _quantized(quantize: str, dtype: str, device: str | torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a decoder in 4 bits; tower, projector, embeddings and head keep `dtype`."""
    if quantize == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"model.quantize={quantize} needs bitsandbytes, which is not installed",
            fix="pip install 'appraiser[qlora]'",
        )
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
        llm_int8_skip_modules=["lm_head", "model.vision_embed_tokens"],
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def _unreadable(folder: str, error: Exception) -> CheckpointError:
    """The libraries' readers raise everything from OSError to SafetensorError; all mean the same to the user."""
    return CheckpointError(
        f"cannot load a model from {folder}: {type(error).__name__}: {first_line(error)}",
        fix="check that the folder holds config.json, *.safetensors, tokenizer and preprocessor_config.json",
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text; libraries below put whole pages into theirs."""
    return (str(error).splitlines() or [""])[0][:300]


def _check_architecture(folder: str) -> None:
    """Refuse folders of other models early, with a sentence instead of a list of tensor names."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        return  # a Hub id: the loader below fetches and checks
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", fix="restore the model's config.json") from error
    if model_type != "phi3_v":
        raise CheckpointError(
            f"{folder} holds a model of type {model_type!r}, not phi3_v",
            fix="use Phi-3-vision-128k-instruct, Phi-3.5-vision-instruct, phi3v-tiny or a run made from one of them",
        )
