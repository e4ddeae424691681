"""The likeliest architecture whose cost is within limits, and the cheapest one, found exactly.

Which options are chosen, which moves a path makes, which of its arrangements an order is and which conditions of a cost's terms
hold are the 0-1 variables of a linear program; what an architecture may be, what a term costs and the limits are its rows
(integer programs for products as in McCormick, 1976, and Adams and Sherali, 1986). HiGHS solves it to proven optimality
(Huangfu and Hall, Mathematical Programming Computation 10, 2018, by `scipy.optimize.milp`). A chain's is a knapsack, a path's
a shortest path with a limit; paths, orders and cells may be chosen together.

Likely is what a strategy's own decoding ranks by, see `search.space.decode.Penalties`. Exact are: the optimum to 1e-6 nats; the
cost as far as `AdditiveCost` is, so who needs a limit kept counts the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from search.cost.additive import AdditiveCost, Condition, Literal, Term
from search.space import Architecture, OneOf, Option, Order, Ordinal, SomeOf, Value, Walk
from search.space.decode import Penalties
from search.space.structured import Transition

# a sum of variables, by their numbers
Sum = dict[int, float]
# branches of the program after which the best that was found is taken
_MOST_NODES = 100_000
# limits hold to about 1e-6 of themselves: the next try aims below by what the one before went over, and by this
_SLACK = 2e-6
_TRIES = 6
# of a limit's row: the solver's tolerance of 1e-6 is absolute
_SCALE = 1e3


@dataclass(frozen=True)
class Found:
    """An architecture, its objective (nats lost against free decoding), and whether that is proven to be the least."""

    architecture: Architecture
    nats: float
    proven: bool


def likeliest(cost: AdditiveCost, penalties: Penalties, limits: Mapping[str, float]) -> Found | None:
    """The architecture of the cost's space that loses least and costs no more than `limits` by metric; None where none does."""
    program = _Program(cost, penalties.at_most)
    objective: Sum = {}
    for name, lost in penalties.options.items():
        for option, nats in lost.items():
            objective[program.literals[name, option]] = nats
    for name, moves in penalties.moves.items():
        objective.update((program.moves[name, move], nats) for move, nats in moves.items() if (name, move) in program.moves)
    for name, orders in penalties.orders.items():
        objective.update((program.orders[name, value], nats) for value, nats in orders.items())
    return program.solve(objective, limits)


def cheapest(cost: AdditiveCost, metric: str, limits: Mapping[str, float]) -> Found | None:
    """The architecture that costs least in one metric, and no more than `limits`; None where none does."""
    program = _Program(cost, ())
    scale = max((abs(c) for c in program.costs[metric].values()), default=0.0) or 1.0
    return program.solve({variable: amount / scale for variable, amount in program.costs[metric].items()}, limits)


@dataclass
class _Program:
    """Variables from 0 to 1 and rows of a space and its cost. `literals`, `moves`, `orders`: those of what may be chosen.

    `costs`: by metric what the variables cost. Variables for products are only pushed up by rows, so costs can't be negative.
    """

    cost: AdditiveCost
    at_most: Sequence[tuple[tuple[Literal, ...], int]]
    literals: dict[Literal, int] = field(default_factory=dict)
    moves: dict[tuple[str, Transition], int] = field(default_factory=dict)
    orders: dict[tuple[str, Value], int] = field(default_factory=dict)
    costs: dict[str, Sum] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._integer: list[int] = []
        self._rows: list[tuple[Sum, float, float]] = []
        self._holds: dict[frozenset[int], int] = {}
        self._arranged: dict[Condition, int] = {}
        # a variable that is always 1
        self.one = self._variable()
        self._row({self.one: 1.0}, 1.0, 1.0)
        self.active: dict[str, int] = {}
        for choice in self.cost.space:
            self.active[choice.name] = self._activity(choice.when)
            if isinstance(choice, OneOf | Ordinal):
                self._options(choice.name, choice.decodable, 1, 1)
            elif isinstance(choice, SomeOf):
                self._options(choice.name, choice.options, *choice.bounds)
            elif isinstance(choice, Walk):
                self._path(choice)
            else:
                assert isinstance(choice, Order), choice
                self._arrangement(choice)
        self.costs.update({metric: {} for metric in self.cost.metrics})
        for term in self.cost.terms:
            self._term(term)
        for literals, most in self.at_most:
            self._row({self.literals[one]: 1.0 for one in literals if one in self.literals}, 0.0, float(most))

    # --- architectures ------------------------------------------------------------------------------------------

    def _variable(self, integer: bool = False) -> int:
        self._integer.append(int(integer))
        return len(self._integer) - 1

    def _row(self, total: Sum, least: float, most: float) -> None:
        self._rows.append((total, least, most))

    def _activity(self, when: Iterable[Literal]) -> int:
        """A variable that is 1 exactly where one of the literals is."""
        causes = [self.literals[pair] for pair in when if pair in self.literals]
        if not causes:
            # inactive where nothing can activate it
            return self.one if not when else self._fixed_at_zero()
        if len(causes) == 1:
            return causes[0]
        active = self._variable()
        self._row({active: 1.0, **dict.fromkeys(causes, -1.0)}, -float(len(causes)), 0.0)
        for cause in causes:
            self._row({active: 1.0, cause: -1.0}, 0.0, 1.0)
        return active

    def _fixed_at_zero(self) -> int:
        variable = self._variable()
        self._row({variable: 1.0}, 0.0, 0.0)
        return variable

    def _options(self, name: str, options: Sequence[Option], fewest: int, most: int) -> None:
        chosen = [self._variable(integer=True) for _ in options]
        self.literals.update({(name, option): variable for option, variable in zip(options, chosen, strict=True)})
        active = self.active[name]
        total: Sum = dict.fromkeys(chosen, 1.0)
        if fewest == most:
            self._row({**total, active: -float(most)}, 0.0, 0.0)
        else:
            self._row({**total, active: -float(most)}, -float(most), 0.0)
            self._row({**total, active: -float(fewest)}, 0.0, float(len(chosen)))
        if most > 1:
            for variable in chosen:
                self._row({variable: 1.0, active: -1.0}, -1.0, 0.0)

    def _path(self, walk: Walk) -> None:
        """A flow of 1 through the layers; states are visited as the moves into them are made."""
        name, active = walk.name, self.active[walk.name]
        into: dict[tuple[int, Option], Sum] = {}
        out: dict[tuple[int, Option], Sum] = {}
        for move in walk.transitions:
            layer, before, after = move
            variable = self.moves[name, move] = self._variable(integer=True)
            into.setdefault((layer, after), {})[variable] = 1.0
            if before is not None:
                out.setdefault((layer - 1, before), {})[variable] = 1.0
        starts = [state for layer, state in into if layer == 0]
        if not starts:
            # one state that all paths begin with
            first = walk.transitions[0][1] if walk.transitions else next(s for s in walk.states if s in walk.start)
            assert first is not None
            into[0, first] = {active: 1.0}
        else:
            self._row({**{v: c for s in starts for v, c in into[0, s].items()}, active: -1.0}, 0.0, 0.0)
        for place, total in into.items():
            visited = self.literals[name, place] = self._variable()
            self._row({**total, visited: -1.0}, 0.0, 0.0)
            if place in out:
                self._row({**out[place], visited: -1.0}, 0.0, 0.0)

    def _arrangement(self, order: Order) -> None:
        """One of an order's arrangements; what is at each place follows from it."""
        name = order.name
        made: dict[tuple[str, Value], int] = {(name, value): self._variable(integer=True) for value in order.arrangements}
        self.orders.update(made)
        self._row({**dict.fromkeys(made.values(), 1.0), self.active[name]: -1.0}, 0.0, 0.0)
        for place in range(order.length):
            for item in order.items:
                self.literals[name, (place, item)] = self._holding(name, frozenset({(name, (place, item))}))

    def _holding(self, name: str, literals: Condition) -> int:
        """A variable that is 1 where an order has all of these items at their places."""
        if literals not in self._arranged:
            order, held = self.cost.space[name], {token for _, token in literals}
            has = {v: 1.0 for (of, value), v in self.orders.items() if of == name and held.issubset(order.tokens(value))}
            holds = self._arranged[literals] = self._variable()
            self._row({**has, holds: -1.0}, 0.0, 0.0)
        return self._arranged[literals]

    # --- costs --------------------------------------------------------------------------------------------------

    def _term(self, term: Term) -> None:
        conditions = [c for c in term.conditions if all(literal in self.literals for literal in c)]
        if not conditions:
            return
        holds = self._one_of(conditions)
        if term.choice is None:
            self._add(holds, term.amounts[None])
            return
        chosen = {option: self.literals[term.choice, option] for option in term.amounts if option is not None}
        if holds == {self.one: 1.0}:
            for option, variable in chosen.items():
                self._add({variable: 1.0}, term.amounts[option])
            return
        # both the condition and the option: they share what is left of the condition when the choice isn't active
        both = {option: self._variable() for option in chosen}
        for option, variable in both.items():
            self._add({variable: 1.0}, term.amounts[option])
            self._row({variable: 1.0, chosen[option]: -1.0}, -1.0, 0.0)
            self._at_least(variable, [holds, {chosen[option]: 1.0}])
        negative: Sum = {variable: -weight for variable, weight in holds.items()}
        active = self.active[term.choice]
        negative[active] = negative.get(active, 0.0) - 1.0
        self._row({**dict.fromkeys(both.values(), 1.0), **negative}, -1.0, float(len(both)))

    def _add(self, holds: Sum, amounts: Sequence[float]) -> None:
        for metric, amount in zip(self.cost.metrics, amounts, strict=True):
            for variable, weight in holds.items() if amount else ():
                total = self.costs[metric]
                total[variable] = total.get(variable, 0.0) + amount * weight

    def _at_least(self, variable: int, factors: Sequence[Sum]) -> None:
        """The variable is 1 where all the sums are."""
        row: Sum = {variable: 1.0}
        for factor in factors:
            for other, weight in factor.items():
                row[other] = row.get(other, 0.0) - weight
        self._row(row, 1.0 - len(factors), float(len(row)))

    def _one_of(self, conditions: Sequence[Condition]) -> Sum:
        """A sum that is at least 1 where one of the conditions holds, and where none holds may be 0."""
        held = [self._all_of(condition) for condition in conditions]
        if len(held) == 1:
            return {held[0]: 1.0}
        single = [next(iter(condition)) for condition in conditions if len(condition) == 1]
        if len(single) == len(held) and self._exclusive(single):
            return dict.fromkeys(held, 1.0)
        any_ = self._variable()
        for variable in held:
            self._row({any_: 1.0, variable: -1.0}, 0.0, 1.0)
        return {any_: 1.0}

    def _exclusive(self, literals: Sequence[Literal]) -> bool:
        choice = self.cost.space[literals[0][0]]
        steps = {choice.step_of(token) for _, token in literals}
        return {name for name, _ in literals} == {choice.name} and len(steps) == 1 and not isinstance(choice, SomeOf)

    def _all_of(self, condition: Condition) -> int:
        """A variable that is 1 where all of the literals hold."""
        variables = frozenset(self._merged(condition)) - {self.one}
        if len(variables) < 2:
            return next(iter(variables), self.one)
        if variables not in self._holds:
            holds = self._holds[variables] = self._variable()
            self._at_least(holds, [{variable: 1.0} for variable in sorted(variables)])
        return self._holds[variables]

    def _merged(self, condition: Condition) -> list[int]:
        """The variables of the literals, of two states that follow one another that of the move, of an order one of all."""
        left: dict[object, int] = {literal: self.literals[literal] for literal in condition}
        for (name, move), variable in self.moves.items():
            pair = {(name, (move[0] - 1, move[1])), (name, (move[0], move[2]))}
            if pair <= left.keys():
                left = {literal: number for literal, number in left.items() if literal not in pair} | {(name, move): variable}
        for name in dict.fromkeys(name for name, _ in self.orders):
            placed = frozenset(literal for literal in condition if literal[0] == name)
            if len(placed) > 1:
                left = {literal: number for literal, number in left.items() if literal not in placed}
                left[placed] = self._holding(name, placed)
        return list(left.values())

    # --- solving ------------------------------------------------------------------------------------------------

    def solve(self, objective: Sum, limits: Mapping[str, float]) -> Found | None:
        """What makes the objective smallest, at a cost within the limits by the cost's own account."""
        slack = 0.0
        for _ in range(_TRIES):
            found = self._solve(objective, {metric: limit - slack * abs(limit) for metric, limit in limits.items()})
            if found is None:
                return None
            spent = self.cost.of(found.architecture)
            over = max((spent[metric] / limit - 1 if limit else spent[metric] for metric, limit in limits.items()), default=0.0)
            if over <= 0:
                return found
            slack += over + _SLACK
        return None

    def _solve(self, objective: Sum, limits: Mapping[str, float]) -> Found | None:
        rows = list(self._rows)
        for metric, limit in limits.items():
            scale = (abs(limit) or 1.0) / _SCALE
            rows.append(({v: amount / scale for v, amount in self.costs[metric].items()}, -float("inf"), limit / scale))
        entries = [(i, variable, weight) for i, (total, _, _) in enumerate(rows) for variable, weight in total.items()]
        size = len(self._integer)
        matrix = coo_array(
            ([weight for _, _, weight in entries], ([i for i, _, _ in entries], [v for _, v, _ in entries])),
            shape=(len(rows), size),
        )
        done = milp(
            [objective.get(variable, 0.0) for variable in range(size)],
            constraints=LinearConstraint(matrix.tocsr(), [least for _, least, _ in rows], [most for _, _, most in rows]),
            integrality=self._integer,
            bounds=Bounds(0.0, 1.0),
            options={"mip_rel_gap": 0.0, "node_limit": _MOST_NODES},
        )
        if done.x is None:
            if done.status == 2:
                return None
            raise RuntimeError(f"HiGHS stopped without an architecture: {done.message}")
        return Found(self._read(done.x), max(float(done.fun), 0.0), done.status == 0)

    def _read(self, values: Sequence[float]) -> Architecture:
        held = {literal for literal, variable in self.literals.items() if values[variable] > 0.5}
        found: dict[str, Value] = {}
        for choice in self.cost.space:
            if isinstance(choice, Walk):
                at = {
                    layer: state
                    for layer in range(choice.layers)
                    for state in choice.states
                    if (choice.name, (layer, state)) in held
                }
                value: Value = tuple(at[layer] for layer in sorted(at))
            elif isinstance(choice, SomeOf):
                value = tuple(option for option in choice.options if (choice.name, option) in held)
            elif isinstance(choice, Order):
                made = [one for one in choice.arrangements if values[self.orders[choice.name, one]] > 0.5]
                if not made:
                    continue
                (value,) = made
            else:
                assert isinstance(choice, OneOf | Ordinal)
                chosen = [option for option in choice.decodable if (choice.name, option) in held]
                if not chosen:
                    continue
                (value,) = chosen
            if self.cost.space.is_active(choice, found):
                found[choice.name] = value
        return self.cost.space.canonical(found)
