"""Contract tests as classes: a new searchable network inherits them by saying how it is built.

class TestMyNeck(SearchableContract):
    network = MyNeck

    def build(self):
        return MyNeck(channels=8)

    def inputs(self):
        return (torch.randn(2, 8, 16, 16),)
"""

from __future__ import annotations

import copy
import inspect
import random

import pytest
import torch
from torch import Tensor, nn

from search.registry import MODELS
from search.space import Architecture
from search.supernet import ArchParams, Fix, Relax, Softmax, building, inherit, record


class SearchableContract:
    """What every searchable network must hold. Override `build` and `inputs`; K is 1 in what `build` makes."""

    # the class that is tested
    network: type[nn.Module]
    # parameters no gate can reach, such as those of a head the forward doesn't run
    without_gradient: frozenset[str] = frozenset()

    def build(self) -> nn.Module:
        """The network, read by the building context."""
        raise AssertionError("override build")

    def inputs(self) -> tuple[Tensor, ...]:
        """A small batch."""
        raise AssertionError("override inputs")

    def outputs(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        """The forward's tensors."""
        out = model(*inputs)
        return [out] if isinstance(out, Tensor) else list(out)

    def _wide(self, dtype: torch.dtype = torch.float64) -> tuple[ArchParams, nn.Module]:
        torch.manual_seed(0)
        params = ArchParams(record(self.build).space)
        with building(Relax(params)):
            model = self.build()
        return params.to(dtype), model.to(dtype)

    def _architectures(self, params: ArchParams, n: int = 3) -> list[Architecture]:
        rng = random.Random(0)
        return [params.space.sample(rng) for _ in range(n)]

    def test_record_is_on_meta_and_leaves_the_random_state_alone(self) -> None:
        """Recording draws no random number, so a run is the same with and without it."""
        before = torch.random.get_rng_state()
        record(self.build)
        assert torch.equal(before, torch.random.get_rng_state())

    def test_three_readings_declare_the_same_space(self) -> None:
        """Record, Relax and Fix see equal choices in equal parts."""
        recorded = record(self.build)
        with building(Relax(ArchParams(recorded.space))) as relaxed:
            self.build()
        with building(Fix(recorded.space.sample(random.Random(1)))) as fixed:
            self.build()
        assert recorded.parts == relaxed.parts == fixed.parts

    def test_every_active_parameter_and_logit_gets_a_gradient(self) -> None:
        """Under a softmax everything takes part."""
        params, model = self._wide()
        with params.gated(Softmax()):
            sum((y**2).sum() for y in self.outputs(model.train(), self._inputs())).backward()
        missing = {n for n, p in model.named_parameters() if p.grad is None} - self.without_gradient
        assert not missing
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in params.logits.values())

    @pytest.mark.parametrize("dense", [False, True])
    def test_fix_equals_the_supernet_at_its_mask(self, dense: bool) -> None:
        """Eval mode, float64, gates at 0 and 1: the derived network with inherited weights, to 1e-10."""
        params, model = self._wide()
        _perturb_statistics(model)
        inputs = self._inputs()
        for arch in self._architectures(params):
            with building(Fix(arch)):
                narrow = self.build().double()
            assert set(narrow.state_dict()) <= set(model.state_dict())
            assert inherit(narrow, model.state_dict()).without_counterpart == ()
            with torch.no_grad(), params.masked(arch, dense=dense):
                expected = self.outputs(model.eval(), inputs)
            with torch.no_grad():
                got = self.outputs(narrow.eval(), inputs)
                other = self.outputs(narrow, tuple(x.flip(-1) + 0.5 for x in inputs))
            assert any(not torch.equal(a, b) for a, b in zip(got, other, strict=True)), "the input has no influence"
            for a, b in zip(expected, got, strict=True):
                assert a.shape == b.shape
                assert (a - b).abs().max() <= 1e-10 * max(1.0, float(a.abs().max()))

    def test_what_is_not_chosen_does_not_run(self) -> None:
        """A mask runs the chosen operations only: exactly the derived network's parameters get gradients."""
        params, model = self._wide()
        (arch,) = self._architectures(params, 1)
        with params.masked(arch):
            sum((y**2).sum() for y in self.outputs(model.train(), self._inputs())).backward()
        with building(Fix(arch)):
            narrow = self.build()
        reached = {n for n, p in model.named_parameters() if p.grad is not None}
        assert reached == {n for n, _ in narrow.named_parameters()} - self.without_gradient

    def test_a_copy_is_gated_with_its_network(self) -> None:
        """EMA deep-copies models: the copy gives equal outputs under the same gates and owns no logits."""
        params, model = self._wide()
        twin = copy.deepcopy(model)
        with torch.no_grad(), params.gated(Softmax()):
            a, b = self.outputs(model.eval(), self._inputs()), self.outputs(twin.eval(), self._inputs())
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        logits = {p.data_ptr() for p in params.parameters()}
        assert not logits & {p.data_ptr() for p in [*model.parameters(), *twin.parameters()]}

    def test_outside_its_contexts_it_says_what_to_do(self) -> None:
        """Neither built nor run without a reading."""
        with pytest.raises(RuntimeError, match="building"):
            self.build()
        _, model = self._wide()
        with pytest.raises(RuntimeError, match="gated"):
            self.outputs(model, self._inputs())

    def test_an_architecture_of_another_space_is_refused(self) -> None:
        """A missing and a foreign choice are both named."""
        space = record(self.build).space
        choices = dict(space.sample(random.Random(2)))
        name = next(n for n in choices if not space[n].when)
        with (
            pytest.raises(ValueError, match=name),
            building(Fix({n: v for n, v in choices.items() if n != name})),
        ):
            self.build()
        with (
            pytest.raises(ValueError, match="no/such/choice"),
            building(Fix({**choices, "no/such/choice": 1})),
        ):
            self.build()

    def _inputs(self) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        return tuple(x.double() for x in self.inputs())


def _perturb_statistics(model: nn.Module) -> None:
    # at their initial 0 and 1, norms in eval mode would hide a mix-up; means about 0, or every rectifier would be dead
    generator = torch.Generator().manual_seed(3)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            low = 0.5 if name.endswith("running_var") else -0.5
            buffer.copy_(low + torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype))


def registered_searchable() -> dict[str, type[nn.Module]]:
    """Every class of this project's packages in the registry that takes an `arch`, by name."""
    MODELS.import_from_location()
    ours = {n: c for n, c in MODELS.module_dict.items() if c.__module__.split(".")[0] in ("backbones", "search", "tasks")}
    return {n: c for n, c in ours.items() if inspect.isclass(c) and "arch" in inspect.signature(c).parameters}
