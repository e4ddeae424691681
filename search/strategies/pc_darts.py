"""PC-DARTS: partial channel connections with edge normalisation.

Paper: Y. Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search", arXiv
1907.05737. Official code: yuhuixu1993/PC-DARTS at b74702f.

Three parts, of which two are here: one logit per edge, with a softmax over each node's incoming edges, that
multiplies the edge's output and, in decoding, the strength of its operations; and logits that stay frozen for
the first epochs (15 of 50 on CIFAR-10, 35 of 50 on ImageNet). The third, computing on 1/K of the channels,
belongs to the network: its argument ``partial=K`` (4 on CIFAR-10, 2 on ImageNet).

What we do differently, and why: batch-norm running statistics as in ``darts.py``. Like the official code, and
unlike the paper's text, the network takes a fixed slice of the channels and shuffles, and the final epoch's
logits are decoded.
"""

from search.space.decode import TopInputs
from search.strategies.bilevel import Unrolled
from search.strategies.darts import update_of
from search.strategies.gradient import Decode, GradientStrategy
from search.supernet.gates import Softmax


def PCDARTS(
    *,
    freeze_epochs: int = 15,
    order: int = 1,
    epsilon: float = Unrolled.epsilon,
    exact: bool = False,
    skip_limit: int | None = None,
) -> GradientStrategy:
    """PC-DARTS as a ``GradientStrategy``; a function named like a class, because configs name it as their
    type.

    Arguments as in ``DARTS``. K isn't one: it is the network's ``partial``.
    """
    decode: Decode = TopInputs(skip_limit=skip_limit)
    return GradientStrategy(
        name="PC-DARTS" if order == 1 else f"PC-DARTS, order {order}",
        gate=Softmax(),
        update=update_of(order, epsilon, exact),
        decode=decode,
        freeze_epochs=freeze_epochs,
        edge_logits=True,
    )
