"""A gradient strategy: gate x update x decode, and for how long the logits stay frozen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from search.space import Architecture, Space
from search.strategies.bilevel import Bilevel
from search.supernet.gates import GateRule

Update = Callable[[Bilevel], dict[str, Tensor]]
# a list of probabilities for each choice, of a walk a mapping from moves (search/space/decode.py)
Decode = Callable[[Space, Mapping[str, Any]], Architecture]


@dataclass(frozen=True, kw_only=True)
class GradientStrategy:
    """What a bilevel search loop needs to know; the loop owns the model, the data and the optimisers.

    ``gate`` turns logits into weights of the candidates; ``update`` gives the logits' gradients of a
    ``Bilevel``; ``decode`` reads an architecture from the probabilities, and searches with a budget need its
    ``penalties(space, probabilities)`` too (``search/space/decode.py``); in the first ``freeze_epochs``
    epochs only weights move; ``edge_logits``: each input of a node has a logit of its own, beside those of
    its operations.
    """

    name: str
    gate: GateRule
    update: Update
    decode: Decode
    freeze_epochs: int = 0
    edge_logits: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.freeze_epochs, int) or self.freeze_epochs < 0:
            raise ValueError(f"freeze_epochs={self.freeze_epochs!r}: give a number of epochs, 0 or more.")
