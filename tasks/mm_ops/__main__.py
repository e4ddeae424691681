"""Run a script of mmdet, mmseg or your own that needs mmcv's operations: ``python -m tasks.mm_ops SCRIPT [ARGUMENT ...]``.

The ``custom_imports`` of a config come too late for a script that imports, say, `mmdet.apis` before it reads the config, where
mmdet is upstream's and mmcv has no compiled operations (mmcv-lite). mmdet's tools/test.py is one. ``-m`` imports this package,
which brings the operations, before it runs this file.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the script as Python would, its folder first on the path; 2 with a sentence where there is none."""
    if not arguments or not Path(arguments[0]).is_file():
        what = f"there is no script {arguments[0]!r}" if arguments else "no script is named"
        print(f"{what}: python -m tasks.mm_ops SCRIPT [ARGUMENT ...]", file=sys.stderr)
        return 2
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
