"""Every published network computes what its specification says: compared with a plain reference, operation by operation.

Counts are blind to wiring: which node feeds which, dilation, activations, kinds of pooling change neither parameters nor
multiply-adds. The references are written from papers and official code, not from this repository's readers.
"""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from backbones import published
from backbones.spec import SCHEMAS, NotBuildable
from search.cost.count import build_on_meta
from search.registry import MODELS
from tests.backbones import few_of_a_schema
from tests.backbones.references import (
    auto_deeplab,
    cells,
    dense,
    mobile,
    randwire,
    retinanet,
    searched,
    shuffle,
    slim,
    spinenet,
)
from tests.backbones.wiring import Graph, record

REFERENCES = {
    "atomnas": searched.atomnas,
    "auto_deeplab": auto_deeplab.auto_deeplab,
    "autonl": searched.autonl,
    "autoslim_mnasnet": slim.autoslim_mnasnet,
    "autoslim_mobilenet_v1": slim.autoslim_mobilenet_v1,
    "autoslim_mobilenet_v2": slim.autoslim_mobilenet_v2,
    "autoslim_resnet": slim.autoslim_resnet,
    "darts_cell": cells.darts_cell,
    "darts_cell_edges": cells.darts_cell_edges,
    "deeplabv3_sep": dense.deeplabv3_sep,
    "densenas": searched.densenas,
    "dpc": dense.dpc,
    "enas_macro": cells.enas_macro,
    "enas_micro": cells.enas_micro,
    "fairnas": searched.fairnas,
    "fbnet": searched.fbnet,
    "hanlab": searched.hanlab,
    "mbconv": mobile.mbconv,
    "mbv2_ops": dense.mbv2_ops,
    "mobilenet_v1": mobile.mobilenet_v1,
    "mobilenet_v3": mobile.mobilenet_v3,
    "nas_fcos": retinanet.nas_fcos,
    "nas_fpn": retinanet.nas_fpn,
    "nsga_macro": cells.nsga_macro,
    "nsga_micro": cells.nsga_micro,
    "randwire": randwire.randwire,
    "resnet50_v1.5": slim.resnet50,
    "retinanet_fpn": retinanet.retinanet_fpn,
    "shufflenet_oneshot": shuffle.shufflenet_oneshot,
    "shufflenet_v1": shuffle.shufflenet_v1,
    "shufflenet_v2": shuffle.shufflenet_v2,
    "slim_cell": cells.slim_cell,
    "spinenet": spinenet.spinenet,
    "squeezenas": dense.squeezenas,
}
# what the architecture needs: SpineNet a map at stride 128, pyramids there more than a pixel, a decoder of SqueezeNAS one of 49
# pixels at stride 16, Auto-DeepLab's official code 32n + 1
SIZES = {"spinenet": 128, "nas_fcos": 128, "nas_fpn": 256, "retinanet_fpn": 256, "squeezenas": 800, "auto_deeplab": 65}


def architectures():
    """One row of each distinct architecture that has a reference."""
    seen = set()
    for row in published.rows():
        spec = row["spec"]
        if spec is None or spec["schema"] not in REFERENCES:
            continue
        # of those whose specification is in words only the names differ
        key = (json.dumps(spec, sort_keys=True), row["family"], row["name"] if "ref" in spec else "")
        if key not in seen:
            seen.add(key)
            yield row


def built(row) -> tuple[nn.Module, torch.Tensor]:
    """What is compared of a row's network, on meta and in eval mode, with an input as small as the architecture allows.

    Of a classifier that is all, of a detector its backbone and a neck of ours, of a segmentor all but the logits' last resize.
    """
    config = published.config_of(row)
    neck = None
    if config["type"].startswith("mmdet."):
        neck = config["neck"] if (config["neck"] or {}).get("type", "").startswith("search.") else None
        config = config["backbone"]
    if config["type"].startswith("mmseg."):
        pytest.importorskip("mmseg", reason="the rest of a segmentor is of mmsegmentation's parts")
    network = build_on_meta(lambda: MODELS.build(config)).eval()
    if config["type"].startswith("mmseg."):
        parts = [network.neck] if network.with_neck else []
        network = nn.Sequential(network.backbone, *parts, network.decode_head)
    if neck is not None:
        network = nn.Sequential(network, build_on_meta(lambda: MODELS.build(neck)).eval())
    size = 32 if row["input_size"] == [32, 32] else SIZES.get(row["spec"]["schema"], 64)
    return network, torch.empty(1, 3, size, size, device="meta")


def reference(row, x: torch.Tensor) -> Graph:
    spec = row["spec"]
    return record(lambda x: REFERENCES[spec["schema"]](spec, x, row), x)


@pytest.mark.filterwarnings("ignore:When align_corners=True")
@pytest.mark.parametrize("row", few_of_a_schema.parameters(architectures()))
def test_built_network_computes_what_its_specification_says(row):
    try:
        network, x = built(row)
    except NotBuildable as error:
        pytest.skip(str(error))
    assert (difference := record(network, x).difference(reference(row, x))) == "", difference


def test_every_schema_has_a_reference():
    assert set(SCHEMAS) <= set(REFERENCES)


def convolutions(network, **attributes):
    found = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return [m for m in found if all(getattr(m, key) == value for key, value in attributes.items())]


def stronger_dilation(network):
    layer = convolutions(network, kernel_size=(3, 3), stride=(1, 1))[-1]
    layer.dilation = layer.padding = (3, 3)


def other_activation(network):
    name = [n for n, m in network.named_modules() if isinstance(m, nn.ReLU | nn.ReLU6)][-1]
    network.set_submodule(name, nn.Hardswish())


def counted_padding(network):
    next(m for m in network.modules() if isinstance(m, nn.AvgPool2d)).count_include_pad = True


def lost_layer(network):
    name = [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)][-1]
    network.set_submodule(name, nn.Identity())


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("MobileNetV2 1.0 @224", stronger_dilation),
        ("MobileNetV2 1.0 @224", other_activation),
        ("NASNet-A mobile 4@1056", counted_padding),
        ("NASNet-A mobile 4@1056", stronger_dilation),
        ("NASNet-A mobile 4@1056", lost_layer),
        ("ShuffleNetV2 1.0", other_activation),
    ],
)
def test_a_damaged_network_is_found(name, damage):
    """Changes that leave parameters (but for the lost norm) and multiply-adds as they are."""
    row = published.find(name)
    network, x = built(row)
    damage(network)
    assert "only in the first" in record(network, x).difference(reference(row, x))
