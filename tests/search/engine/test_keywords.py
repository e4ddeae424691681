from mmengine import registry as mm
from mmengine.hooks import CheckpointHook
from torch import nn

from search.engine.keywords import keywords


class Base:
    def __init__(self, base, *, last=1):
        self.base, self.last = base, last


class Forwards(Base):
    def __init__(self, own, **kwargs):
        super().__init__(base=own, **kwargs)
        self.own = own


class Keeps(Base):
    def __init__(self, own, **kwargs):
        super().__init__(own)
        self.rest = kwargs


class Silent(Forwards):
    pass


class Module(nn.Module):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width


def test_forwarded_keywords_are_the_base_class_s():
    # but for those that the subclass gives it
    assert keywords(Forwards) == {"own", "last"} == keywords(Silent)


def test_kept_keywords_accept_everything_unless_told_what_they_are():
    assert keywords(Keeps) is None
    assert keywords(Keeps, {"later"}) == {"own", "later"}


def test_torch_modules_take_no_keyword_of_their_own():
    assert keywords(Module) == {"width"}


def test_functions():
    def strategy(order=1, *, freeze_epochs=0):
        return order, freeze_epochs

    assert keywords(strategy) == {"order", "freeze_epochs"}
    assert keywords(lambda **kwargs: kwargs) is None


def test_mmengine_s_own_chains():
    scheduler = keywords(mm.PARAM_SCHEDULERS.get("CosineAnnealingLR"))
    assert {"T_max", "eta_min", "begin", "end", "by_epoch"} <= scheduler
    assert "gamma" not in scheduler
    assert "clip_grad" in keywords(mm.OPTIM_WRAPPERS.get("AmpOptimWrapper"))
    assert keywords(CheckpointHook) is None
