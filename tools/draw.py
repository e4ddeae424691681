"""Draw cells, a pyramid or a path: python tools/draw.py D/architecture.json -o FIGURE.svg [--cell normal | --walk path]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EXIT_CODES = """exit codes:
  0  the figure was written
  2  a mistake in the options or the file, said in one sentence
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architecture", help="an architecture file, such as backbones/archs/darts_v2.json")
    parser.add_argument("-o", "--out", required=True, metavar="FIGURE.svg", help="the file to write")
    parser.add_argument("--part", help="the searched module to draw, needed where the file holds several")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--cell", action="append", default=[], help="draw this cell only; may be repeated")
    what.add_argument("--walk", help="draw the path of this choice instead, such as path in Auto-DeepLab's")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command
    from search.report import draw_file, draw_pyramid, draw_trellis, pyramid_names
    from search.space import Walk, load

    def action() -> int:
        if Path(args.out).suffix != ".svg":
            raise ValueError(f"--out {args.out!r} must end in .svg, the only format drawn")
        parts = load(args.architecture).parts
        if args.part is None and len(parts) > 1:
            raise ValueError(f"{args.architecture} holds several parts; choose one by --part: {', '.join(parts)}")
        name = args.part or next(iter(parts), None)
        if name not in parts:
            raise ValueError(f"{args.architecture} has no part {name!r}; it has {', '.join(parts) or 'none'}")
        space, architecture = parts[name].space, parts[name].architecture
        pyramids = pyramid_names(choice.name for choice in space)
        if args.walk is None and pyramids and not args.cell:
            svg = draw_pyramid(space, architecture, pyramids[0], themed=False)
        elif args.walk is None:
            svg = draw_file(space, architecture, args.cell)
        else:
            walks = [choice.name for choice in space if isinstance(choice, Walk) and choice.name in architecture]
            if args.walk not in walks:
                raise ValueError(f"--walk {args.walk!r} is no path of {args.architecture}; it has {', '.join(walks) or 'none'}")
            svg = draw_trellis(space[args.walk], architecture[args.walk], themed=False)
        Path(args.out).write_text(svg, encoding="utf-8")
        print(args.out)
        return 0

    return command.guarded(action)


if __name__ == "__main__":
    sys.exit(main())
