"""A recurrent controller that emits an architecture decision by decision and learns from scores by PPO.

Papers: G. Ghiasi, T.-Y. Lin, Q. V. Le, "NAS-FPN", arXiv 1904.07392, which searches with it; the controller is that of B.
Zoph et al., "Learning Transferable Architectures", arXiv 1707.07012; J. Schulman et al., "Proximal Policy Optimization
Algorithms", arXiv 1707.06347, equation 7 (clipped objective) and 9 (entropy bonus). None of them published the code.

Of the second paper: one LSTM of 100 units, weights uniform in [-0.1, 0.1], Adam with learning rate 3.5e-4, entropy weight
1e-5, an exponential moving average of rewards (0.95) as baseline, 20 architectures an update. NAS-FPN says none of these.
Ours, as no source gives them: ``clip`` 0.2 and ``epochs`` 4 passes over the 20, both usual for PPO. A learning rate of 3.5e-4
is for thousands of architectures; a few hundred need more.

What is done differently, and why:
- Any space: see `Decisions`. Logits are added to the logarithm of the number of values that go on with a token. So what isn't
  allowed, dead ends of a walk included, has probability 0, and an untrained controller draws the values of a choice evenly.
- The advantage (score minus baseline) is divided by the update's standard deviation, because scores have any unit. The
  baseline starts with the first update's mean, and takes up an update's scores after it was used.
- No architecture is asked for twice: trainings of one seed would only repeat a score. A known one is drawn again, and isn't
  learned from again: where it was, on NAS-Bench-Macro, hardly any but known ones were drawn after a hundred scores. After
  ``TRIES`` more known ones in a row one is drawn uniformly from the others, and isn't learned from.
- A score of nan (a training that diverged or failed) isn't learned from.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from search.space import Architecture, Space
from search.strategies.controller import Controller, Drawn
from search.strategies.random_search import RandomSearch
from search.strategies.sampling import SamplingStrategy
from search.strategies.told import Told

TRIES = 100


class PPO(Told):
    """Ask for architectures, tell their scores (higher is better), keep the best.

    What is asked for depends on (space, seed) and on the scores told before; the controller learns whenever ``batch`` scores
    were told. ValueError for a setting out of its range.
    """

    NAME = "controller"

    def __init__(
        self,
        space: Space,
        seed: int,
        *,
        hidden: int = 100,
        lr: float = 3.5e-4,
        batch: int = 20,
        epochs: int = 4,
        clip: float = 0.2,
        entropy: float = 1e-5,
        decay: float = 0.95,
    ) -> None:
        super().__init__(space)
        self.settings = {"hidden": hidden, "lr": lr, "batch": batch, "epochs": epochs}
        self.settings |= {"clip": clip, "entropy": entropy, "decay": decay}
        _check(self.settings)
        self.hidden, self.lr, self.batch, self.epochs = hidden, lr, batch, epochs
        self.clip, self.entropy, self.decay = clip, entropy, decay
        self._restart(seed)

    def _restart(self, seed: int) -> None:
        self.seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self.controller = Controller(self.space, self.hidden, self._generator)
        self._optimizer = torch.optim.Adam(self.controller.parameters(), lr=self.lr)
        self._baseline: float | None = None
        self._uniform = RandomSearch(self.space, seed)
        # every architecture asked for; the drawn ones without a score yet, and those that the next update learns from
        self._asked: dict[Architecture, None] = {}
        self._open: dict[Architecture, Drawn] = {}
        self._learned: list[tuple[Drawn, float]] = []

    def ask(self) -> Architecture:
        """The next architecture. ``Exhausted`` when all of the space were asked for."""
        if len(self._asked) < self.space.size:
            for count in (1, TRIES):
                for drawn in self.controller.sample(self._generator, count):
                    if drawn.architecture not in self._asked:
                        self._open[drawn.architecture] = drawn
                        self._asked[drawn.architecture] = None
                        return drawn.architecture
        architecture = self._uniform.ask()
        while architecture in self._asked:
            architecture = self._uniform.ask()
        self._asked[architecture] = None
        return architecture

    def tell(self, architecture: Architecture, score: float) -> None:
        """Record a score (higher is better), and learn. ValueError when the architecture isn't one of the space."""
        super().tell(architecture, score)
        drawn = self._open.pop(architecture, None)
        if drawn is None or math.isnan(score):
            return
        self._learned.append((drawn, float(score)))
        if len(self._learned) == self.batch:
            self._update()
            self._learned = []

    def _update(self) -> None:
        """``epochs`` steps on the clipped objective of all that was learned from since the last update."""
        architectures = [drawn.architecture for drawn, _ in self._learned]
        scores = torch.tensor([score for _, score in self._learned], dtype=torch.float64)
        mean = float(scores.mean())
        baseline = mean if self._baseline is None else self._baseline
        advantage = ((scores - baseline) / (scores.std(correction=0) + 1e-8))[:, None]
        with torch.no_grad():
            old = torch.zeros_like(self.controller(architectures)[0])
        for row, (drawn, _) in zip(old, self._learned, strict=True):
            row[: len(drawn.log_probs)] = torch.tensor(drawn.log_probs, dtype=torch.float64)
        for _ in range(self.epochs):
            log_probs, entropies = self.controller(architectures)
            ratio = (log_probs - old).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
            loss = -(gain + self.entropy * entropies).sum(1).mean()
            self._optimizer.zero_grad()
            # a space in which nothing is decided has nothing to learn
            if loss.requires_grad:
                loss.backward()
            self._optimizer.step()
        self._baseline = self.decay * baseline + (1 - self.decay) * mean

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, from which ``load_state_dict`` of a search with the same space and settings goes on."""
        return {
            **super().state_dict(),
            "settings": dict(self.settings),
            "seed": self.seed,
            "generator": self._generator.get_state(),
            "controller": {name: value.clone() for name, value in self.controller.state_dict().items()},
            "optimizer": _copied(self._optimizer.state_dict()),
            "baseline": self._baseline,
            "uniform": self._uniform.state_dict(),
            "asked": [architecture.to_json() for architecture in self._asked],
            "open": [[drawn.architecture.to_json(), list(drawn.log_probs)] for drawn in self._open.values()],
            "learned": [[drawn.architecture.to_json(), list(drawn.log_probs), score] for drawn, score in self._learned],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken. ValueError when it belongs to another space or other settings."""
        super().load_state_dict(state)
        for name, value in self.settings.items():
            if state["settings"][name] != value:
                there = state["settings"][name]
                raise ValueError(f"The controller's state is of {name}={there}, not of {name}={value}: use its settings.")
        self._restart(state["seed"])
        self._generator.set_state(state["generator"])
        self.controller.load_state_dict(state["controller"])
        self._optimizer.load_state_dict(_copied(state["optimizer"]))
        self._baseline = state["baseline"]
        self._uniform.load_state_dict(state["uniform"])
        self._asked = dict.fromkeys(Architecture.from_json(item) for item in state["asked"])
        opened = [Drawn(Architecture.from_json(item), tuple(log_probs)) for item, log_probs in state["open"]]
        self._open = {drawn.architecture: drawn for drawn in opened}
        self._learned = [(Drawn(Architecture.from_json(a), tuple(log_p)), score) for a, log_p, score in state["learned"]]


def _copied(value: Any) -> Any:
    """The same value with copies of its tensors, which the optimiser would go on changing."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _check(settings: Mapping[str, float]) -> None:
    for name, value in settings.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{name}={value!r}: give a number.")
        if name in ("hidden", "batch", "epochs") and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}={value!r}: give a whole number, 1 or more.")
        if name in ("lr", "clip") and not value > 0:
            raise ValueError(f"{name}={value!r}: give a number above 0.")
        if name == "entropy" and not value >= 0:
            raise ValueError(f"entropy={value!r}: give a weight of 0 or more.")
        if name == "decay" and not 0 <= value < 1:
            raise ValueError(f"decay={value!r}: give the share of the old baseline, at least 0 and less than 1.")


def PPOTrials(
    *,
    trials: int,
    hidden: int = 100,
    lr: float = 3.5e-4,
    batch: int = 20,
    epochs: int = 4,
    clip: float = 0.2,
    entropy: float = 1e-5,
    decay: float = 0.95,
    at_once: int | None = None,
) -> SamplingStrategy:
    """PPO as a ``SamplingStrategy``, 'PPO' in configs; a function named like a class, because configs name it as their type.

    ``trials``: how many architectures are trained; ``batch``: from how many at a time the controller learns; ``at_once``: how
    many are asked for before their scores are told (default ``batch``), which is how many may be trained at a time. ValueError
    for a batch that ``trials`` only just fill: nothing would be asked for after the first update.
    """
    sampler = partial(PPO, hidden=hidden, lr=lr, batch=batch, epochs=epochs, clip=clip, entropy=entropy, decay=decay)
    _check(sampler.keywords)
    strategy = SamplingStrategy(
        name="PPO",
        trials=trials,
        sampler=sampler,
        at_once=batch if at_once is None else at_once,
    )
    if batch >= trials:
        raise ValueError(f"batch={batch} with trials={trials} never uses what is learned: give fewer than {trials}.")
    return strategy
