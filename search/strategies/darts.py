"""DARTS, first and second order.

Paper: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", arXiv 1806.09055: equations
1, 2 (the softmax gate), 3, 4 (bilevel), 5 to 8 (the unrolled gradient and its finite difference), section 2.4
(decoding). Official code: quark0/darts at f276dd3.

What we do differently, and why:
- The unrolled step is functional and gives the same gradient (``bilevel.py``).
- Forwards of the architecture step move no batch-norm running statistics (the engine suspends them); in the
  official code those on the model itself do. Training-mode outputs don't depend on them.
- The logits don't move before ``freeze_epochs`` (official: 0).
"""

from search.space.decode import TopInputs
from search.strategies.bilevel import FirstOrder, Unrolled
from search.strategies.gradient import Decode, GradientStrategy, Update
from search.supernet.gates import Softmax


def update_of(order: int, epsilon: float, exact: bool) -> Update:
    """The update of a given order; ValueError for other orders, or options that order 1 has no use for."""
    if order == 2:
        return Unrolled(epsilon=epsilon, exact=exact)
    if order != 1:
        raise ValueError(f"order={order!r}: DARTS has order 1 (weights as they are) and 2 (one virtual step).")
    if exact or epsilon != Unrolled.epsilon:
        raise ValueError(f"epsilon={epsilon} and exact={exact} belong to the virtual step; set order=2 to use them.")
    return FirstOrder()


def DARTS(
    *,
    order: int = 1,
    freeze_epochs: int = 0,
    epsilon: float = 0.01,
    exact: bool = False,
    skip_limit: int | None = None,
) -> GradientStrategy:
    """DARTS as a ``GradientStrategy``; a function named like a class, because configs name it as their type.

    ``order``: 1 or 2; ``epsilon``, ``exact``: see ``Unrolled``, order 2 only; ``skip_limit``: the most skip
    connections that the decoded normal cell may hold (P-DARTS's rule; ``None``, as in the paper: no limit).
    """
    decode: Decode = TopInputs(skip_limit=skip_limit)
    return GradientStrategy(
        name=f"DARTS, order {order}",
        gate=Softmax(),
        update=update_of(order, epsilon, exact),
        decode=decode,
        freeze_epochs=freeze_epochs,
    )
