"""Counting and numbering: a one-to-one map from 0 ... size-1 to the assignments of a group of choices.

Nothing is listed. The group's choices are read in order, step by step; what has to be remembered between
steps is which later choices are already active. Two facts keep that small:
- A choice whose whole subtree depends on nothing else (a *unit*) is numbered on its own: it multiplies the
  ways by its size at the step that first activates it, and is remembered only while a later step could do
  so again.
- Groups that share no `when` multiply (`groups`).
So 10^18 cells, or paths of many layers, are counted at once. The table grows only where many choices, each
with several parents, are open at the same time.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from search.space.choice import Choice, Token, Value


def groups(choices: Sequence[Choice]) -> list[list[Choice]]:
    """The choices split into groups with no `when` between groups, each in the given order."""
    group_of: dict[str, int] = {}
    for i, choice in enumerate(choices):
        merged = {group_of[parent] for parent, _ in choice.when}
        group_of[choice.name] = i
        group_of.update({name: i for name, group in group_of.items() if group in merged})
    found: dict[int, list[Choice]] = {}
    for choice in choices:
        found.setdefault(group_of[choice.name], []).append(choice)
    return list(found.values())


class _State(NamedTuple):
    local: Hashable  # inside the choice being read: its own state, or _PASSED when it is inactive
    remembered: frozenset[str]  # later choices already active, units already counted that may be met again


@dataclass(frozen=True)
class _Arc:
    token: Token | None
    units: tuple[str, ...]  # units that become active here
    ways: int  # the product of their sizes, or the number of values of a choice read whole
    after: _State
    active: bool = True  # False where an inactive choice is passed by


_PASSED: Hashable = object()
_START = _State(None, frozenset())


class Ranking:
    """Numbers the assignments of `choices` (parents first); `root`, or every choice without `when`, is on."""

    def __init__(self, choices: Sequence[Choice], root: str | None = None) -> None:
        self._choices = {choice.name: choice for choice in choices}
        self._always = {root} if root else {choice.name for choice in choices if not choice.when}
        self._units = {name: Ranking(members, root=name) for name, members in self._closed().items()}
        inside = {name for unit in self._units.values() for name in unit._choices}
        self._read = [choice for choice in choices if choice.name not in inside]
        self._fires = self._triggers()
        self._parents = {parent for parent, _ in self._fires}
        self._levels = [(c, step) for c in self._read for step in range(self._steps(c))]
        self._last_fired = self._last_levels()
        self._arcs, self._ways = self._tables()
        self.size = self._ways[0][_START]

    def _closed(self) -> dict[str, list[Choice]]:
        """The largest subtrees, by their top, that depend on their top alone."""
        below: dict[str, list[str]] = {name: [name] for name in self._choices}
        for choice in self._choices.values():
            for name in below:
                if choice.name != name and any(parent in below[name] for parent, _ in choice.when):
                    below[name].append(choice.name)
        closed: dict[str, list[Choice]] = {}
        taken: set[str] = set()
        for name, members in below.items():
            if name in self._always or name in taken:
                continue
            if all(parent in members for m in members[1:] for parent, _ in self._choices[m].when):
                closed[name] = [self._choices[m] for m in members]
                taken.update(members)
        return closed

    def _triggers(self) -> dict[tuple[str, Token], list[str]]:
        """Who is activated by each (choice, token)."""
        fires: dict[tuple[str, Token], list[str]] = {}
        for name in [*self._units, *(choice.name for choice in self._read)]:
            if name not in self._always:
                for pair in dict.fromkeys(self._choices[name].when):
                    fires.setdefault(pair, []).append(name)
        return fires

    def _steps(self, choice: Choice) -> int:
        """A choice that activates nothing here is read whole, in one step."""
        return choice.length if choice.name in self._parents else 1

    def _last_levels(self) -> dict[str, int]:
        """The last level that can activate each unit."""
        first = {choice.name: level for level, (choice, step) in enumerate(self._levels) if step == 0}
        last: dict[str, int] = {}
        for (parent, token), names in self._fires.items():
            step = self._choices[parent].step_of(token)
            assert step is not None, (parent, token)
            for name in names:
                last[name] = max(last.get(name, -1), first[parent] + step)
        return last

    def _tables(self) -> tuple[list[dict[_State, list[_Arc]]], list[dict[_State, int]]]:
        """For each level and each state met there: what may follow, and the number of ways to finish."""
        arcs: list[dict[_State, list[_Arc]]] = []
        met: set[_State] = {_START}
        for level in range(len(self._levels)):
            arcs.append({state: list(self._follow(level, state)) for state in met})
            met = {arc.after for row in arcs[-1].values() for arc in row}
        ways = [dict.fromkeys(met, 1)]
        for row in reversed(arcs):
            ways.append({s: sum(arc.ways * ways[-1][arc.after] for arc in found) for s, found in row.items()})
        return arcs, ways[::-1]

    def _follow(self, level: int, state: _State) -> Iterator[_Arc]:
        choice, step = self._levels[level]
        last_step = step == self._steps(choice) - 1
        known = state.remembered
        if state.local is _PASSED or (step == 0 and choice.name not in known and choice.name not in self._always):
            yield _Arc(None, (), 1, _State(None if last_step else _PASSED, known), active=False)
        elif choice.name not in self._parents:
            yield _Arc(None, (), choice.count, _State(None, known - {choice.name}))
        else:
            for token, local in choice.follow(step, state.local):
                fired = self._fires.get((choice.name, token), []) if token is not None else []
                units = tuple(name for name in fired if name in self._units and name not in known)
                later = frozenset(
                    name
                    for name in (known - {choice.name}).union(fired)
                    if name not in self._units or self._last_fired[name] > level
                )
                size = math.prod(self._units[name].size for name in units)
                yield _Arc(token, units, size, _State(None if last_step else local, later))

    def at(self, index: int) -> dict[str, Value]:
        """The assignment numbered `index`, 0 <= index < size; inactive choices are absent."""
        assert 0 <= index < self.size, (index, self.size)
        found: dict[str, Value] = {}
        tokens: list[Token | None] = []
        state = _START
        for level, (choice, step) in enumerate(self._levels):
            for arc in self._arcs[level][state]:
                ways = arc.ways * self._ways[level + 1][arc.after]
                if index < ways:
                    break
                index -= ways
            part, index = divmod(index, self._ways[level + 1][arc.after])
            for name in arc.units:
                part, number = divmod(part, self._units[name].size)
                found.update(self._units[name].at(number))
            tokens = [arc.token] if step == 0 else [*tokens, arc.token]
            if arc.active and step == self._steps(choice) - 1:
                whole = choice.name not in self._parents
                found[choice.name] = choice.at(part) if whole else choice.build(tokens)
            state = arc.after
        return found
