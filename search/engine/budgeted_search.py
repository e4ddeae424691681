"""A budget in a search by gradients: a pull on the logits towards what is cheaper, and decoding that keeps every limit.

**In the loss.** For each limit that the network decoded now is over, the architecture's loss has a penalty

    w x expected cost / limit

which is 0, with its gradient, for every limit that is kept. The expected cost (`search.cost.expected`) is differentiable and
stands in for the decoded network's, which isn't. The weight w is chosen in each step so that the penalty's gradient is
``weight`` times as long as the loss's own; ``weight`` starts at ``budget.weight`` and grows by ``budget.rate`` x (cost / limit
- 1) with each step of the logits, as a multiplier does in dual ascent, so that no loss outweighs a limit for long.

Why not more simply: logits of DARTS-like searches stay close together, so their expected cost stays near the mean of the space
while they decode to anything. A penalty on how far the *expected* cost is over the limit pushes all logits until every choice
decodes to its cheapest option (tried on digits: the cheapest cell of the space, at half of the budget). And Adam divides by the
size of what it has seen: a penalty much larger than the loss hides the loss for hundreds of steps. FBNet (arXiv 1812.03443,
section 3.2) multiplies the loss by a power of the cost's logarithm, and ProxylessNAS (1812.00332, section 3.3.1) adds a
constant times the cost: both go on lowering the cost of networks that are cheap enough, and neither keeps a limit.

**In decoding.** What is decoded is counted. If it is over a limit, the likeliest architecture that isn't takes its place
(`search.strategies.constrained`), which is counted too. Before the first step it is found out whether there is one: a search
whose budget can't be met ends at once and has spent nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from search.cost.additive import AdditiveCost, learn
from search.cost.expected import ExpectedCost
from search.cost.items import Itemiser
from search.space import Architecture, Space
from search.space.decode import Penalties
from search.strategies.constrained import Found, cheapest, likeliest
from search.strategies.gradient import GradientStrategy

from .budget import METRICS, Budget, number_text, size_text
from .errors import BudgetError, UserError

# how often the limits of a sum that isn't exact are lowered by what counting finds
_TRIES = 8
_BELOW = dict.fromkeys(METRICS, "has fewer than") | {"latency": "takes less than"}


@dataclass
class BudgetedSearch:
    """A budget that a space's costs have been learned for; ``weights`` of the penalty by metric change with every step.

    ``smallest``: by metric the cheapest network's figure, counted; ``witness``: an architecture within every limit.
    """

    budget: Budget
    strategy: GradientStrategy
    cost: AdditiveCost
    expected: ExpectedCost
    smallest: Mapping[str, float]
    witness: Architecture
    weights: dict[str, float]
    _decoded: tuple[Any, Found] | None = None

    @classmethod
    def prepared(
        cls,
        budget: Budget,
        strategy: GradientStrategy,
        space: Space,
        probabilities: Mapping[str, Any],
        seed: int,
        tell: Callable[[str], object] = lambda text: None,
    ) -> "BudgetedSearch":
        """Counts networks until the space's costs are known, and finds one within the budget.

        ``probabilities``: those that the search starts with. ``tell`` is told what is going on.

        Raises:
            BudgetError: there is none, or none was found.
            UserError: the strategy decodes in a way that can't be constrained.
        """
        penalties = getattr(strategy.decode, "penalties", None)
        if penalties is None:
            raise UserError(f"{strategy.name} decodes in its own way, which can't be kept within a budget: leave out budget.")
        tell(f"budget: counting networks of the space at {size_text(budget.input_size)}")
        metrics = [metric for metric in METRICS if metric != "latency" or budget.table is not None]
        itemise = Itemiser(budget.networks, budget.input_size, budget.table)
        cost = learn(space, itemise, metrics=metrics, seed=seed)
        tell(_learned(cost))
        smallest = _smallest(budget, cost)
        found = _fit(budget, cost, penalties(space, probabilities))
        if found is None:
            raise _together(budget, cost, smallest)
        weights = dict.fromkeys(budget.limits, budget.settings.weight)
        return cls(budget, strategy, cost, ExpectedCost(cost), smallest, found.architecture, weights)

    def decode(self, probabilities: Mapping[str, Any]) -> Architecture:
        """What the strategy decodes if it is within the budget, else the likeliest architecture that is."""
        return self.found(probabilities).architecture

    def figures(self, architecture: Architecture) -> dict[str, float]:
        """See `Budget`."""
        return self.budget.figures(architecture)

    def within(self, architecture: Architecture) -> bool:
        """Whether an architecture is within the budget; only where the sum of its terms says so is it counted."""
        if self.cost.exact:
            spent = self.cost.of(architecture)
            if any(spent[metric] > limit * (1 + 1e-9) for metric, limit in self.budget.limits.items()):
                return False
        return self.budget.within(architecture)

    def found(self, probabilities: Mapping[str, Any]) -> Found:
        """`decode`, with what it lost."""
        if self._decoded is None or self._decoded[0] != probabilities:
            self._decoded = probabilities, self._find(probabilities)
        return self._decoded[1]

    def _find(self, probabilities: Mapping[str, Any]) -> Found:
        free = self.strategy.decode(self.cost.space, probabilities)
        if self.budget.within(free):
            return Found(free, 0.0, True)
        penalties: Penalties = self.strategy.decode.penalties(self.cost.space, probabilities)
        return _fit(self.budget, self.cost, penalties) or Found(self.witness, float("inf"), False)

    def add_gradients(
        self, gradients: dict[str, Tensor], logits: Mapping[str, Tensor], probabilities: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The loss's gradients by logit, and the penalties' of the limits that are not kept; raises the weights of these.

        ``probabilities``: those of the logits now, as decoding reads them.
        """
        decoded = self.cost.of(self.strategy.decode(self.cost.space, probabilities))
        over = {m: decoded[m] / limit - 1 for m, limit in self.budget.limits.items() if decoded[m] > limit}
        if not over or not gradients:
            return gradients
        length = _length(gradients.values())
        expected = self.expected(self._weights_of(logits))
        total = dict(gradients)
        for metric, overshoot in over.items():
            found = torch.autograd.grad(expected[metric], list(logits.values()), retain_graph=True, allow_unused=True)
            pull = {name: gradient for name, gradient in zip(logits, found, strict=True) if gradient is not None}
            reach = _length(pull.values())
            for name, gradient in pull.items() if reach else ():
                scaled = (self.weights[metric] * length / reach * gradient.double()).to(gradient.dtype)
                total[name] = total[name] + scaled if name in total else scaled
            self.weights[metric] += self.budget.settings.rate * overshoot
        return total

    def _weights_of(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: weights for name, (weights, _) in self.strategy.gate(self.cost.space, logits).items()}

    @torch.no_grad()
    def line(self, logits: Mapping[str, Tensor], architecture: Architecture) -> dict[str, dict[str, float]]:
        """For a line of history: by metric its limit, the expected cost, that of the architecture, the penalty's weight."""
        expected, figures = self.expected(self._weights_of(logits)), self.budget.figures(architecture)
        return {
            metric: {
                "limit": limit,
                "expected": expected[metric].item(),
                "derived": figures[metric],
                "weight": self.weights[metric],
            }
            for metric, limit in self.budget.limits.items()
        }

    def summary(self, logits: Mapping[str, Tensor], probabilities: Mapping[str, Any]) -> dict[str, Any]:
        """What a summary says of the budget."""
        found = self.found(probabilities)
        free = self.strategy.decode(self.cost.space, probabilities)
        return {
            **self.budget.summary(found.architecture),
            "limits": self.line(logits, found.architecture),
            "smallest": dict(self.smallest),
            "fixed": {metric: value for metric, value in self.cost.fixed.items() if metric in self.budget.limits},
            "unconstrained": self.budget.figures(free),
            # None: the architecture known from the start took its place
            "lost_nats": found.nats if math.isfinite(found.nats) else None,
            "likeliest": found.proven,
            "networks_counted": self.cost.counted,
            "exact": self.cost.exact,
            "errors": {metric: list(errors) for metric, errors in self.cost.errors.items()},
        }


def _length(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(tensor.double().square().sum().item() for tensor in tensors))


def _fit(budget: Budget, cost: AdditiveCost, penalties: Penalties) -> Found | None:
    """The likeliest architecture whose counted cost is within the budget; None where none was found."""
    limits = dict(budget.limits)
    for _ in range(_TRIES):
        found = likeliest(cost, penalties, limits)
        if found is None:
            return None
        if budget.within(found.architecture):
            return replace(found, proven=found.proven and cost.exact and limits == budget.limits)
        # the sum says less than counting does: aim lower by as much
        figures = budget.figures(found.architecture)
        for metric, limit in budget.limits.items():
            if figures[metric] > limit:
                limits[metric] *= limit / figures[metric]
    return None


def _learned(cost: AdditiveCost) -> str:
    if cost.exact:
        return f"budget: {cost.counted} networks counted, after which costs were predicted exactly"
    errors = ", ".join(
        f"{metric} {100 * mean:.2g} % (at most {100 * most:.2g} %)" for metric, (mean, most) in cost.errors.items()
    )
    return f"budget: {cost.counted} networks counted; costs are predicted with mean errors of {errors}"


def _smallest(budget: Budget, cost: AdditiveCost) -> dict[str, float]:
    """The cheapest network's figure by metric, counted. BudgetError where it is over a limit."""
    found = {}
    for metric, limit in budget.limits.items():
        least = cheapest(cost, metric, {})
        assert least is not None
        found[metric] = budget.figures(least.architecture)[metric]
        if found[metric] > limit:
            known = "of this space" if cost.exact and least.proven else "that was found"
            raise BudgetError(
                f"budget.{metric}={number_text(metric, limit)} can't be met: no network {known} {_BELOW[metric]} "
                f"{number_text(metric, found[metric])} at {size_text(budget.input_size)}, of which "
                f"{number_text(metric, cost.fixed[metric])} are in every one."
            )
    return found


def _together(budget: Budget, cost: AdditiveCost, smallest: Mapping[str, float]) -> BudgetError:
    """What is said where each limit can be met alone."""
    limits = " and ".join(f"budget.{metric}={number_text(metric, limit)}" for metric, limit in budget.limits.items())
    if len(budget.limits) == 1:
        return BudgetError(f"{limits} can't be met by what the strategy may decode: relax the budget or skip_limit.")
    alone = " and ".join(number_text(metric, value) for metric, value in smallest.items())
    last = list(budget.limits)[-1]
    others = {metric: limit for metric, limit in budget.limits.items() if metric != last}
    least = cheapest(cost, last, others)
    together = (
        ""
        if least is None
        else f"; within the other limits it takes {number_text(last, budget.figures(least.architecture)[last])}"
    )
    return BudgetError(f"{limits} can't be met together: the smallest are {alone}, of different networks{together}.")
