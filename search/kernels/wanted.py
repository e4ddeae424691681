"""Whether a gradient is wanted in the backward pass that runs.

`ctx.needs_input_grad` says what could be asked for; a step of the logits by ``autograd.grad`` asks for no weight, whose
gradients then needn't be computed.
"""

from __future__ import annotations

import torch


def asked_for(ctx, *inputs: int) -> bool:
    """Whether the pass that runs wants the gradient of one of a function's inputs, given by position.

    Called in the function's backward; every input before the last one named is a tensor.
    """
    return any(ctx.needs_input_grad[i] and runs(ctx.next_functions[i][0]) for i in inputs)


def runs(node) -> bool:
    """Whether the pass that runs will come to a node of the graph."""
    try:
        return node is not None and torch._C._will_engine_execute_node(node)
    except RuntimeError:
        # torch's answer where `autograd.grad` asks for this very leaf
        return True
