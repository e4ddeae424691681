import gc
import os

# Two workers on two cores, each with threads for both, are slower than with one thread each; read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from mmengine.registry import DefaultScope

# Without a GPU the kernels' tests run in Triton's interpreter. It must be chosen before Triton's own library of device
# functions is imported, which many modules of torch do: so here, and not beside those tests.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage():
    """What is imported stays; mmengine's data sets collect garbage, which would look through all of it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_default_scope():
    """mm builds a model's inner parts in the default scope, which a runner of another test may have left behind."""
    before = dict(DefaultScope._instance_dict)
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)
