"""DARTS-style genotypes to architecture files and back.

python tools/genotype.py GENOTYPE.txt -o architecture.json    the text Genotype(normal=[...], ...) that search logs print
python tools/genotype.py architecture.json                     prints that text
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EXIT_CODES = "exit codes: 0 success, 2 a mistake in the options or the file, said in one sentence"


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="a text file with a genotype (- reads it from standard input), or an architecture .json")
    parser.add_argument("-o", "--out", metavar="ARCH.json", help="where to write the architecture of a genotype")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from backbones import CellNet
    from backbones.genotype import from_genotype, to_genotype
    from search.engine import command
    from search.space import load, save
    from search.supernet import record

    def export() -> int:
        if args.out:
            raise ValueError(f"--out {args.out} goes with a genotype; an architecture's genotype is printed")
        genotype = to_genotype(load(args.file).parts["backbone"].architecture)
        print(f"Genotype({', '.join(f'{name}={value}' for name, value in genotype.items())})")
        return 0

    def action() -> int:
        if args.file.endswith(".json"):
            return export()
        if not args.out:
            raise ValueError("a genotype's architecture needs a file to be written to: give -o ARCH.json")
        text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text(encoding="utf-8")
        architecture = from_genotype(text)
        nodes = sum(name.startswith("normal/") and name.endswith("/inputs") for name in architecture)
        space = record(lambda: CellNet(nodes=nodes)).space
        space.check(architecture)
        save(args.out, {"backbone": (space, architecture)}, {"genotype": to_genotype(architecture)})
        print(args.out)
        return 0

    return command.guarded(action)


if __name__ == "__main__":
    sys.exit(main())
