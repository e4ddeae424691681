"""The search networks of PC-DARTS and DARTS as their authors' code builds them, and ours, under the same step.

Codes: yuhuixu1993/PC-DARTS at b74702f and quark0/darts at f276dd3, from a checkout that the user has; nothing of them is here.
Theirs were written for CUDA and a torch of 2018: their modules are imported as they are, with `Tensor.cuda` meaning the device
that is asked for.

A step is first order, as in their train_search.py: loss, backward and an Adam step of the logits, then loss, backward and an
SGD step of the weights. Both backwards make the gradients of weights and logits, in their code and here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.engine.errors import UserError
from search.registry import MODELS
from search.supernet import ArchParams, Relax, Softmax, building, record

CLASSES = 10
# the file of both projects that holds the search network
MODULE = "model_search"
# largest relative RMS difference of float32 gradients that is rounding
ROUNDING = 1e-2


class Peer(NamedTuple):
    """A project: its name, the folder of its model_search.py, K, and whether it weights edges."""

    name: str
    folder: str
    partial: int
    edges: bool


PEERS = {"pc_darts": Peer("PC-DARTS", ".", 4, True), "darts": Peer("DARTS", "cnn", 1, False)}


@dataclass
class Variant:
    """A supernet, its logits, and its loss of (images [B, 3, H, W], labels [B]).

    `logits`: the project's tensors in its order (operations of both cells, edges of both), or ours by choice.
    """

    network: nn.Module
    logits: Sequence[Tensor] | Mapping[str, Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        weights = list(self.network.parameters())
        logits = list(self.logits.values() if isinstance(self.logits, Mapping) else self.logits)
        self.sgd = torch.optim.SGD(weights, lr=0.025, momentum=0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam(logits, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
        self.own = [*weights, *self.network.buffers(), *logits]

    @property
    def parameters(self) -> int:
        """How many weights there are, logits not counted."""
        return sum(p.numel() for p in self.network.parameters())

    def step(self, images: Tensor, labels: Tensor) -> None:
        """A step of the logits, then one of the weights."""
        for optimiser in (self.adam, self.sgd):
            optimiser.zero_grad()
            self.loss(images, labels).backward()
            optimiser.step()

    def phase(self, images: Tensor, labels: Tensor) -> Tensor:
        """A loss and its backward, every gradient made anew."""
        self.forget_gradients()
        loss = self.loss(images, labels)
        loss.backward()
        return loss

    def forget_gradients(self) -> None:
        """Free them."""
        self.sgd.zero_grad()
        self.adam.zero_grad()


def their_variant(peer: Peer, folder: str, channels: int, layers: int, device: torch.device) -> Variant:
    """The project's network, as its model_search.py builds it. Raises UserError for a folder without that file."""
    places = (Path(folder), Path(folder) / peer.folder)
    place = next((place for place in places if (place / f"{MODULE}.py").is_file()), None)
    if place is None:
        raise UserError(f"{folder} holds no {MODULE}.py of {peer.name}: give the folder of a checkout")
    # its modules are known by their names only here: both projects have the same
    names = {file.stem for file in place.glob("*.py")}
    others = {name: module for name, module in sys.modules.items() if name not in names}
    with (
        mock.patch.dict(sys.modules, others, clear=True),
        mock.patch.object(sys, "path", [str(place), *sys.path]),
        mock.patch.object(Tensor, "cuda", lambda self: self.to(device)),
    ):
        module = importlib.import_module(MODULE)
        network = module.Network(channels, CLASSES, layers, nn.CrossEntropyLoss())
    return Variant(network.to(device).train(), network.arch_parameters(), network._loss)


def our_variant(peer: Peer, channels: int, layers: int, plan: str, memory: str, device: torch.device) -> Variant:
    """Our `CellNet` (backbones must be imported) with the same head."""
    options = dict(channels=channels, layers=layers, affine=False, partial=peer.partial, plan=plan, memory=memory)

    def build() -> nn.Module:
        return MODELS.build(dict(type="search.CellNet", **options))

    params = ArchParams(record(build).space, edge_logits=peer.edges).to(device)
    with building(Relax(params)):
        backbone = build()
    network = nn.ModuleList([backbone, nn.Linear(backbone.out_channels[-1], CLASSES)]).to(device).train()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with params.gated(Softmax()):
            (features,) = network[0](images)
        return F.cross_entropy(network[1](F.adaptive_avg_pool2d(features, 1).flatten(1)), labels)

    return Variant(network, params.logits, loss)


def made_equal(ours: Variant, theirs: Variant, images: Tensor, labels: Tensor) -> float:
    """Gives ours the project's weights and logits; the relative RMS difference of all gradients then.

    Raises UserError if it is more than rounding.
    """
    if ours.parameters != theirs.parameters:
        raise UserError(
            f"the project's network has {theirs.parameters} parameters, ours {ours.parameters}: is it another version?"
        )
    with torch.no_grad():
        for own, their in _pairs(ours, theirs, lambda tensor: tensor.detach()):
            own.copy_(their)
    for variant in (ours, theirs):
        variant.phase(images, labels)
    both = [(own.double(), their.double()) for own, their in _pairs(ours, theirs, lambda tensor: tensor.grad)]
    squares = [sum(float(x.square().sum()) for x in xs) for xs in ([a - b for a, b in both], [b for _, b in both])]
    error = (squares[0] / squares[1]) ** 0.5
    if not error <= ROUNDING:
        raise UserError(f"the gradients of the project's network differ from ours by {error:.1e}: is it another version?")
    return error


def _pairs(ours: Variant, theirs: Variant, of: Callable[[Tensor], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """`of` every parameter of ours beside that of the project's, whose modules are made in the same order."""
    yield from zip(map(of, ours.network.parameters()), map(of, theirs.network.parameters()), strict=True)
    for i, tensor in enumerate(theirs.logits):
        cell, of_operations = ("normal", "reduce")[i % 2], i < 2
        own = [logit for name, logit in ours.logits.items() if name.startswith(cell) and ("<-" in name) == of_operations]
        rows = of(tensor).unbind() if of_operations else of(tensor).split([len(logit) for logit in own])
        yield from zip(map(of, own), rows, strict=True)
