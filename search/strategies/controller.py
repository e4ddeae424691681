"""A recurrent controller: a distribution over the architectures of any space, decision by decision.

B. Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", arXiv 1707.07012, appendix: one LSTM, its
weights uniform in [-0.1, 0.1], a softmax for every decision. What it adds for other spaces is said in `ppo.py`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from search.space import Architecture, Space
from search.strategies.decisions import Decision, Decisions


class Drawn(NamedTuple):
    """An architecture, and the logarithms of its decisions' probabilities when it was drawn."""

    architecture: Architecture
    log_probs: tuple[float, ...]


class Controller(nn.Module):
    """An LSTM over decisions: it reads the last token's embedding and scores the tokens that may be next.

    Letters: B architectures, T decisions of the longest, V tokens of the widest. Double precision, on the CPU.
    """

    def __init__(self, space: Space, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.decisions = Decisions(space)
        size = self.decisions.size
        # on the meta device, because elsewhere the usual initialisation draws from the global generator
        with torch.device("meta"):
            # one more row begins a sequence
            self.embedding = nn.Embedding(size + 1, hidden, dtype=torch.float64)
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True, dtype=torch.float64)
            self.head = nn.Linear(hidden, size, dtype=torch.float64)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.1, 0.1, generator=generator)

    @torch.no_grad()
    def sample(self, generator: torch.Generator, count: int = 1) -> list[Drawn]:
        """Draw architectures, one independent of the other; all take their next decision at once."""
        makers = [self.decisions.make() for _ in range(count)]
        made: list[Architecture | None] = [None] * count
        log_probs: list[list[float]] = [[] for _ in range(count)]
        asked: dict[int, Decision] = {}

        def advance(b: int, index: int | None) -> None:
            try:
                asked[b] = next(makers[b]) if index is None else makers[b].send(index)
            except StopIteration as end:
                made[b] = end.value

        for b in range(count):
            advance(b, None)
        tokens = torch.full((count,), self.decisions.size)
        shape = (1, count, self.lstm.hidden_size)
        state = (self.head.bias.new_zeros(shape), self.head.bias.new_zeros(shape))
        while asked:
            rows, decisions = list(asked), list(asked.values())
            asked.clear()
            hidden, own = self.lstm(self.embedding(tokens[rows])[:, None], tuple(s[:, rows] for s in state))
            for whole, part in zip(state, own, strict=True):
                whole[:, rows] = part
            scores = self._scores(hidden[:, 0], decisions)
            taken = torch.multinomial(scores.exp(), 1, generator=generator)[:, 0]
            tokens[rows] = taken + torch.tensor([decision.first for decision in decisions])
            for b, index, score in zip(rows, taken.tolist(), scores.gather(1, taken[:, None])[:, 0].tolist(), strict=True):
                log_probs[b].append(score)
                advance(b, index)
        return [Drawn(a, tuple(own)) for a, own in zip(made, log_probs, strict=True) if a is not None]

    def _scores(self, hidden: Tensor, decisions: Sequence[Decision]) -> Tensor:
        """The log-probabilities of the tokens of N decisions, -inf where one isn't allowed. [N, hidden] -> [N, V]."""
        offsets = _logarithms([decision.ways for decision in decisions])
        first = torch.tensor([decision.first for decision in decisions])
        rows = (first[:, None] + torch.arange(offsets.shape[1])).clamp(max=self.decisions.size - 1)
        logits: Tensor = self.head(hidden).gather(1, rows) + offsets
        return logits.log_softmax(1)

    def forward(self, architectures: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """The decisions' log-probabilities and entropies, both [B, T], 0 after an architecture's last decision."""
        taken = [self.decisions.of(architecture) for architecture in architectures]
        flat = [(b, t, decision, index) for b, row in enumerate(taken) for t, (decision, index) in enumerate(row)]
        longest = max(map(len, taken))
        tokens = torch.full((len(taken), longest), self.decisions.size)
        log_probs, entropies = (self.head.bias.new_zeros(len(taken), longest) for _ in range(2))
        if not flat:
            return log_probs, entropies
        decisions = [decision for *_, decision, _ in flat]
        b, t, index = (torch.tensor([entry[i] for entry in flat]) for i in (0, 1, 3))
        tokens[b, t] = index + torch.tensor([decision.first for decision in decisions])
        begin = tokens.new_full((len(taken), 1), self.decisions.size)
        hidden, _ = self.lstm(self.embedding(torch.cat([begin, tokens[:, :-1]], 1)))
        scores = self._scores(hidden[b, t], decisions)
        entropy = -(scores.exp() * scores.masked_fill(scores.isneginf(), 0.0)).sum(1)
        own = scores.gather(1, index[:, None])[:, 0]
        return log_probs.index_put((b, t), own), entropies.index_put((b, t), entropy)


def _logarithms(ways: Sequence[Sequence[int]]) -> Tensor:
    """The logarithms of whole numbers of any size, -inf for 0 and beyond a row's end."""
    width = max(map(len, ways))
    rows = [[math.log(n) if n else -math.inf for n in row] + [-math.inf] * (width - len(row)) for row in ways]
    return torch.tensor(rows, dtype=torch.float64)
