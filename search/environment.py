"""Two families of OpenMMLab packages share import names; in one environment they overwrite each other's
files.

Upstream (mmengine, mmcv, mmdet, mmsegmentation) and the maintained forks (onedl-*) each install folders
`mmengine`, `mmcv`, `mmdet`, `mmseg`. pip knows distributions, not folders: it lets one overwrite the other
without a word, and what is left is a mixture. visnas works with either family, never with both.

`python -m search.environment` exits with 2 and one sentence when both are there; with `--adding detection`
also when installing that extra would put a fork over an upstream package. `--requirements` prints what else visnas
needs, for an environment that keeps upstream.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata

# import name -> (upstream distributions, forks)
FAMILIES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mmengine": (("mmengine", "mmengine-lite"), ("onedl-mmengine",)),
    "mmcv": (("mmcv", "mmcv-lite", "mmcv-full"), ("onedl-mmcv",)),
    "mmdet": (("mmdet",), ("onedl-mmdetection",)),
    "mmseg": (("mmsegmentation",), ("onedl-mmsegmentation",)),
}
# what each extra of pyproject.toml installs of the forks; a test holds the two equal
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "detection": ("onedl-mmdetection", "onedl-mmcv"),
    "segmentation": ("onedl-mmsegmentation", "onedl-mmcv"),
    "ray": (),
    "export": (),
    "dev": ("onedl-mmdetection", "onedl-mmsegmentation", "onedl-mmcv"),
}


def installed() -> dict[str, str]:
    """Distribution name (lower case, words joined by '-') -> version, of this interpreter's environment."""
    found = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found[re.sub(r"[-_.]+", "-", name).lower()] = distribution.version
    return found


def conflict(distributions: Mapping[str, str]) -> str | None:
    """A sentence naming the two distributions that share an import name and the way out; None when there are
    none.

    distributions: name -> version, as `installed()` gives them.
    """
    for module, (upstream, forks) in FAMILIES.items():
        ours = next((name for name in forks if name in distributions), None)
        theirs = next((name for name in upstream if name in distributions), None)
        if ours and theirs:
            return (
                f"{theirs} {distributions[theirs]} and {ours} {distributions[ours]} are both installed in "
                f"{sys.prefix} and overwrite each other's {module!r}: uninstall both and install one of them "
                f"again, or use an environment of its own (`make setup`)"
            )
    return None


def overwritten(extra: str, distributions: Mapping[str, str]) -> str | None:
    """A sentence naming the upstream distribution that installing `extra` would overwrite; None when there is
    none.

    ValueError for an extra that doesn't exist.
    """
    if extra not in EXTRAS:
        raise ValueError(f"no extra {extra!r}; the extras are {', '.join(EXTRAS)}")
    for module, (upstream, forks) in FAMILIES.items():
        adds = next((name for name in forks if name in EXTRAS[extra]), None)
        theirs = next((name for name in upstream if name in distributions), None)
        if adds and theirs:
            return (
                f"{theirs} {distributions[theirs]} is installed in {sys.prefix} and the extra {extra!r} "
                f"would put {adds} over its {module!r}: use an environment of its own "
                f"(`make setup EXTRAS={extra}`), or keep {theirs} and install visnas alone "
                f"(`pip install --no-deps -e .`)"
            )
    return None


def others_than_forks(requirements: Iterable[str]) -> list[str]:
    """Of a distribution's requirements those that aren't a fork nor an extra's."""
    forks = {name for _, names in FAMILIES.values() for name in names}
    always = (line for line in requirements if "extra ==" not in line)
    return [line for line in always if re.split(r"[^\w.-]", line, maxsplit=1)[0] not in forks]


def require_one_family() -> None:
    """ValueError, with the sentence of `conflict`, when both families are installed."""
    if problem := conflict(installed()):
        raise ValueError(problem)


def main(arguments: list[str] | None = None) -> int:
    """Check this environment; 0 when it is sound, 2 with a sentence on standard error when it isn't."""
    parser = argparse.ArgumentParser(prog="python -m search.environment", description=__doc__.splitlines()[0])
    parser.add_argument("--adding", metavar="EXTRA", action="append", default=[], choices=list(EXTRAS))
    parser.add_argument("--requirements", action="store_true", help="print the requirements without the forks, for pip")
    options = parser.parse_args(arguments)
    if options.requirements:
        print("\n".join(others_than_forks(metadata.requires("visnas") or [])))
        return 0
    extras, distributions = options.adding, installed()
    problems = [conflict(distributions), *(overwritten(extra, distributions) for extra in extras)]
    problem = next((text for text in problems if text), None)
    if problem:
        print(problem, file=sys.stderr)
    return 2 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
