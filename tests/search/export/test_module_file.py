"""The file made of each family computes, and trains, what the network does, where this project isn't."""

import copy
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from search.export import difference, fill, module_file, random_images
from search.registry import MODELS
from search.supernet import recalibrate
from tests.tasks.families import FAMILIES, FINE_FAMILIES

NETWORKS = {**FAMILIES, **FINE_FAMILIES}
SIZE = (3, 64, 64)
# odd sides, and another batch
OTHER = (3, 67, 93)
BLOCKED = ("search", "backbones", "tasks", "tools", "mmengine", "mmcv", "mmdet", "mmseg")


@cache
def exported(family):
    """A family's network in evaluation mode, its file, and the file's network with the same weights."""
    torch.manual_seed(0)
    model = MODELS.build(NETWORKS[family])
    recalibrate(model, [random_images(SIZE, batch=4)], model)
    file = module_file(model.eval(), SIZE)
    network = file.network().eval()
    return SimpleNamespace(model=model, file=file, network=network, weights=fill(network, model))


@pytest.mark.parametrize("family", NETWORKS)
def test_outputs_are_equal_at_any_size(family):
    made = exported(family)
    assert made.weights.keys() == made.model.state_dict().keys()
    assert made.file.left_out == ()
    for size in (SIZE, OTHER):
        assert difference(made.model, made.network, [random_images(size, batch=3)]) == 0


def step(network):
    """Gradients and statistics after a training step of a copy."""
    network = copy.deepcopy(network).train()
    torch.manual_seed(1)
    outputs = network(random_images(SIZE, batch=4, seed=2))
    sum((level * torch.randn(level.shape)).sum() for level in outputs).backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return gradients, dict(network.named_buffers())


@pytest.mark.parametrize("family", NETWORKS)
def test_it_trains_as_the_original_does(family):
    made = exported(family)
    for found, expected in zip(step(made.network), step(made.model), strict=True):
        assert expected and found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The outputs of all families' files, run by a process that can't import this project or mm packages."""
    folder = tmp_path_factory.mktemp("files")
    for family in NETWORKS:
        made = exported(family)
        (folder / f"{family}.py").write_text(made.file.source(family, {"quotes": 'a "b" \\ c'}), encoding="utf-8")
        torch.save(made.weights, folder / f"{family}.pth")
    torch.save(random_images(SIZE), folder / "images.pt")
    program = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
import importlib, torch
torch.set_num_threads({torch.get_num_threads()})
images = torch.load("images.pt")
sys.path.insert(0, "")
with torch.no_grad():
    outputs = {{family: importlib.import_module(family).load()(images) for family in {list(NETWORKS)!r}}}
torch.save(outputs, "outputs.pt")
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "outputs.pt")


def test_the_files_run_where_this_project_is_not(elsewhere):
    for family in NETWORKS:
        outputs = elsewhere[family]
        assert difference(exported(family).model, lambda images, found=outputs: found, [random_images(SIZE)]) == 0, family


def test_only_torch_is_imported():
    for family in NETWORKS:
        lines = exported(family).file.source(family, {}).splitlines()
        imports = {line for line in lines if line.startswith(("import ", "from "))}
        assert imports <= {
            "from pathlib import Path",
            "import torch",
            "import torch.nn.functional as F",
            "import torchvision",
            "from torch import nn",
        }


class Scale(nn.Module):
    """Weights of its own, a buffer, a part that is used twice under two names, and one that only training uses."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("offset", torch.rand(4, 1, 1))
        self.first = nn.Conv2d(4, 4, 1)
        self.heads = nn.ModuleDict({"a-b": self.first, "c": nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(0.5))})
        self.unused = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        self.auxiliary = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))

    def forward(self, x):
        x = self.unused[1](self.first(x) * self.factor + self.offset)
        x.mul_(2)
        if self.training:
            self.auxiliary(x.mean((2, 3)))
        # a branch by size, a loop, and a slice: what stays an expression of the size, and what doesn't
        if x.shape[2] > 2 and len(x.shape) == 4:
            x = self.heads["a-b"](x[:, :, : -(x.shape[2] // 2)])
        for part in x.chunk(2, dim=1):
            x = torch.cat([x, part * 3], 1)
        return {"out": self.heads["c"](x[:, :4]), "mean": [x.mean((2, 3), keepdim=True)]}


def test_a_network_with_everything_of_its_own():
    model = Scale().eval()
    file = module_file(model, (4, 8, 8))
    network = file.network().eval()
    weights = fill(network, model)
    assert file.left_out == ("auxiliary", "unused")
    assert weights.keys() == {name for name in model.state_dict() if not name.startswith(("auxiliary", "unused"))}
    assert network.first is network.heads["a-b"]
    assert isinstance(network.factor, nn.Parameter) and "offset" in dict(network.named_buffers())
    assert difference(model, network, [random_images((4, 8, 8))]) == 0
    assert difference(model, network, [random_images((4, 6, 9), batch=3)]) == 0
    assert "Left out for that reason: auxiliary, unused." in file.source("t", {})


class Decides(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class HiddenBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("hidden", torch.ones(1), persistent=False)

    def forward(self, x):
        return x + self.hidden


class Constant(nn.Module):
    def forward(self, x):
        return x + torch.arange(8)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Decides(), "decides by what is in the images"),
        (HiddenBuffer(), "'hidden'"),
        (Constant(), "a tensor of its own"),
        (nn.Sequential(nn.ReLU(), nn.ReLU()), "put it in a module"),
    ],
)
def test_what_cannot_be_written_is_refused(model, words):
    with pytest.raises(ValueError, match=words):
        module_file(model.eval(), (3, 8, 8))
