"""HD transform of Phi-3-Vision: PIL picture -> global view and crops, to the byte of the published processor.

Each picture is scaled up to the crop budget, padded with white to whole crops, normalised, and cut:

    pixel_values[i] = [global view | crop 1 ... crop h*w (row by row) | zeros]      length num_crops + 1
    image_sizes[i]  = (height, width) of the padded picture

Needs PIL and torch only. Transparency, EXIF orientation and colour modes are the caller's business; by default the
published behaviour (`convert("RGB")`) is kept for every mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs

OPENAI_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
OPENAI_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


class Phi3VImagesKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Settings that may be given at load or call time."""

    num_crops: int
    crop_size: int
    num_img_tokens: int


class Phi3VImageProcessor(BaseImageProcessor):
    """Turns PIL pictures into `pixel_values`, `image_sizes` and token counts.

    Args:
        num_crops: most crops per picture, besides the global view.
        crop_size: side of a crop in pixels; 336 as published. An extension of ours for small models.
        num_img_tokens: image tokens of one crop, a square number; 144 as published.
    """

    model_input_names = ["pixel_values", "image_sizes"]  # noqa: RUF012 - transformers' own declaration style
    valid_kwargs = Phi3VImagesKwargs

    def __init__(
        self,
        num_crops: int = 16,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        num_img_tokens: int = 144,
        crop_size: int = 336,
        **kwargs: Any,
    ) -> None:
        for key in ("auto_map", "image_processor_type"):
            kwargs.pop(key, None)
        super().__init__(**kwargs)
        if num_crops < 1:
            raise ValueError(f"num_crops must be at least 1, got {num_crops}")
        if math.isqrt(num_img_tokens) ** 2 != num_img_tokens:
            raise ValueError(f"num_img_tokens must be a square number, got {num_img_tokens}")
        self.num_crops = num_crops
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.num_img_tokens = num_img_tokens
        self.crop_size = crop_size

    def to_dict(self) -> dict[str, Any]:
        """The keys of the published preprocessor_config.json; our `crop_size` only where it differs from 336."""
        output: dict[str, Any] = {
            "image_processor_type": type(self).__name__,
            "processor_class": "Phi3VProcessor",
            "num_crops": self.num_crops,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
            "num_img_tokens": self.num_img_tokens,
        }
        if self.crop_size != 336:
            output["crop_size"] = self.crop_size
        return output

    def hd_size(self, width: int, height: int, num_crops: int | None = None) -> tuple[int, int]:
        """(width, height) in pixels of the padded HD picture for a picture of `width` x `height`.

        Raises:
            ValueError: the picture is so long and thin that it would be scaled to no pixels at all.
        """
        new_width, new_height, padded = self._scaled_size(max(width, height), min(width, height), num_crops)
        if new_height < 1:
            raise ValueError(
                f"picture of {width} x {height} pixels is too long and thin: at most {new_width} : 1 fits "
                f"{num_crops or self.num_crops} crops"
            )
        return (padded, new_width) if width < height else (new_width, padded)

    def _scaled_size(self, long: int, short: int, num_crops: int | None) -> tuple[int, int, int]:
        """(long side, short side, padded short side) after scaling, all in pixels."""
        budget = num_crops or self.num_crops
        # Floats as in the published code: which size comes out depends on these roundings.
        ratio = long / short
        scale = 1
        while scale * math.ceil(scale / ratio) <= budget:
            scale += 1
        scale -= 1
        new_long = scale * self.crop_size
        new_short = int(new_long / ratio)
        return new_long, new_short, math.ceil(new_short / self.crop_size) * self.crop_size

    def num_tokens_for_size(self, width: int, height: int, num_crops: int | None = None) -> int:
        """Image tokens of a picture of `width` x `height` pixels, from its size alone."""
        hd_width, hd_height = self.hd_size(width, height, num_crops)
        rows, columns = hd_height // self.crop_size, hd_width // self.crop_size
        side = math.isqrt(self.num_img_tokens)
        return (rows * columns + 1) * self.num_img_tokens + 1 + (rows + 1) * side

    def calc_num_image_tokens_from_image_size(self, width: int, height: int) -> int:
        """`num_tokens_for_size` under the name by which other engines call the published processor."""
        return self.num_tokens_for_size(width, height)

    def hd_transform(self, image: Image.Image, num_crops: int | None = None) -> Image.Image:
        """Scale `image` (RGB) up to the crop budget and pad it with white to whole crops."""
        hd_width, hd_height = self.hd_size(*image.size, num_crops)
        tall = image.width < image.height
        if tall:
            image = image.transpose(Image.Transpose.TRANSPOSE)
        new_width, new_height, padded = self._scaled_size(image.width, image.height, num_crops)
        image = image.resize((new_width, new_height), Image.Resampling.BILINEAR)
        if padded != new_height:
            canvas = Image.new("RGB", (new_width, padded), (255, 255, 255))
            canvas.paste(image, (0, int((padded - new_height) / 2)))
            image = canvas
        image = image.transpose(Image.Transpose.TRANSPOSE) if tall else image
        assert image.size == (hd_width, hd_height), "hd_size and hd_transform must agree"
        return image

    def normalize_to_tensor(self, image: Image.Image) -> Tensor:
        """[3, H, W] fp32, normalised; by a table of 256 values per channel, which gives the same bits as arithmetic."""
        pixels = np.asarray(image)
        levels = torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255)
        out = torch.empty(3, *pixels.shape[:2], dtype=torch.float32)
        for channel, (mean, std) in enumerate(zip(self.image_mean, self.image_std, strict=True)):
            table = levels.clone().sub_(torch.tensor(mean)).div_(torch.tensor(std)).numpy()
            np.take(table, pixels[:, :, channel], out=out[channel].numpy())
        return out

    def views(self, image: Image.Image, num_crops: int | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Global view and real crops of one picture.

        Returns:
            [1 + h * w, 3, crop_size, crop_size] fp32 and (height, width) of the padded picture in pixels.
        """
        hd = self.hd_transform(image.convert("RGB"), num_crops)
        pixels = self.normalize_to_tensor(hd)
        side, height, width = self.crop_size, hd.height, hd.width
        # Bicubic without antialiasing, on the normalised floats: as published, and visibly not what PIL would give.
        global_view = functional.interpolate(pixels[None], size=(side, side), mode="bicubic", align_corners=False)
        crops = pixels.reshape(3, height // side, side, width // side, side).permute(1, 3, 0, 2, 4)
        return torch.cat([global_view, crops.reshape(-1, 3, side, side)]), (height, width)

    def preprocess(
        self,
        images: Image.Image | Sequence[Image.Image],
        return_tensors: str | None = None,
        num_crops: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Process pictures.

        Returns:
            `pixel_values` [n, num_crops + 1, 3, S, S] fp32 (places without a crop are zero), `image_sizes` [n, 2]
            (height, width), `num_img_tokens`: list of n counts.

        Raises:
            ValueError: something that is not a PIL picture, or one too thin for any crop.
        """
        pictures = [images] if isinstance(images, Image.Image) else list(images)
        budget = num_crops or self.num_crops
        pixel_values = torch.zeros(len(pictures), budget + 1, 3, self.crop_size, self.crop_size)
        sizes, counts = [], []
        for index, picture in enumerate(pictures):
            if not isinstance(picture, Image.Image):
                raise ValueError(
                    f"picture {index + 1} is a {type(picture).__name__}, not a PIL picture; open it with PIL first"
                )
            views, size = self.views(picture, budget)
            pixel_values[index, : len(views)] = views
            sizes.append(size)
            counts.append(self.num_tokens_for_size(*picture.size, budget))
        data = {
            "pixel_values": pixel_values,
            "image_sizes": torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        }
        feature = BatchFeature(data=data, tensor_type=return_tensors)
        feature["num_img_tokens"] = counts
        return feature
