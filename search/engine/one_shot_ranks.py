"""Does a one-shot supernet rank architectures as their own trainings do?

Paths scored with a trained supernet's weights, beside the same architectures trained from scratch (a comparison's
``compare.json``).
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from search.space import Architecture
from search.strategies.one_shot import OneShotStrategy

from . import splits as split_files
from .checkpoint import NAME
from .comparison import RANDOM
from .correlation import rank_correlations
from .errors import UserError
from .run import closing, running, without_test
from .search_runner import strategy_of
from .single_path import OneShotRunner
from .task_data import every_dataset

# what resampling fewer pairs says is next to nothing
FEWEST = 5


def ranks(searches: Sequence[Path], comparison: Path, group: str = RANDOM, seed: int = 0) -> dict[str, Any]:
    """Rank correlations of supernets' scores with test scores after training, over a group of a comparison.

    ``searches``: work directories of finished one-shot searches over the comparison's space. Returns ``group``,
    ``architectures`` (each with ``trained``, the mean test score of its trainings, and ``supernet``, a score from each
    search), and ``searches``, each with ``kendall`` and ``spearman`` (see `rank_correlations`; lower-is-better scores are
    compared as they are, as both sides have the same unit). Raises UserError for files that aren't these.
    """
    trained = _trained(comparison, group)
    whole = [_joint(json.loads(key)) for key in trained]
    found: dict[str, Any] = {"group": group, "comparison": str(comparison), "seed": seed, "searches": []}
    found["architectures"] = [
        {"architecture": architecture.to_json(), "trained": sum(scores) / len(scores), "supernet": []}
        for architecture, scores in zip(whole, trained.values(), strict=True)
    ]
    for work_dir in searches:
        scores = supernet_scores(work_dir, whole)
        for row, score in zip(found["architectures"], scores, strict=True):
            row["supernet"].append(score)
        of = rank_correlations(scores, [row["trained"] for row in found["architectures"]], seed)
        found["searches"].append({"work_dir": str(work_dir), **of})
    return found


def supernet_scores(work_dir: Path, architectures: Sequence[Architecture]) -> list[float]:
    """Validation scores of paths, with a finished one-shot search's weights and splits; its directory stays as it is.

    Raises:
        UserError: no finished one-shot search, or an architecture of another space.
    """
    path = work_dir / "config.py"
    if not path.exists() or not (work_dir / NAME).exists():
        raise UserError(f"{work_dir} holds no one-shot search ({path.name} and {NAME} are needed).")
    cfg = Config.fromfile(path)
    if not cfg.get("strategy") or not isinstance(strategy_of(cfg), OneShotStrategy):
        raise UserError(f"{work_dir} holds a run of another kind, not a one-shot search.")
    if not (work_dir / "summary.json").exists():
        raise UserError(f"The one-shot search in {work_dir} isn't finished (no summary.json): go on with it by --resume first.")
    cfg = without_test(cfg)
    _read_splits_of(cfg, work_dir)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir, cfg.resume, cfg.load_from = folder, False, str(work_dir / NAME)
        with running(cfg), closing(OneShotRunner.from_cfg(cfg)) as runner:
            runner.strict_loading = True
            # built when they are first asked for
            assert runner.train_loop is not None and runner.val_loop is not None
            # its autocast is that of the scores
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
            for architecture in architectures:
                try:
                    runner.space.check(architecture)
                except ValueError as error:
                    raise UserError(f"{work_dir} searches another space than the comparison: {error}") from error
            runner.load_or_resume()
            with runner.averaged_weights():
                return [float(runner.score_of(runner.val_loop.score(architecture))) for architecture in architectures]


def _read_splits_of(cfg: Config, work_dir: Path) -> None:
    """Have the data sets read the lists in ``work_dir``, wherever it was and was named from when the search ran."""
    if not cfg.get("splits"):
        return
    folder = (work_dir / "splits").resolve()
    for _, dataset in every_dataset(cfg):
        # mmseg's data sets have the list as their ann_file
        key = "split" if dataset.get("split") else "ann_file"
        written = Path(dataset.get(key) or "")
        if written.parent.name == folder.name and written.suffix == ".txt":
            split_files.read(folder / written.name, dataset.get("split_sha256") or _sha256(folder, written.stem))
            dataset[key] = str(folder / written.name)


def _sha256(folder: Path, split: str) -> str:
    """Of a split's list when it was made."""
    path = folder / "splits.json"
    try:
        return str(json.loads(path.read_text())["files"][split]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} doesn't say what the split {split!r} was made of, so it can't be read again: {error}"
        ) from error


def _trained(comparison: Path, group: str) -> dict[str, list[float]]:
    """Test scores of a group's architectures, which are written as JSON."""
    try:
        rows = json.loads(comparison.read_text())["runs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{comparison} isn't a comparison's compare.json: {error}") from error
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["group"] == group and row["test"] is not None:
            found.setdefault(json.dumps(row["architecture"], sort_keys=True), []).append(row["test"])
    if len(found) < FEWEST:
        groups = ", ".join(dict.fromkeys(repr(row["group"]) for row in rows))
        raise UserError(f"{comparison} has {len(found)} trained in group {group!r}: {FEWEST} or more are needed (of {groups}).")
    return found


def _joint(parts: dict[str, Any]) -> Architecture:
    return Architecture.from_json({name: value for part in parts.values() for name, value in part.items()})
