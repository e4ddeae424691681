"""The environment of `make test-upstream` is what it says; the other tests of the mark hold in it and here."""

import sys
from importlib import import_module

import pytest

from search.environment import conflict, installed
from tasks import mm_ops

FOUND = installed()
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif("mmdet" not in FOUND, reason="upstream's mm packages aren't installed here: `make test-upstream`"),
]


def test_it_has_upstream_and_no_fork():
    versions = {name: FOUND[name].rpartition(".")[0] for name in ("mmengine", "mmcv-lite", "mmdet", "mmsegmentation")}
    assert versions == {"mmengine": "0.10", "mmcv-lite": "2.1", "mmdet": "3.3", "mmsegmentation": "1.2"}
    assert conflict(FOUND) is None and not [name for name in FOUND if name.startswith("onedl-")]


def test_mmcvs_operations_are_torchvisions():
    mm_ops.install()
    import_module("mmcv.ops")
    assert sys.modules["mmcv._ext"].__spec__.origin == mm_ops.__name__
