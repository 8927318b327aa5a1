"""The model as one rank trains it: alone, as one of equal copies (DDP), or as a share of one copy (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from appraiser.backbone import Backbone
from appraiser.training.optim import trainable
from appraiser.training.preparation import blocks_of
from appraiser.training.ranks import Ranks


class Replica:
    """A backbone, and what its forward pass has to be called through.

    Args:
        is_sharded: give every rank a share of weights, gradients and optimizer. Parameters become DTensors, so
            optimizers are built afterwards.
    """

    def __init__(self, backbone: Backbone, ranks: Ranks | None = None, *, is_sharded: bool = False) -> None:
        self.backbone = backbone
        self.ranks = ranks or Ranks(device=backbone.device)
        self.is_sharded = is_sharded and self.ranks.size > 1
        self.model: Any = backbone.model
        if self.is_sharded:
            _shard(backbone, self.ranks)
        elif self.ranks.size > 1:
            on_gpu = [self.ranks.device] if self.ranks.device.type == "cuda" else None
            self.model = DistributedDataParallel(backbone.model, device_ids=on_gpu)
        # Once and for all: while a sharded model is computed, its modules hold other tensors.
        self.trained = dict(trainable(backbone.model))
        """Trained parameters by name."""

    @contextmanager
    def reducing(self, *, is_last: bool) -> Iterator[None]:
        """Gradients of a step are exchanged once, with its last micro-batch."""
        if self.is_sharded:
            self.model.set_requires_gradient_sync(is_last)
            yield
        elif self.ranks.size > 1 and not is_last:
            with self.model.no_sync():
                yield
        else:
            yield

    def weights(self) -> dict[str, Tensor] | None:
        """All weights on the first rank's CPU, where ranks hold shares; otherwise None: the network has them itself."""
        if not self.is_sharded:
            return None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_model_state_dict(self.backbone.model, options=options))  # type: ignore[arg-type]


def _shard(backbone: Backbone, ranks: Ranks) -> None:
    """FSDP2: every block is gathered when it is computed and given back afterwards; the rest belongs to the root."""
    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    decoder, tower = blocks_of(backbone)
    # Arithmetic is bfloat16 through autocast, as on one device: weights are gathered as they are.
    for block in (*decoder, *tower):
        fully_shard(block, mesh=mesh)
    fully_shard(backbone.model, mesh=mesh)
    if backbone.model is not backbone.network:
        # PEFT's generate goes past its own forward, and so past the gathering.
        register_fsdp_forward_method(backbone.model, "generate")
