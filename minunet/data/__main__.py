"""`minunet data`: look a folder over, fetch ISBI 2012, or write the synthetic stack as files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from minunet import cli
from minunet.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    p = cli.parser("data", "Look over, fetch or draw training data.")
    commands = p.add_subparsers(dest="command", required=True, metavar="check | download | synthetic")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        c = commands.add_parser(
            name, help=text, description=text, formatter_class=p.formatter_class, allow_abbrev=False
        )
        c.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return c

    c = command("check", "Look a folder of images and masks over, and name the fix for each finding.")
    c.add_argument("folder", metavar="DIR", help="holds images/ and masks/, or cell1.png and cell1_mask.png, ...")
    c.add_argument("--masks", metavar="DIR", help="holds the masks, where they have a folder of their own elsewhere")
    c.add_argument("--labels", default="", metavar="TEXT", help="what masks' values mean: 0=background,255=cell")
    c.add_argument("--instances", action="store_true", help="each cell has its own number in the masks")
    c = command("download", "Fetch a data set into the user's cache, for research and non-commercial use.")
    names = "isbi: ISBI 2012, 23 MB; hela: DIC-C2DH-HeLa; u373: PhC-C2DH-U373"
    c.add_argument("dataset", nargs="?", default="isbi", choices=("isbi", "hela", "u373"), help=names)
    c = command("synthetic", "Write a drawn stack of membranes under ISBI 2012's file names.")
    c.add_argument("folder", metavar="DIR", help="an existing folder to write to")
    c.add_argument("--sections", type=int, default=30, help="sections of the stack")
    c.add_argument("--size", type=int, default=512, help="height and width of a section in pixels")
    c.add_argument("--seed", type=int, default=0, help="another number gives another stack")

    options = p.parse_args(argv)
    if options.command == "check":
        return check(options.folder, options.masks, options.labels, options.instances)
    if options.command == "download":
        return download() if options.dataset == "isbi" else download_challenge(options.dataset)
    return synthetic(Path(options.folder), options.sections, options.size, options.seed)


def check(folder: str, masks: str | None, labels: str, instances: bool) -> int:
    """Print what the folder holds and what is wrong; 1 if anything must be mended before training."""
    from minunet.data.check import check_folder

    report = check_folder(folder, progress=True, labels=labels, instances=instances, masks=masks)
    names = [str(entry.path if masks else entry.path.relative_to(folder)) for entry in report.entries]
    width = max(map(len, names))
    for entry, name in zip(report.entries, names):
        print(f"{'mask ' if entry.mask else 'image'}  {name:<{width}}  {entry.facts or 'cannot be read'}")
    if report.pairs:
        print("paired by name:")
        for line in report.pairing.lines()[: report.pairs]:
            print(line)
    if report.labels:
        print("labels:")
        for line in report.labels:
            print(line)
    for finding in sorted(report.findings, key=lambda f: not f.problem):
        print(f"{'PROBLEM' if finding.problem else 'note'}: {finding.text}")
    notes = len(report.findings) - report.problems
    print(f"files: {len(names)}  pairs: {report.pairs}  problems: {report.problems}  notes: {notes}")
    return 1 if report.problems else 0


def download() -> int:
    from minunet.data.download import PIXELS_SHA256, DownloadError, download_isbi
    from minunet.files import cache_folder

    folder = cache_folder() / "isbi2012"
    if all((folder / name).exists() for name in PIXELS_SHA256):
        print(f"{folder}: is there already; delete it to fetch it again")
        return 0
    try:
        address = download_isbi(folder)
    except DownloadError as error:
        raise UserError(f"ISBI 2012: {error}; copy the files from elsewhere to {folder}") from error
    print(f"{folder}: ISBI 2012 from {address}; non-commercial use, cite doi:10.1371/journal.pbio.1000502")
    return 0


def download_challenge(name: str) -> int:
    from minunet.data.download import DownloadError
    from minunet.data.hela import NAMES, download_hela
    from minunet.files import cache_folder

    folder = cache_folder() / NAMES[name]
    if folder.exists():
        print(f"{folder}: is there already; delete it to fetch it again")
        return 0
    try:
        folder, address = download_hela(name)
    except DownloadError as error:
        raise UserError(f"{NAMES[name]}: {error}; or copy the folder from elsewhere to {folder}") from error
    print(f"{folder}: {NAMES[name]} from {address}; cite doi:10.1038/nmeth.4473")
    return 0


def synthetic(folder: Path, sections: int, size: int, seed: int) -> int:
    from minunet.data.images import write_tiff
    from minunet.data.isbi import IMAGES, LABELS
    from minunet.data.synthetic import synthetic_membranes

    if seed < 0:
        raise UserError(f"--seed {seed}: must be 0 or more")
    for name in (IMAGES, LABELS):
        if (folder / name).exists():
            raise UserError(f"{folder / name}: exists; name another folder, so that no real data is written over")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; name another folder") from error
    images, labels = synthetic_membranes(sections, size, seed)
    write_tiff(folder / IMAGES, images)
    write_tiff(folder / LABELS, labels * 255)
    print(f"{folder}: {sections} SYNTHETIC sections of {size} x {size}, drawn from seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
