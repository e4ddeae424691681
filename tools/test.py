"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT [--out PLACE] [--show-dir D] [--tta]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EPILOG = """The network's architecture is read from the checkpoint unless the config or --arch names one.

exit codes:
  0  the scores were printed
  2  a mistake in the options, the config, the data or the checkpoint, said in one sentence
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the training that made the checkpoint")
    parser.add_argument("checkpoint", help="its checkpoint.pth")
    parser.add_argument("--arch", help="architecture file, where the checkpoint doesn't hold it")
    parser.add_argument(
        "--out",
        metavar="PLACE",
        help="write every prediction here: classification, and detection in COCO's format, to a file F.json, segmentation "
        "label maps to a folder",
    )
    parser.add_argument("--show-dir", metavar="D", help="write every image with its true and predicted labels here")
    parser.add_argument(
        "--tta",
        action="store_true",
        help="average predictions over each image and its mirror image; segmentation and detection over the config's "
        "tta_pipeline",
    )
    parser.add_argument("--work-dir", help="where logs go, a folder 'test' beside the checkpoint by default")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change the config, for example data_root=X test_dataloader.batch_size=16",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    if args.work_dir is None:
        args.work_dir = str(Path(args.checkpoint).resolve().parent / "test")
    from search.engine import command

    def action() -> int:
        from search.engine.run import adapter_of
        from search.engine.train import evaluate

        cfg = command.load(args)
        hooks = adapter_of(cfg).test_hooks(args.out, args.show_dir, args.tta)
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), *hooks]
        for name, value in evaluate(cfg, args.checkpoint).items():
            print(f"{name}: {value:.4f}")
        return 0

    return command.guarded(action)


if __name__ == "__main__":
    sys.exit(main())
