"""The logits' gradient in a bilevel problem: first order, and through one virtual step of the weights.

Paper: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", arXiv 1806.09055, equations
3 to 8. Official code: quark0/darts at f276dd3, cnn/architect.py.

    w' = virtual_step(grad_w L_train(w, a))          for SGD: w - lr * (mu * v + grad_w L_train + decay * w)
    g  = grad_a L_val(w', a),    u = grad_w' L_val(w', a)
    d L_val / d a = g - lr * h,  h = d/da <grad_w L_train(w, a), u>

What we do differently, and why:
- Functional: the virtual weights are new tensors handed to the loss, so the model is neither copied nor
  changed. The official code adds eps * u to the weights and subtracts it again, which leaves rounding errors
  in them.
- ``lr`` may differ between weights; the finite difference is then taken along lr * u. With one rate this is
  the official formula: eps * u there is as long as the step here, ``epsilon``.
- ``exact=True`` replaces the finite difference by double backward (not in the official code).
- Across processes each gradient is averaged as soon as it is known, so every rank takes the same virtual
  step.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

K = TypeVar("K", bound=Hashable)
Tensors = Mapping[str, Tensor]
Loss = Callable[[Tensors | None], Tensor]


def _identity(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


@dataclass(frozen=True, kw_only=True)
class Bilevel:
    """min over logits of L_val(w*(logits), logits), where w* = argmin over w of L_train(w, logits).

    ``train_loss`` and ``val_loss`` take the weights to use by name (``None``: the current ones) and return a
    scalar. Each call evaluates the gates anew, so that its graph reaches ``logits``.
    ``virtual_step`` maps gradients by name to the weights after one step of their optimiser, without changing
    any state; a weight without gradient keeps its value.
    ``lr`` is the rate of that step: d virtual_step(g)[n] / d g[n] = -lr; one number, or one for each weight.
    ``average`` averages tensors over processes, in place of what each rank holds; alone it changes nothing.
    """

    train_loss: Loss
    val_loss: Loss
    weights: Tensors
    logits: Tensors
    virtual_step: Callable[[Tensors], Tensors]
    lr: float | Mapping[str, float]
    average: Callable[[list[Tensor]], list[Tensor]] = _identity

    def averaged(self, tensors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """The same names, averaged over processes. Every rank must hold the same names in the same order."""
        return dict(zip(tensors, self.average(list(tensors.values())), strict=True))

    def rate(self, name: str) -> float:
        """The learning rate of one weight in the virtual step."""
        return self.lr[name] if isinstance(self.lr, Mapping) else self.lr


@dataclass(frozen=True)
class FirstOrder:
    """grad_a L_val(w, a): the weights are taken as they are, lr = 0 in the paper's equation 6."""

    def __call__(self, problem: Bilevel) -> dict[str, Tensor]:
        """The logits' gradients by name; logits that the loss doesn't depend on have none."""
        return problem.averaged(_gradients(problem.val_loss(None), problem.logits))


@dataclass(frozen=True, kw_only=True)
class Unrolled:
    """The gradient through one virtual step of the weights.

    ``epsilon`` is the length of the step of the central difference in weight space (paper: 0.01 / ||u||).
    ``exact`` computes that term by double backward instead; it needs operations that can be differentiated
    twice.
    """

    epsilon: float = 0.01
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon={self.epsilon}: the finite difference needs a step above 0 (paper: 0.01).")

    def __call__(self, problem: Bilevel) -> dict[str, Tensor]:
        """The logits' gradients by name; logits that no loss depends on have none."""
        local = _gradients(problem.train_loss(None), problem.weights, create_graph=self.exact)
        step = problem.averaged({name: grad.detach().clone() for name, grad in local.items()})
        with torch.no_grad():
            ahead = problem.virtual_step(step)
        virtual = {name: ahead[name].detach().requires_grad_() for name in problem.weights}

        inputs = {**_keyed("a", problem.logits), **_keyed("w", virtual)}
        both = problem.averaged(_gradients(problem.val_loss(virtual), inputs))
        gradient = {name: both["a", name] for name in problem.logits if ("a", name) in both}
        # only where the virtual step moved along a gradient does it depend on the logits
        u = {name: both["w", name] for name in local if ("w", name) in both}

        implicit = self._double_backward(problem, local, u) if self.exact else self._difference(problem, u)
        for name, value in problem.averaged(implicit).items():
            gradient[name] = gradient[name] - value if name in gradient else -value
        return {name: gradient[name] for name in problem.logits if name in gradient}

    def _difference(self, problem: Bilevel, u: Tensors) -> dict[str, Tensor]:
        """lr * h, by a central difference of grad_a L_train along lr * u."""
        direction = {name: problem.rate(name) * value for name, value in u.items()}
        length = float(torch.sqrt(sum((v.double().square().sum() for v in direction.values()), torch.zeros(()))))
        if length == 0.0:
            # a flat validation loss or a rate of 0: the virtual step doesn't depend on the logits
            return {}
        eps = self.epsilon / length
        sides = []
        for sign in (eps, -eps):
            with torch.no_grad():
                moved = {n: w + sign * direction[n] if n in direction else w for n, w in problem.weights.items()}
            moved = {name: tensor.detach() for name, tensor in moved.items()}
            sides.append(_gradients(problem.train_loss(moved), problem.logits))
        plus, minus = sides
        assert plus.keys() == minus.keys(), "the training loss must depend on the same logits at both points"
        return {name: (plus[name] - minus[name]) / (2 * eps) for name in plus}

    def _double_backward(self, problem: Bilevel, local: Tensors, u: Tensors) -> dict[str, Tensor]:
        """lr * h of this process, by differentiating its virtual step."""
        ahead = problem.virtual_step(local)
        outputs = [ahead[name] for name in u]
        if not any(output.requires_grad for output in outputs):
            return {}
        names = list(problem.logits)
        inputs = [problem.logits[name] for name in names]
        grads = torch.autograd.grad(outputs, inputs, list(u.values()), allow_unused=True)
        return {name: -grad for name, grad in zip(names, grads, strict=True) if grad is not None}


def _keyed(key: str, tensors: Tensors) -> dict[tuple[str, str], Tensor]:
    return {(key, name): tensor for name, tensor in tensors.items()}


def _gradients(loss: Tensor, tensors: Mapping[K, Tensor], create_graph: bool = False) -> dict[K, Tensor]:
    """The gradients that exist, by key."""
    values = list(tensors.values())
    grads: Sequence[Tensor | None] = (
        torch.autograd.grad(loss, values, create_graph=create_graph, allow_unused=True) if values else ()
    )
    return {key: grad for key, grad in zip(tensors, grads, strict=True) if grad is not None}
