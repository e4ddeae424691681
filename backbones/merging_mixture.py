"""NAS-FPN relaxed: every merging cell a mixture over its inputs, its level and its operation.

What is weighed, per cell c with n earlier features: the first input a, p(a); the second given the first, p(b | a), so that the
ordered pair has a joint distribution P(a, b) with nothing on the diagonal; the operation; the level, of the outputs through one
distribution over all orders, of which each output reads its marginal. How the joint of all these is relaxed:

- Within a cell exactly: what is convolved at level t is the expectation of the merged map over pair, operation and the inputs'
  levels, drawn independently. An attention is linear in the other input and in its gate, so the expectation needs one
  coefficient [B, C] for each feature at each of its levels, not a term for each pair. Which input attends follows from levels.
- Between the cell and what reads it as in DARTS (arXiv 1806.09055, eq. 2): the cell is run at each of its levels, and features
  of different levels are weighed where they are read. ReLU, convolution and norm see the mixture, not its members.
- Levels of different outputs are read as if they were independent; where gates are one-hot that is no approximation.
- A feature that nobody took joins the output of its level with the probability that nobody did.

It is no `MixedDag`, whose edges are operations of their own: what is mixed here are the inputs of one convolution, by one
matrix product for all maps of a level, so there are no plans of execution to choose from.

Letters: N features before a cell, I (feature, level) pairs that run, L levels; B batch, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from backbones.merging_cell import Attention, Size, resample
from search.space import Order
from search.supernet.mixed import Gate, Gates

Part = tuple[int, int]


@dataclass(frozen=True)
class CellChoices:
    """The names of a cell's choices: first input, second input by the first, operation, level (None: of the order)."""

    first: str
    seconds: tuple[str, ...]
    op: str
    level: str | None


@dataclass
class _Cell:
    """A cell's weights: of pairs [N, N], of operations and levels; and the pairs that are active."""

    pairs: Tensor
    active: tuple[Part, ...]
    ops: dict[str, Tensor]
    levels: dict[int, Tensor]

    @cached_property
    def shares(self) -> Tensor:
        """[N]: how often each feature is an input, 1 in expectation where it surely is."""
        return self.pairs.sum(0) + self.pairs.sum(1)

    @property
    def surely(self) -> set[int]:
        """Features that are inputs whatever is drawn."""
        return set.intersection(*(set(pair) for pair in self.active))


@dataclass
class _Sum:
    """What a cell sums at `targets`, levels: features at levels, each one's own weights, and what gates weigh.

    `plain`: [targets, I]; `led`: [I, I], how much of part j each part i leads, None without attention.
    """

    targets: tuple[int, ...]
    parts: list[Part]
    plain: Tensor
    led: Tensor | None


class Mixture:
    """The weights of a forward, read from the gates once and used by all repeats of the pyramid.

    `ops`: the names of the operations; `order`: of the levels that the outputs make; `like`: a map, for type and device.
    """

    def __init__(
        self,
        gates: Gates,
        cells: Sequence[CellChoices],
        ops: Sequence[str],
        order: Order,
        attention: Attention,
        like: Tensor,
    ) -> None:
        self.levels, self.attention, self.like = tuple(int(level) for level in order.items), attention, like
        self.outputs = range(len(cells), len(cells) + len(self.levels))
        outputs = self._orders(order, gates[order.name])
        self.cells = []
        for number, names in enumerate(cells, len(self.levels)):
            pairs, active = self._pairs(number, gates, names)
            levels = outputs[number - len(cells)] if names.level is None else self._named(self.levels, gates[names.level])
            self.cells.append(_Cell(pairs, active, self._named(ops, gates[names.op]), levels))
        one = like.new_ones(())
        # of every feature the levels that it may have
        self.of_feature = [{level: one} for level in self.levels] + [cell.levels for cell in self.cells]
        self.sums = self._sums()

    def _weights(self, gate: Gate, n: int) -> tuple[Tensor, tuple[int, ...]]:
        values, active = gate
        mask = self.like.new_zeros(n)
        mask[list(active)] = 1.0
        return mask if values is None else values.to(self.like) * mask, active

    def _named(self, options: Sequence, gate: Gate) -> dict:
        weights, active = self._weights(gate, len(options))
        return {options[i]: weights[i] for i in active}

    def _pairs(self, number: int, gates: Gates, names: CellChoices) -> tuple[Tensor, tuple[Part, ...]]:
        firsts, active = self._weights(gates[names.first], number)
        rows, pairs = [self.like.new_zeros(number)] * number, []
        for a in active:
            others = [b for b in range(number) if b != a]
            seconds, running = self._weights(gates[names.seconds[a]], number - 1)
            rows[a] = torch.cat((seconds[:a], self.like.new_zeros(1), seconds[a:])) * firsts[a]
            pairs += [(a, others[i]) for i in running]
        return torch.stack(rows), tuple(pairs)

    def _orders(self, order: Order, gate: Gate) -> list[dict[int, Tensor]]:
        """Of each output the levels that an active order gives it, with the sums of those orders' weights."""
        weights, active = self._weights(gate, order.count)
        found = []
        for place in range(len(order.items)):
            makers: dict[int, list[int]] = {}
            for i in active:
                makers.setdefault(int(order.arrangements[i][place]), []).append(i)
            found.append({level: weights[makers[level]].sum() for level in self.levels if level in makers})
        return found

    def _sums(self) -> list[_Sum | None]:
        """What each cell sums at the levels where its feature is needed, from the outputs backwards; None where it isn't."""
        needed: list[set[int]] = [set() for _ in self.of_feature]
        for number in self.outputs:
            needed[number] = set(self.of_feature[number])
        sums: list[_Sum | None] = []
        for number in reversed(range(len(self.levels), len(self.of_feature))):
            if not needed[number]:
                sums.insert(0, None)
                continue
            targets = tuple(sorted(needed[number]))
            sums.insert(0, self._sum(number, targets))
            for j, level in sums[0].parts:
                needed[j].add(level)
        return sums

    def _sum(self, number: int, targets: tuple[int, ...]) -> _Sum:
        cell = self.cells[number - len(self.levels)]
        read = sorted({j for pair in cell.active for j in pair})
        parts = [(j, level) for j in read for level in self.of_feature[j]]
        added = {} if number not in self.outputs else {t: self._added(number, t) for t in targets}
        parts += [part for weights in added.values() for part in weights if part not in parts]
        p = torch.stack([self.of_feature[j][level] for j, level in parts])
        at = [j for j, _ in parts]
        plain = cell.ops["sum"] * cell.shares[at] * p if "sum" in cell.ops else torch.zeros_like(p)
        led = None
        if "attention" in cell.ops:
            # leads[i, j]: part i attends part j, as the first input or as the second
            first = [[float(self.attention.leads(one, two)) for _, two in parts] for _, one in parts]
            pairs, leads = cell.pairs[at][:, at], self.like.new_tensor(first)
            led = cell.ops["attention"] * p[:, None] * p * (pairs * leads + pairs.t() * (1 - leads.t()))
            plain = plain + led.sum(1)
        rows = []
        for target in targets:
            zero = self.like.new_zeros(())
            rows.append(plain + torch.stack([added.get(target, {}).get(part, zero) for part in parts]))
        return _Sum(targets, parts, torch.stack(rows), led)

    def _added(self, number: int, level: int) -> dict[Part, Tensor]:
        """Features of a level that an output of it may be added to, with the probability that they are."""
        found = {}
        for j in range(self.outputs.start):
            takers = self.cells[max(j + 1 - len(self.levels), 0) : number + 1 - len(self.levels)]
            if level in self.of_feature[j] and not any(j in cell.surely for cell in takers):
                left = torch.stack([1 - cell.shares[j] for cell in takers]).clamp(min=0).prod()
                found[j, level] = self.of_feature[j][level] * left
        return found

    def run(
        self, cells: Sequence[Callable[[Tensor, int], Tensor]], inputs: Mapping[int, Tensor], sizes: Mapping[int, Size]
    ) -> dict[int, Tensor]:
        """A pyramid's maps by level, each [B, C, H, W] -> those of the outputs; only what these need is run."""
        once = _Once(self.attention, sizes, {(j, level): x for j, (level, x) in enumerate(inputs.items())})
        for number, (cell, summed) in enumerate(zip(cells, self.sums, strict=True), len(self.levels)):
            if summed is not None:
                for level, merged in once.merged(summed).items():
                    once.features[number, level] = cell(merged, level)
        made = {}
        for level in inputs:
            makers = [number for number in self.outputs if level in self.of_feature[number]]
            assert makers, f"no output makes level {level}"
            terms = [self.of_feature[number][level] * once.features[number, level] for number in makers]
            made[level] = torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]
        return made


@dataclass
class _Once:
    """One pass through a pyramid, with what several cells read of it."""

    attention: Attention
    sizes: Mapping[int, Size]
    features: dict[Part, Tensor]
    pooled: dict[tuple[Part, int], Tensor] = field(default_factory=dict)
    gates: dict[tuple[Part, int], Tensor] = field(default_factory=dict)

    def _at(self, part: Part, target: int) -> Tensor:
        """A feature at its own or a coarser level."""
        if (part, target) not in self.pooled:
            self.pooled[part, target] = resample(self.features[part], part[1], target, self.sizes[target])
        return self.pooled[part, target]

    def _gate(self, part: Part, target: int) -> Tensor:
        """[B, C]. Neither kind of resampling changes a maximum."""
        key = (part, target if self.attention.average else part[1])
        if key not in self.gates:
            x = self.features[part]
            if self.attention.average:
                x = resample(x, part[1], target, self.sizes[target])
            self.gates[key] = self.attention.gate(x).flatten(1)
        return self.gates[key]

    def _weights(self, summed: _Sum) -> list[Tensor]:
        """Of each target, [I], or [B, C, I] where gates weigh: every lead's gate weighs the other parts' channels."""
        rows = list(summed.plain.unbind())
        if summed.led is None:
            return rows
        weighed: list[Tensor] = []
        for row, target in zip(rows, summed.targets, strict=True):
            if self.attention.average or not weighed:
                gates = torch.stack([self._gate(part, target) for part in summed.parts], dim=2)
                led = torch.matmul(gates.to(summed.led), summed.led)
            weighed.append(led + row)
        return weighed

    def merged(self, summed: _Sum) -> dict[int, Tensor]:
        """By target, [B, C, H, W].

        Finer maps are pooled one by one; those of a coarser level are summed first and then enlarged, which is linear. So each
        level has one product of a stack of maps with the weights for all targets.
        """
        weights = self._weights(summed)
        totals: dict[int, list[Tensor]] = {target: [] for target in summed.targets}
        for at in sorted(self.sizes):
            rows = [i for i, target in enumerate(summed.targets) if target <= at]
            finest = min(self.sizes) if at in summed.targets else at
            members = [i for i, (_, level) in enumerate(summed.parts) if finest <= level <= at]
            if not rows or not members:
                continue
            stack = torch.stack([self._at(summed.parts[i], at) for i in members], dim=2).flatten(3)
            # pooled maps are for this level alone
            own = [[float(summed.parts[i][1] == at or summed.targets[r] == at) for i in members] for r in rows]
            chosen = torch.stack([weights[r][..., members] for r in rows], dim=-2) * summed.plain.new_tensor(own)
            with torch.autocast(stack.device.type, enabled=False):
                # half types in float32: the matrix product would round the weights
                exact = torch.promote_types(stack.dtype, torch.float32)
                sums = torch.matmul(chosen.to(exact), stack.to(exact)).to(stack.dtype)
            for r, total in zip(rows, sums.unflatten(3, self.sizes[at]).unbind(2), strict=True):
                target = summed.targets[r]
                totals[target].append(resample(total, at, target, self.sizes[target]))
        return {target: terms[0] if len(terms) == 1 else torch.stack(terms).sum(0) for target, terms in totals.items()}
