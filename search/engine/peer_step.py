"""Search networks of PC-DARTS, DARTS and an Auto-DeepLab as their projects' code builds them, and ours, in the same step.

Codes: yuhuixu1993/PC-DARTS at b74702f, quark0/darts at f276dd3 and NoamRosenberg/autodeeplab (the search network that users of
Auto-DeepLab have), from a checkout that the user has; nothing of them is here. They were written for CUDA and a torch of 2018:
their modules are imported as they are, with `Tensor.cuda` meaning the device that is asked for. The third takes in-place norms
from a CUDA extension, but on Windows batch norm and ReLU, which it is made to take here: it is told that this is Windows.

A step is first order, as in their train_search.py: loss, backward and an Adam step of the logits, then loss, backward and an
SGD step of the weights. Both backwards make the gradients of weights and logits, in their code and here.
"""

from __future__ import annotations

import importlib
import platform
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
# largest relative RMS difference of float32 gradients that is rounding
ROUNDING = 1e-2


class Peer(NamedTuple):
    """A project: its name, folder and file of its search network, K, whether it weights edges, and whether it segments."""

    name: str
    folder: str
    module: str
    partial: int
    edges: bool
    segments: bool = False


PEERS = {
    "pc_darts": Peer("PC-DARTS", ".", "model_search", 4, True),
    "darts": Peer("DARTS", "cnn", "model_search", 1, False),
    "auto_deeplab": Peer("Auto-DeepLab", ".", "auto_deeplab", 1, False, segments=True),
}


@dataclass
class Variant:
    """A supernet, its logits, and its loss of (images [B, 3, H, W], labels [B]).

    `logits`: the project's tensors in its order (operations of both cells, edges of both), or ours by choice.
    """

    network: nn.Module
    logits: Sequence[Tensor] | Mapping[str, Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        logits = list(self.logits.values() if isinstance(self.logits, Mapping) else self.logits)
        # one project's logits are parameters of its network
        weights = [p for p in self.network.parameters() if all(p is not logit for logit in logits)]
        self.weights = weights
        self.sgd = torch.optim.SGD(weights, lr=0.025, momentum=0.9, weight_decay=3e-4)
        self.adam = torch.optim.Adam(logits, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
        self.own = [*weights, *self.network.buffers(), *logits]

    @property
    def parameters(self) -> int:
        """How many weights there are, logits not counted."""
        return sum(p.numel() for p in self.weights)

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
    """The project's network, as its own file builds it. Raises UserError for a folder without that file."""
    places = (Path(folder), Path(folder) / peer.folder)
    place = next((place for place in places if (place / f"{peer.module}.py").is_file()), None)
    if place is None:
        raise UserError(f"{folder} holds no {peer.module}.py of {peer.name}: give the folder of a checkout")
    # its modules are known by their names only here: both projects have the same
    names = {path.stem for path in place.iterdir()}
    others = {name: module for name, module in sys.modules.items() if name.partition(".")[0] not in names}
    to_device = mock.patch.object(Tensor, "cuda", lambda self: self.to(device))
    with (
        mock.patch.dict(sys.modules, others, clear=True),
        mock.patch.object(sys, "path", [str(place), *sys.path]),
        mock.patch.object(platform, "system", (lambda: "Windows") if peer.segments else platform.system),
        to_device,
    ):
        module = importlib.import_module(peer.module)
        criterion = nn.CrossEntropyLoss()
        if peer.segments:
            network = module.AutoDeeplab(CLASSES, layers, criterion, filter_multiplier=channels)
        else:
            network = module.Network(channels, CLASSES, layers, criterion)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with to_device:
            return network._loss(images, _painted(images, labels) if peer.segments else labels)

    return Variant(network.to(device).train(), network.arch_parameters(), loss)


def _painted(images: Tensor, labels: Tensor) -> Tensor:
    """A label for each pixel, that of its image: [B, H, W]."""
    return labels[:, None, None].expand(-1, *images.shape[2:])


def our_variant(peer: Peer, channels: int, layers: int, partial: int, plan: str, memory: str, device: torch.device) -> Variant:
    """Our `CellNet` with the same head, or our `AutoDeepLab` with the paper's (heads must be imported)."""
    options = dict(layers=layers, affine=False, partial=partial, plan=plan, memory=memory)
    if peer.segments:
        options |= dict(type="search.AutoDeepLab", filters=channels, atrous="depthwise")
    else:
        options |= dict(type="search.CellNet", channels=channels)

    def build() -> nn.Module:
        return MODELS.build(options)

    params = ArchParams(record(build).space, edge_logits=peer.edges).to(device)
    with building(Relax(params)):
        backbone = build()
    if peer.segments:
        settings = dict(
            in_channels=list(backbone.out_channels),
            strides=list(backbone.out_strides),
            num_classes=CLASSES,
            norm_cfg=dict(type="BN"),
            align_corners=True,
            # as mmseg's default, whatever scope is the default
            loss_decode=dict(type="mmseg.CrossEntropyLoss"),
        )
        head = MODELS.build(dict(type="search.AutoDeepLabSearchHead", **settings))
    else:
        head = nn.Linear(backbone.out_channels[-1], CLASSES)
    network = nn.ModuleList([backbone, head]).to(device).train()

    def segmentation_loss(images: Tensor, labels: Tensor) -> Tensor:
        with params.gated(Softmax()):
            logits = head(backbone(images))
        logits = F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=True)
        return F.cross_entropy(logits, _painted(images, labels))

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with params.gated(Softmax()):
            (features,) = network[0](images)
        return F.cross_entropy(network[1](F.adaptive_avg_pool2d(features, 1).flatten(1)), labels)

    return Variant(network, params.logits, segmentation_loss if peer.segments else loss)


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
