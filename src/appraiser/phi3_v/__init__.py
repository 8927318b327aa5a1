"""Phi-3-Vision (and Phi-3.5-vision) on current transformers: no remote code, no torchvision, no flash-attn needed.

Importing this module registers `phi3_v` with the Auto classes, so that a published folder loads our classes.
Nothing here knows the rest of the package.
"""

from contextlib import suppress

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from .block_attention import register as register_block_attention
from .configuration_phi3_v import Phi3VConfig
from .image_processing_phi3_v import Phi3VImageProcessor
from .modeling_phi3_v import Phi3VForConditionalGeneration, Phi3VModel, Phi3VPreTrainedModel
from .next_token_loss import IGNORE_INDEX
from .processing_phi3_v import Phi3VProcessor

register_block_attention()
AutoConfig.register("phi3_v", Phi3VConfig, exist_ok=True)
AutoModelForCausalLM.register(Phi3VConfig, Phi3VForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(Phi3VConfig, Phi3VForConditionalGeneration, exist_ok=True)
with suppress(ImportError):  # transformers 5.17 has this one class only with torchvision, which nothing here needs
    AutoImageProcessor.register(Phi3VConfig, image_processor_classes={"pil": Phi3VImageProcessor}, exist_ok=True)
AutoProcessor.register(Phi3VConfig, Phi3VProcessor, exist_ok=True)

__all__ = [
    "IGNORE_INDEX",
    "Phi3VConfig",
    "Phi3VForConditionalGeneration",
    "Phi3VImageProcessor",
    "Phi3VModel",
    "Phi3VPreTrainedModel",
    "Phi3VProcessor",
]
