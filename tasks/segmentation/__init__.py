"""Semantic segmentation with mmseg; importing it lets mmseg run without mmcv's compiled operations (see `tasks.mm_ops`).

A config names it in ``custom_imports``, because mmseg takes seconds to import: other tasks shouldn't wait for it.
"""

import sys
from contextlib import redirect_stdout
from importlib.util import find_spec

from tasks import mm_checkpoints, mm_ops

# again, for modules of mm packages that were imported since
mm_ops.install()
mm_checkpoints.install()

if find_spec("mmseg"):
    # what mmseg prints about a data set that it misses isn't output of a tool
    with redirect_stdout(sys.stderr):
        from . import adapter, auto_deeplab_head, datasets, heads, loading, metric, testing  # noqa: F401
