"""A schedule for K of partial channels."""

import json
import signal

import pytest
import torch
from torch import nn

from backbones import AutoFPN, HeadCell
from search import report
from search.engine import UserError, checkpoint, search
from search.engine.stages import Stage, stages_of, take_over, widened
from search.supernet import ArchParams, Relax, Softmax, building, record
from tests.search.engine import tiny

FALLING = [{"begin": 1, "partial": 2, "freeze_epochs": 1}]
MODEL = {"partial": 4, "channels": 8, "dropout": 0.2}


@pytest.fixture
def quick(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    yield
    torch.set_num_threads(threads)


def test_a_new_channel_copies_an_old_one():
    weight = torch.arange(6.0).view(2, 3)
    wide = widened(weight, (5, 6))
    assert all(wide[i, j] == weight[i % 2, j % 3] for i in range(5) for j in range(6))
    assert widened(weight, (2, 3)) is weight


def net(channels):
    return nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=False), nn.Flatten())


def test_parameters_stay_the_same_objects_with_their_momenta():
    old, new = net(2), net(4)
    weight = old[0].weight
    optimizer = torch.optim.SGD(old.parameters(), lr=0.1, momentum=0.9)
    old(torch.randn(4, 2, 3, 3)).square().mean().backward()
    optimizer.step()
    before, momentum = weight.detach().clone(), optimizer.state[weight]["momentum_buffer"].clone()
    taken = take_over(new, old, optimizer)
    assert taken is new and new[0].weight is weight and optimizer.param_groups[0]["params"] == [weight]
    assert weight.equal(widened(before, (4, 4, 1, 1)))
    assert optimizer.state[weight]["momentum_buffer"].equal(widened(momentum, (4, 4, 1, 1)))
    assert new[1].running_var.equal(old[1].running_var.repeat(2)) and new[1].num_batches_tracked == 1
    optimizer.zero_grad()
    new(torch.randn(4, 4, 3, 3)).square().mean().backward()
    optimizer.step()


def test_stages_follow_each_other():
    settings = [{"begin": 10, "partial": 4}, {"begin": 20, "partial": 1, "freeze_epochs": 3}]
    assert stages_of(settings, 8, 30) == (Stage(0, 8), Stage(10, 4), Stage(20, 1, 3))
    assert stages_of((), None, 30) == (Stage(0, None),)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"begin": 1}, "must give begin and partial"),
        ({"begin": 1, "partial": 2, "k": 2}, "must give begin and partial"),
        ({"begin": 0, "partial": 2}, r"stages\[0\]\.begin=0 must be a whole number of at least 1"),
        ({"begin": 3, "partial": 2}, "begin=3 comes after the last of 3 epochs"),
        ({"begin": 1, "partial": 4}, "partial=4 must be smaller than 4, the K before"),
        ({"begin": 1, "partial": 0}, "partial=0 must be a whole number of at least 1"),
        ({"begin": 1, "partial": 2, "freeze_epochs": -1}, "freeze_epochs=-1"),
        ({"begin": 1, "partial": 3}, r"stages\[0\]\.partial=3: 8 channels can't be split"),
    ],
)
def test_stages_that_can_not_be(tmp_path, quick, stage, words):
    with pytest.raises(UserError, match=words):
        search(tiny.config(tmp_path, model=MODEL, loop={"stages": [stage]}))
    assert not (tmp_path / "checkpoint.pth").exists()


def test_averaged_weights_are_refused(tmp_path, quick):
    with pytest.raises(UserError, match="EMAHook averages weights of one shape"):
        search(tiny.config(tmp_path, model=MODEL, loop={"stages": FALLING}, custom_hooks=[{"type": "EMAHook"}]))


def test_k_falls_and_the_search_goes_on(tmp_path, quick):
    cfg = tiny.config(
        tmp_path, model=MODEL, epochs=4, loop={"stages": FALLING}, strategy={"type": "PCDARTS", "freeze_epochs": 0}
    )
    result = search(cfg)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["partial"] for line in lines] == [4, 2, 2, 2]
    # logits wait in the first epoch of the second stage, from where they were
    assert [line["phase"] for line in lines] == ["search", "freeze", "search", "search"]
    assert lines[0]["probabilities"] == lines[1]["probabilities"] != lines[2]["probabilities"]
    saved = checkpoint.read_own(tmp_path / "checkpoint.pth")
    assert saved["state_dict"]["dag.edges.n2<-0.ops.conv.1.weight"].shape == (4, 4, 3, 3)
    assert saved["visnas"]["loop"]["stage"] == 1
    assert result.summary["epochs"] == 4


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    assert tiny.in_children(folder, model=MODEL, loop={"stages": FALLING, "save_steps": 2}) == [0]
    return tiny.state(folder)


@pytest.mark.parametrize(
    ("where", "at", "stage"),
    [
        ("step", 5, 0),  # before K falls
        ("epoch", 2, 1),  # after it fell, with a checkpoint from within the epoch
        ("step", 7, 0),  # after it fell, with a checkpoint from before
    ],
)
def test_a_killed_search_goes_on_bit_for_bit(straight, tmp_path, where, at, stage):
    args = {"model": MODEL, "loop": {"stages": FALLING, "save_steps": 2}}
    kill = {"visualization": {"type": "search.Kill", "where": where, "at": at}}
    assert tiny.in_children(tmp_path, **args, default_hooks=kill) == [-signal.SIGKILL]
    assert checkpoint.read_own(tmp_path / "checkpoint.pth")["visnas"]["loop"]["stage"] == stage
    assert tiny.in_children(tmp_path, **args, resume=True) == [0]
    assert tiny.differences(straight, tiny.state(tmp_path)) == []


class Detector(nn.Module):
    """A pyramid and a head that is the same for its levels, both with partial channels."""

    def __init__(self, k):
        super().__init__()
        self.neck = AutoFPN([4, 4], 16, 2, 1, num_outs=2, affine=False, partial=k, plan="batched")
        self.head = HeadCell(16, 16, affine=False, partial=k, plan="batched")

    def forward(self, maps):
        return [self.head(x) for x in self.neck(maps)]


def test_a_neck_and_a_head_are_widened_together():
    params = ArchParams(record(lambda: Detector(4)).space, edge_logits=True, std=1.0)
    with building(Relax(params)):
        old = Detector(4)
    parameters = dict(old.named_parameters())
    optimizer = torch.optim.SGD([*old.parameters()], lr=0.1, momentum=0.9)
    maps = [torch.randn(2, 4, n, n) for n in (6, 3)]

    def step(model):
        optimizer.zero_grad()
        with params.gated(Softmax()):
            sum(y.square().mean() for y in model(maps)).backward()
        optimizer.step()

    step(old)
    before = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    momenta = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in parameters.items()}
    with building(Relax(params)):
        new = take_over(Detector(2), old, optimizer)
    grown = {name for name, tensor in new.state_dict().items() if tensor.shape != before[name].shape}
    assert {"neck.cells.p4.edges.n2<-0.ops.sep_conv_3x3.2.weight", "head.cell.edges.n1<-0.ops.dil_conv_5x5.1.weight"} < grown
    assert "neck.cells.p3.edges.n2<-0.ops.dil_conv_3x3.3.running_var" in grown
    assert not any(name.startswith(("neck.laterals", "neck.outputs", "head.lateral", "head.output")) for name in grown)
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, widened(before[name], tensor.shape)), name
        if name in parameters:
            assert parameters[name] is new.get_parameter(name)
            assert torch.equal(optimizer.state[parameters[name]]["momentum_buffer"], widened(momenta[name], tensor.shape))
    assert new.head.cell.partial_channels == new.neck.cells["p3"].partial_channels == 2
    step(new)
    assert [name for name, p in new.named_parameters() if p.grad is None or not p.grad.any()] == []
