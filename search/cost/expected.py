"""The expected cost of a relaxed space, differentiable in its gates' values (FBNet, arXiv 1812.03443, section 3.3;
ProxylessNAS, 1812.00332, section 3.3.1).

It is the mean cost of architectures drawn as the gates say, each choice for itself:

- an operation or another option by its weight, among those that can be decoded (`none` is left out and the rest is scaled up);
- a path move by move, by the weights of the moves that leave a state (Auto-DeepLab, arXiv 1901.02985, eq. 7);
- an order by the weight of the whole arrangement;
- the inputs that a node keeps one after the other without replacement, in proportion to their strength, which is what decoding
  ranks them by: the best weight among the operations on an edge, times the edge's own weight where it has one (Plackett-Luce).

Cost is a sum of terms (`search.cost.additive`), so the mean is a polynomial in these probabilities, and exact: the probability
of a condition is the product over its choices of the probability that their tokens occur, a path's tokens by the forward
recursion, an order's by the sum over the arrangements that have them. What isn't exact: `AdditiveCost.errors`, where there are
any; and that a search decodes the best and doesn't draw, so that the network it ends with may cost more or less than the mean.
As the gates grow certain both become one, except for inputs of equal strength, such as those of DARTS cells whose operations
are all certain: of them decoding takes the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations

import torch
from torch import Tensor

from search.cost.additive import AdditiveCost, Condition, Literal
from search.space import OneOf, Option, Order, Ordinal, SomeOf, Space, Token, Walk

# a weight that stands for 0 where weights share what is left of nothing
_NOTHING = 1e-12
# orders in which inputs can be drawn, all of which are summed over
_MOST_DRAWS = 100_000
Polynomial = dict[Condition, int]


class ExpectedCost:
    """`expected(weights)`: the expected cost by metric, scalars in float64 on the CPU.

    `weights`: by choice the gate's weights of its options, of a walk those of its moves, of an order those of its arrangements;
    a `SomeOf` may be left out. Raises ValueError for choices that can't be relaxed (subsets of no fixed size, orders of more
    than 6 items).
    """

    def __init__(self, cost: AdditiveCost) -> None:
        self.metrics = cost.metrics
        self._parts: dict[str, _Options | _Orders | _Draws | _Moves] = {
            choice.name: _part(cost.space, choice.name) for choice in cost.space
        }
        rows: dict[tuple[tuple[str, int], ...], list[float]] = {}
        expansion = _Expansion(cost.space)
        for term in cost.terms:
            for option, amounts in term.amounts.items():
                literals: list[Literal] = [] if term.choice is None or option is None else [(term.choice, option)]
                for condition, sign in expansion(term.conditions, literals).items():
                    row = rows.setdefault(self._factors(condition), [0.0] * len(self.metrics))
                    row[:] = [total + sign * amount for total, amount in zip(row, amounts, strict=True)]
        # where each part's values begin; a 1 comes first, which pads
        starts, size = {}, 1
        for name, part in self._parts.items():
            starts[name], size = size, size + part.size
        longest = max((len(factors) for factors in rows), default=0)
        index = [[starts[name] + i for name, i in factors] + [0] * (longest - len(factors)) for factors in rows]
        self._index = torch.tensor(index, dtype=torch.long).reshape(len(rows), longest)
        self._amounts = torch.tensor(list(rows.values()), dtype=torch.float64).reshape(len(rows), len(self.metrics))

    def _factors(self, condition: Condition) -> tuple[tuple[str, int], ...]:
        """What the probability of a condition is the product of: (choice, number of the part's value)."""
        tokens: dict[str, list[Token]] = {}
        for name, token in condition:
            tokens.setdefault(name, []).append(token)
        return tuple((name, i) for name in sorted(tokens) for i in self._parts[name].factors(tokens[name]))

    def __call__(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See the class; a gradient reaches the weights."""
        given = {name: weight.to("cpu", torch.float64) for name, weight in weights.items()}
        values = torch.cat([torch.ones(1, dtype=torch.float64), *(part.values(given) for part in self._parts.values())])
        total = values[self._index].prod(dim=1) @ self._amounts
        return dict(zip(self.metrics, total.unbind(), strict=True))


class _Expansion:
    """Conditions as sums of conditions that hold all that makes their choices active.

    The probability that one of several conditions holds is a sum over all their unions, with signs.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._latest = list(reversed(list(space)))
        self._closed: dict[Condition, Polynomial] = {}

    def __call__(self, conditions: Iterable[Condition], literals: Sequence[Literal]) -> Polynomial:
        """What the probability that one of the conditions, and the literals, hold is the sum of."""
        return self._sum(self._any(condition.union(literals) for condition in conditions))

    def _any(self, conditions: Iterable[Condition]) -> Polynomial:
        found: Polynomial = {}
        for condition in conditions:
            if not self._possible(condition):
                continue
            joint: Polynomial = {}
            for other, sign in found.items():
                union = other | condition
                if self._possible(union):
                    joint[union] = joint.get(union, 0) - sign
            joint[condition] = joint.get(condition, 0) + 1
            for union, sign in joint.items():
                found[union] = found.get(union, 0) + sign
        return {condition: sign for condition, sign in found.items() if sign}

    def _sum(self, conditions: Polynomial) -> Polynomial:
        found: Polynomial = {}
        for condition, sign in conditions.items():
            for closed, more in self._close(condition).items():
                found[closed] = found.get(closed, 0) + sign * more
        return {condition: sign for condition, sign in found.items() if sign}

    def _close(self, condition: Condition) -> Polynomial:
        """A condition as a sum of conditions, each with a token that activates each of its choices."""
        if condition not in self._closed:
            names = {name for name, _ in condition}
            self._closed[condition] = {condition: 1}
            for choice in self._latest:
                if choice.name in names and choice.when and not condition.intersection(choice.when):
                    self._closed[condition] = self._sum(self._any(condition | {pair} for pair in choice.when))
                    break
        return self._closed[condition]

    def _possible(self, condition: Condition) -> bool:
        """Whether no two literals contradict each other."""
        tokens: dict[str, set[Token]] = {}
        for name, token in condition:
            tokens.setdefault(name, set()).add(token)
        for name, held in tokens.items():
            choice = self.space[name]
            if isinstance(choice, SomeOf):
                most = choice.bounds[1]
            elif isinstance(choice, Walk):
                most = len({choice.step_of(token) for token in held})
            elif isinstance(choice, Order):
                # one item at a place, one place of an item
                most = min(len(set(side)) for side in zip(*(token for token in held if isinstance(token, tuple)), strict=True))
            else:
                most = 1
            if len(held) > most:
                return False
        return True


class _Options:
    """Probabilities of the options of an active `OneOf` or `Ordinal`."""

    def __init__(self, choice: OneOf | Ordinal) -> None:
        self.choice = choice
        self.size = len(choice.options)
        self._decodable = torch.tensor([choice.contains(option) for option in choice.options], dtype=torch.float64)

    def factors(self, tokens: Sequence[Token]) -> list[int]:
        """The number of the one token's probability."""
        return [self.choice.options.index(token) for token in tokens if not isinstance(token, tuple)]

    def values(self, weights: Mapping[str, Tensor]) -> Tensor:
        """[n options]; 0 for what can't be decoded."""
        kept = (weights[self.choice.name] + _NOTHING) * self._decodable
        return kept / kept.sum()


class _Orders:
    """Probabilities that an active order has certain items at certain places."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._sets: dict[frozenset[Token], int] = {}
        # of each set [n arrangements]: 1 for those that hold it
        self._holding: list[Tensor] = []
        self._arrangements = [frozenset(order.tokens(value)) for value in order.arrangements]

    @property
    def size(self) -> int:
        """How many sets of pairs have been asked for."""
        return len(self._sets)

    def factors(self, tokens: Sequence[Token]) -> list[int]:
        """The number of the probability that all of these hold."""
        held = frozenset(tokens)
        if held not in self._sets:
            self._sets[held] = len(self._sets)
            self._holding.append(torch.tensor([held <= value for value in self._arrangements], dtype=torch.float64))
        return [self._sets[held]]

    def values(self, weights: Mapping[str, Tensor]) -> Tensor:
        """[sets asked for]."""
        row = weights[self.order.name]
        return torch.stack(self._holding) @ (row / row.sum()) if self._holding else row.new_zeros(0)


class _Draws:
    """Probabilities that an active subset holds certain options; `below`: by option, the operations that it activates."""

    def __init__(self, choice: SomeOf, below: Mapping[Option, Sequence[OneOf]]) -> None:
        fewest, most = choice.bounds
        if fewest != most:
            raise ValueError(
                f"choice {choice.name!r} keeps {fewest} to {most} options, so it has no expected cost; restrict it to one "
                f"number first, such as {{'k': {most}}}"
            )
        if math.perm(len(choice.options), most) > _MOST_DRAWS:
            raise ValueError(
                f"choice {choice.name!r} can be drawn in more than {_MOST_DRAWS:,} orders, too many to average over; restrict "
                "it to fewer options"
            )
        self.choice = choice
        self._below = [
            [(one.name, [i for i, o in enumerate(one.options) if one.contains(o)]) for one in below.get(option, ())]
            for option in choice.options
        ]
        self._sets: dict[frozenset[Token], int] = {}
        orders = list(permutations(range(len(choice.options)), most))
        self._draws = torch.tensor(orders, dtype=torch.long).reshape(-1, most)
        # [draws, k, n]: 1 for what is left at each draw
        self._left = torch.ones(len(orders), most, len(choice.options), dtype=torch.float64)
        for j in range(1, most):
            self._left[:, j] = self._left[:, j - 1].scatter(1, self._draws[:, j - 1 : j], 0.0)

    @property
    def size(self) -> int:
        """How many sets have been asked for."""
        return len(self._sets)

    def factors(self, tokens: Sequence[Token]) -> list[int]:
        """The number of the probability that all of these are drawn."""
        return [self._sets.setdefault(frozenset(tokens), len(self._sets))]

    def values(self, weights: Mapping[str, Tensor]) -> Tensor:
        """[sets asked for]."""
        strength = self._strengths(weights) + _NOTHING
        chances = (strength[self._draws] / (self._left @ strength)).prod(dim=1)
        rows = [chances[self._holding(tokens)].sum() for tokens in self._sets]
        return torch.stack(rows) if rows else chances.new_zeros(0)

    def _holding(self, tokens: frozenset[Token]) -> Tensor:
        held = torch.zeros(len(self._draws), dtype=torch.long)
        for number in [i for i, option in enumerate(self.choice.options) if option in tokens]:
            held += (self._draws == number).any(dim=1)
        return held == len(tokens)

    def _strengths(self, weights: Mapping[str, Tensor]) -> Tensor:
        best = []
        for below in self._below:
            found = [weights[name][options].max() for name, options in below]
            best.append(torch.stack(found).max() if found else torch.ones((), dtype=torch.float64))
        edges = weights.get(self.choice.name)
        return torch.stack(best) if edges is None else torch.stack(best) * edges


class _Moves:
    """Probabilities of the states of an active walk, and of later states given earlier ones."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.states = {state: i for i, state in enumerate(walk.states)}
        # (layer, later layer) of the states that are asked for together; None: from the start
        self._spans: dict[tuple[int | None, int], int] = {}
        self._places = [
            (layer, None if before is None else self.states[before], self.states[after])
            for layer, before, after in walk.transitions
        ]

    @property
    def size(self) -> int:
        """Of a square for each span; from the start a square too, of which the first row counts."""
        return len(self._spans) * len(self.states) ** 2

    def factors(self, tokens: Sequence[Token]) -> list[int]:
        """The numbers of the first state's probability, and of each later one given the one before."""
        steps = sorted((token for token in tokens if isinstance(token, tuple)), key=lambda token: token[0])
        found = []
        begin, row = None, 0
        for layer, state in steps:
            first = self._spans.setdefault((begin, layer), len(self._spans)) * len(self.states) ** 2
            found.append(first + row * len(self.states) + self.states[state])
            begin, row = layer, self.states[state]
        return found

    def values(self, weights: Mapping[str, Tensor]) -> Tensor:
        """[spans x states x states]."""
        steps = self._steps(weights.get(self.walk.name))
        spans = []
        for begin, end in self._spans:
            moved = steps[0] if begin is None else torch.eye(len(self.states), dtype=torch.float64)
            for layer in range(1 if begin is None else begin + 1, end + 1):
                moved = moved @ steps[layer]
            spans.append(moved.flatten())
        return torch.cat(spans) if spans else torch.zeros(0, dtype=torch.float64)

    def _steps(self, weights: Tensor | None) -> list[Tensor]:
        """For each layer the weights of moves into it, [states before, states]; of layer 0 all rows are the start."""
        n = len(self.states)
        steps = [torch.zeros(n, n, dtype=torch.float64) for _ in range(self.walk.layers)]
        if all(before is not None for _, before, _ in self._places):
            # one state that paths begin with
            first = self.walk.transitions[0][1] if self.walk.transitions else self.walk.start[0]
            assert first is not None
            steps[0][:, self.states[first]] = 1.0
        if weights is None:
            return steps
        for layer in range(self.walk.layers):
            at = [i for i, (step, _, _) in enumerate(self._places) if step == layer]
            for i in at if layer == 0 else ():
                mask = torch.zeros(n, n, dtype=torch.float64)
                mask[:, self._places[i][2]] = 1.0
                steps[0] = steps[0] + weights[i] * mask
            if layer and at:
                rows = torch.tensor([self._places[i][1] for i in at])
                columns = torch.tensor([self._places[i][2] for i in at])
                steps[layer] = steps[layer].index_put((rows, columns), weights[at])
        return steps


def _part(space: Space, name: str) -> _Options | _Orders | _Draws | _Moves:
    choice = space[name]
    if isinstance(choice, OneOf | Ordinal):
        return _Options(choice)
    if isinstance(choice, Walk):
        return _Moves(choice)
    if isinstance(choice, Order):
        return _Orders(choice)
    assert isinstance(choice, SomeOf), choice
    below: dict[Option, list[OneOf]] = {}
    for child in space:
        for parent, token in child.when:
            if parent == name and isinstance(child, OneOf) and not isinstance(token, tuple):
                below.setdefault(token, []).append(child)
    return _Draws(choice, below)
