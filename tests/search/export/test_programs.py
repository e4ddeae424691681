"""Programs of torch.export and ONNX files of each family compute what the network does."""

import copy
import io
import json
import sys

import pytest
import torch
from torch import nn

from search import export
from search.registry import MODELS
from search.supernet import recalibrate
from tests.tasks.families import FAMILIES, FINE_FAMILIES

NETWORKS = {**FAMILIES, **FINE_FAMILIES}
SIZE = (3, 64, 64)
# the one that always runs has squeeze-excitation and activations of its own
FAST = ("mobilenet_v3",)
NOTES = {"network": "a test", "classes": '["é", "b"]'}


def network(family):
    torch.manual_seed(0)
    model = MODELS.build(NETWORKS[family])
    recalibrate(model, [export.random_images(SIZE, batch=4)], model)
    return model.eval()


def families():
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NETWORKS]


@pytest.mark.parametrize("family", families())
def test_programs_and_onnx_files_are_equal_to_the_network(family):
    model = network(family)
    program = export.exported_program(model, SIZE, dynamic_batch=True)
    images = [export.random_images(SIZE, batch=1), export.random_images(SIZE, batch=3, seed=1)]
    assert export.difference(model, export.program_of(export.program_bytes(program, NOTES)), images) == 0
    export.require_packages()
    found = export.difference(model, export.onnx_network(export.onnx_bytes(program, NOTES)), images)
    export.require_equal(found)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x), x.mean((2, 3))


def test_notes_and_names_are_in_the_files():
    import onnx

    program = export.exported_program(Small().eval(), (3, 8, 8), dynamic_batch=True)
    extra = {"notes.json": ""}
    torch.export.load(io.BytesIO(export.program_bytes(program, NOTES)), extra_files=extra)
    assert json.loads(extra["notes.json"]) == NOTES
    file = onnx.load_from_string(export.onnx_bytes(program, NOTES))
    assert {entry.key: entry.value for entry in file.metadata_props}.items() >= NOTES.items()
    assert [value.name for value in file.graph.input] == ["images"]
    assert [value.name for value in file.graph.output] == ["output0", "output1"]
    assert {node.domain for node in file.graph.node} == {""}


def test_a_static_program_takes_one_image():
    program = export.exported_program(Small().eval(), (3, 8, 8), dynamic_batch=False)
    run = export.program_of(export.program_bytes(program, {}))
    assert run(torch.zeros(1, 3, 8, 8))[0].shape == (1, 4, 6, 6)
    with pytest.raises(AssertionError, match="== 1"):
        run(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"the package {name}, .*visnas\[export\]"):
        export.require_packages()


def test_difference_is_relative_to_the_variation_between_images():
    images = [export.random_images((3, 4, 4))]
    assert export.difference(lambda x: x, lambda x: x + 0.1, images) < 0.1
    # a large constant hides nothing
    biased = export.difference(lambda x: x + 1e3, lambda x: 2 * x + 1e3, images)
    assert 0.05 < biased < 1
    assert export.difference(lambda x: x, lambda x: x[:, :1], images) == float("inf")
    assert export.difference(lambda x: x, lambda x: x / 0, images) == float("inf")
    assert export.difference(torch.zeros_like, torch.zeros_like, images) == 0
    with pytest.raises(ValueError, match="finite"):
        export.difference(lambda x: x / 0, lambda x: x, images)
    with pytest.raises(ValueError, match="nothing was written"):
        export.require_equal(float("nan"))


def test_a_layer_that_is_one_percent_off_is_seen():
    model = network("mobilenet_v2")
    wrong = copy.deepcopy(model)
    convolutions = [layer for layer in wrong.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        convolutions[len(convolutions) // 2].weight *= 1.01
    assert export.difference(model, wrong, [export.random_images(SIZE)]) > 5 * export.TOLERANCE
