"""Mixed precision in bfloat16, on CPU and GPU alike."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from .errors import UserError


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs forwards under ``torch.autocast``; weights, gradients and optimiser states stay as they are.

    Args:
        dtype: 'bfloat16'. float16 would need its losses scaled, which the gradients of the logits, taken by
            ``autograd.grad``, are not; for it use mmengine's AmpOptimWrapper when retraining.
        kwargs: as mmengine's OptimWrapper.
    """

    def __init__(self, dtype: str = "bfloat16", **kwargs):
        if dtype != "bfloat16":
            raise UserError(f"dtype={dtype!r} of AutocastOptimWrapper must be 'bfloat16'.")
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast on the model's device, beside what mmengine does for gradient accumulation."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
