import pytest
from mmengine.registry import DefaultScope


@pytest.fixture
def no_default_scope():
    """mm builds a model's inner parts in the default scope, which a runner of another test may have left behind."""
    before = dict(DefaultScope._instance_dict)
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)
