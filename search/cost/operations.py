"""What a searchable network computes, part by part: which parts any architecture is made of, found by tracing.

A network of one architecture is built narrow on the meta device and run there once. Every call of a module is recorded with its
*work*: a digest of the tensor operations below it, with their shapes and settings. Calls of equal work take equal time,
whatever choice, option or cell they belong to. Over several architectures, modules fall in three kinds:

- *fixed*: runs in every architecture and always does the same work (a stem, a classifier);
- *operation*: what the architecture decides: the innermost mixed operations, modules that only some architectures run (a block
  beyond a depth), and the smallest modules whose work differs (a convolution whose width is chosen);
- *split*: contains operations, so it is looked into.

Nothing is asked of the network but to be built by the building context, so every space is treated alike.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from search.cost.count import build_on_meta
from search.space import Architecture, Choice, Space, Token, Value
from search.supernet import Fix, MixedOp, building, record

Build = Callable[[], nn.Module]
# draws after which a value with a wanted token is given up: only a walk can hide one so well
_DRAWS = 1000


@dataclass
class Call:
    """One call of a module: its `path` in the network (with '#2' at its second call), arguments as meta tensors, `work`.

    `choice` and `option` of a mixed operation, else None and the class's name. `calls`: of the modules inside, in order.
    """

    path: str
    option: str
    choice: str | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    work: str = ""
    calls: list[Call] = field(default_factory=list)

    @property
    def place(self) -> str:
        """The choice and its option, or the module's path."""
        return self.path if self.choice is None else f"{self.choice}={self.option}"

    @property
    def shapes(self) -> list[list[int]]:
        """Shapes of the tensors that it is given."""
        return [list(tensor.shape) for tensor in _tensors([self.args, self.kwargs])]

    def is_innermost(self) -> bool:
        """Whether it is a mixed operation without another inside, or a module without modules."""
        return not self.calls or (self.choice is not None and not any(call.holds_mixed() for call in self.calls))

    def holds_mixed(self) -> bool:
        """Whether it or a call inside is a mixed operation."""
        return self.choice is not None or any(call.holds_mixed() for call in self.calls)

    def innermost(self) -> Iterator[Call]:
        """The innermost calls (see `is_innermost`)."""
        if self.is_innermost():
            yield self
        else:
            for call in self.calls:
                yield from call.innermost()


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down operations as text while modules enter and leave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.root = Call("", "", None, (), {})
        self._open: list[tuple[Call, int]] = [(self.root, 0)]
        self._operations: list[str] = []
        self._times: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._operations.append(f"{func} {_written(args)} {_written(kwargs or {})}")
        return func(*args, **(kwargs or {}))

    def enter(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        times = self._times[path] = self._times.get(path, 0) + 1
        name, choice = type(module).__name__, None
        if isinstance(module, MixedOp):
            name, choice = next(iter(module.ops)), module.choice
        call = Call(path if times == 1 else f"{path}#{times}", name, choice, args, kwargs)
        self._open[-1][0].calls.append(call)
        self._open.append((call, len(self._operations)))

    def leave(self, *_: Any) -> None:
        call, start = self._open.pop()
        call.work = hashlib.sha256("\n".join(self._operations[start:]).encode()).hexdigest()[:16]


def trace(model: nn.Module, *inputs: Tensor) -> Call:
    """The call of a model on meta tensors, in eval mode and without gradients.

    Raises ValueError where it can't run on them, such as images of other channels.
    """
    model.eval()
    recorder = _Recorder()
    handles = []
    for path, module in model.named_modules():
        enter = _bound(recorder.enter, path)
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(recorder.leave))
    try:
        with torch.no_grad(), recorder:
            model(*inputs)
    except RuntimeError as error:
        shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
        raise ValueError(f"the network can't run on inputs of {shapes}: {str(error).splitlines()[0]}") from error
    finally:
        for handle in handles:
            handle.remove()
    (call,) = recorder.root.calls
    return call


def _bound(enter: Callable[..., None], path: str) -> Callable[..., None]:
    return lambda module, args, kwargs: enter(path, module, args, kwargs)


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)}{value.dtype}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_written(item)}' for key, item in value.items())}}}"
    return repr(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def narrow(build: Build, architecture: Mapping[str, Any]) -> nn.Module:
    """The network of one architecture. ValueError where it is of another space."""
    with building(Fix(architecture)):
        return build()


def trace_architecture(build: Build, architecture: Mapping[str, Any], input_size: Sequence[int], batch_size: int = 1) -> Call:
    """The call of one architecture's network on images [batch_size, *input_size]. ValueError for one of another space."""
    model = build_on_meta(lambda: narrow(build, architecture))
    return trace(model, torch.empty(batch_size, *input_size, device="meta", dtype=dtype_of(model)))


def dtype_of(model: nn.Module) -> torch.dtype:
    """The number type of a model's first floating-point parameter (torch's default where it has none)."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


@dataclass(frozen=True)
class Division:
    """How a space's networks divide: `fixed` modules with their work, and `split` ones that are looked into."""

    fixed: Mapping[str, str]
    split: frozenset[str]

    @classmethod
    def of(cls, networks: Sequence[Call]) -> Division:
        """The division that tells these networks apart."""
        works: dict[str, set[str]] = {}
        times: dict[str, int] = {}
        for call in _all(networks):
            works.setdefault(call.path, set()).add(call.work)
            times[call.path] = times.get(call.path, 0) + 1
        fixed: dict[str, str] = {}
        split: set[str] = set()

        def divide(call: Call) -> None:
            if len(works[call.path]) == 1 and times[call.path] == len(networks):
                fixed[call.path] = call.work
            elif len(works[call.path]) > 1 and not call.is_innermost():
                split.add(call.path)
                for inner in call.calls:
                    divide(inner)

        for network in networks:
            divide(network)
        return cls(fixed, frozenset(split))

    def operations(self, network: Call) -> list[Call]:
        """The operations of a network, in the order of their calls.

        Raises ValueError where a fixed module does other work than it did, or isn't there.
        """
        met: set[str] = set()

        def found(call: Call) -> Iterator[Call]:
            if call.path in self.fixed:
                if call.work != self.fixed[call.path]:
                    raise ValueError(f"its {_named(call.path)} does other work (other sizes or settings)")
                met.add(call.path)
            elif call.path in self.split and not call.is_innermost():
                for inner in call.calls:
                    yield from found(inner)
            else:
                yield call

        operations = list(found(network))
        if missing := sorted(set(self.fixed) - met):
            raise ValueError(f"it has no {_named(missing[0])}")
        return operations


def _named(path: str) -> str:
    return f"module {path!r}" if path else "network as a whole"


def _all(calls: Iterable[Call]) -> Iterator[Call]:
    for call in calls:
        yield call
        yield from _all(call.calls)


@dataclass(frozen=True)
class Survey:
    """The spaces of a network's searchable modules, by part, and traced architectures that hold every option."""

    spaces: Mapping[str, Space]
    networks: Mapping[Architecture, Call]

    @property
    def division(self) -> Division:
        """How these networks divide."""
        return Division.of(list(self.networks.values()))


def survey(
    build: Build, input_size: Sequence[int], *, batch_size: int = 1, seed: int = 0, quiet: int = 10, most: int = 400
) -> Survey:
    """Trace random architectures until `quiet` in a row show no new work, then ones that hold the options not yet seen.

    There are at most `most` random ones. Raises ValueError for a model without a searchable module.
    """
    recorded = record(build)
    space, rng = recorded.space, random.Random(f"survey {seed}")
    networks: dict[Architecture, Call] = {}
    works: set[str] = set()
    seen: set[tuple[str, Token]] = set()

    def add(architecture: Architecture) -> bool:
        """Trace it; whether anything in it is new."""
        before = len(works)
        if architecture not in networks:
            network = networks[architecture] = trace_architecture(build, architecture, input_size, batch_size)
            works.update(call.work for call in network.innermost())
            seen.update((name, token) for name, value in architecture.items() for token in space[name].tokens(value))
        return len(works) > before

    silent = 0
    while silent < quiet and len(networks) < most:
        silent = 0 if add(space.sample(rng)) else silent + 1
    for choice in space:
        for token in _tokens(choice):
            if (choice.name, token) not in seen:
                add(_containing(space, choice.name, token, rng))
    return Survey(recorded.parts, networks)


def _tokens(choice: Choice) -> list[Token]:
    """Every token that a value of the choice can have."""
    found: dict[Token, None] = {}
    reached: dict[Any, None] = {None: None}
    for step in range(choice.length):
        following = [pair for local in reached for pair in choice.follow(step, local)]
        found.update((token, None) for token, _ in following if token is not None and choice.step_of(token) is not None)
        reached = {local: None for _, local in following}
    return list(found)


def _containing(space: Space, name: str, token: Token, rng: random.Random) -> Architecture:
    """An architecture with this token; what the choice depends on is chosen so, all else at random."""
    wanted = {name: token}
    for choice in reversed(list(space)):
        if choice.name in wanted and choice.when:
            parent, needed = rng.choice(choice.when)
            wanted.setdefault(parent, needed)
    found: dict[str, Value] = {}
    for choice in space:
        if space.is_active(choice, found):
            found[choice.name] = _value(choice, wanted.get(choice.name), rng)
    return Architecture(found)


def _value(choice: Choice, token: Token | None, rng: random.Random) -> Value:
    value = choice.at(rng.randrange(choice.count))
    for _ in range(_DRAWS if token is not None else 0):
        if token in choice.tokens(value):
            break
        value = choice.at(rng.randrange(choice.count))
    return value
