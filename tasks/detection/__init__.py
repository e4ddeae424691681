"""Object detection with mmdet; importing it lets mmdet run without mmcv's compiled operations (see `tasks.mm_ops`).

A config names it in ``custom_imports``, because mmdet takes seconds to import: other tasks shouldn't wait for it.
"""

import sys
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec

from tasks import mm_checkpoints, mm_ops

# again, for modules of mm packages that were imported since
mm_ops.install()
mm_checkpoints.install()

if find_spec("mmdet"):
    # what mmdet prints about packages that it misses isn't output of a tool; it warns of one that isn't needed
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "faster_coco_eval")
        from . import adapter, cost, datasets, metric, searched_heads, testing  # noqa: F401
