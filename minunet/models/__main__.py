"""`minunet models`: the family's table, a network's layers, checkpoints, weights from and to other files."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minunet import cli
from minunet.errors import UsageError, UserError

if TYPE_CHECKING:
    from minunet.interop import Match
    from minunet.models import Network

NONE = argparse.SUPPRESS  # left out is left out: the help then shows no default
LISTED = 20  # tensors that are named before "and 17 more"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = vars(_parser().parse_args(argv))
    if options["command"] in ("info", "export"):
        from minunet import model_commands as work

        return work.info(options["checkpoint"]) if options["command"] == "info" else work.export(options)
    if options["command"] == "show":
        return show(options["name"], options.get("size"), _arguments(options))
    if options["command"] == "import":
        return take_in(Path(options["file"]), options)
    return table()


def _parser() -> argparse.ArgumentParser:
    p = cli.parser("models", "List the networks (without a command), show one's layers, read and convert weights.")
    commands = p.add_subparsers(dest="command", metavar="show | info | import | export")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        c = commands.add_parser(
            name, help=text, description=text, formatter_class=p.formatter_class, allow_abbrev=False
        )
        c.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return c

    c = command("show", "The layers with their output sizes, parameters, work and memory; nothing is computed.")
    c.add_argument("name", metavar="NAME", help="a network: minunet models lists them")
    c.add_argument(
        "--size", type=int, nargs=2, default=NONE, metavar=("H", "W"), help="of the image; its paper's if left out"
    )
    _network_options(c)
    c = command("info", "What a checkpoint holds: network, data, training, scores; whether it is whole.")
    c.add_argument("checkpoint", metavar="CHECKPOINT", help="file that minunet has written")
    _import_options(
        command("import", "Fill a network from a .pth, .pt or .safetensors file and write a checkpoint of it.")
    )
    _export_options(command("export", "Write a checkpoint's network for other programs."))
    return p


def _import_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("file", metavar="FILE", help="weights; a pickle inside is read without running it")
    c.add_argument("--model", required=True, default=NONE, metavar="NAME", help="the network to fill")
    c.add_argument("--out", default=NONE, metavar="CHECKPOINT", help="file to write; NAME.safetensors if left out")
    c.add_argument("--encoder", action="store_true", help="fill only its VGG16 or ResNet, from torchvision's names")
    c.add_argument("--seed", type=int, default=0, help="of the weights that the file does not have")
    _network_options(c)


def _export_options(c: argparse.ArgumentParser) -> None:
    c.add_argument("checkpoint", metavar="CHECKPOINT", help="file that minunet has written")
    c.add_argument(
        "--onnx", default=NONE, metavar="FILE", help="network and weights, for ONNX Runtime, OpenVINO, TensorRT, ..."
    )
    c.add_argument("--safetensors", default=NONE, metavar="FILE", help="weights, in PyTorch's names and layouts")
    c.add_argument(
        "--size", type=int, nargs=2, default=NONE, metavar=("H", "W"), help="of --onnx's images; as trained if left out"
    )
    c.add_argument(
        "--channels", type=int, default=NONE, metavar="C", help="of --onnx's images, if the network takes several"
    )


def _network_options(c: argparse.ArgumentParser) -> None:
    c.add_argument(
        "--in-channels", type=int, default=NONE, metavar="N", help="channels of an image; its paper's if left out"
    )
    c.add_argument("--classes", type=int, default=NONE, metavar="K", help="classes; its paper's if left out")
    c.add_argument(
        "--width", type=int, default=NONE, metavar="W", help="channels of the first level; its paper's if left out"
    )
    c.add_argument(
        "--arg", action="append", default=NONE, metavar="KEY=VALUE", help="any argument of the network: form=article"
    )


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """What the network is to be built with, of what was given."""
    named = {"in_channels": "in_channels", "classes": "n_classes", "width": "width"}
    arguments = {named[option]: options[option] for option in named if option in options}
    for text in options.get("arg", []):
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--arg {text}: cannot be read; write KEY=VALUE, such as form=article")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            arguments[key] = value  # a word, such as a form's name
    return arguments


def _built(name: str, arguments: dict[str, Any]) -> Network:
    """The network, or UsageError for a name or argument that is not known."""
    from minunet import models

    try:
        return models.build(name, **arguments)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def table() -> int:
    """Print the family: what each network is called, how large it is, which images it takes."""
    from minunet.listing import legal_sizes, totals
    from minunet.models import shapes_only
    from minunet.models.variants import VARIANTS

    head = ("network", "name and arguments", "parameters", "frozen", "GMAC", "image", "output", "sizes", "context")
    rows = [(*head, "paper")]
    for v in VARIANTS:
        with shapes_only():
            model = _built(v.name, v.arguments)
        h, w = v.image[:2]
        sums = totals(model, (h, w))
        margin = max(model.margin(h, w)) if sums.output[1:3] < (h, w) else 0
        special = (f" {k}={a}" for k, a in v.arguments.items() if k not in ("in_channels", "n_classes"))
        counts = f"{sums.parameters:,}", f"{sums.frozen:,}", f"{sums.multiplied / 2e9:.2f}"
        sizes = f"{h}x{w}x{v.image[2]}", "x".join(map(str, sums.output[1:])), legal_sizes(model)
        rows.append((v.title, v.name + "".join(special), *counts, *sizes, str(margin), type(model).paper))
    _print_columns(rows, "<<>>><<<><")
    print("\nGMAC: multiply-accumulates of convolutions and products, one image. context: pixels lost on each side.")
    print("minunet models show NAME lists a network's layers; sizes that a network does not take are padded.")
    return 0


def show(name: str, size: Sequence[int] | None, arguments: dict[str, Any]) -> int:
    """Print a network's layers for one image."""
    from minunet.listing import legal_sizes, lines, totals
    from minunet.models import shapes_only
    from minunet.models.variants import VARIANTS

    with shapes_only():
        model = _built(name, arguments)
    h, w = size or next(v.image[:2] for v in VARIANTS if v.name == name)
    try:
        if min(h, w) < 1:
            raise ValueError(f"{h} x {w} is no size of an image")
        model.output_size(h, w)
    except ValueError as error:
        raise UsageError(f"--size {h} {w}: {error}; legal heights and widths: {legal_sizes(model)}") from error
    rows = [("layer", "what", "output", "parameters", "MFLOP", "MiB")]
    found = lines(model, (h, w))
    for line in found:
        output = "x".join(map(str, line.shape[1:])) or "(training only)"
        cells = f"{line.parameters:,}" if line.parameters else "", f"{line.flops / 1e6:,.2f}" if line.flops else ""
        rows.append((line.name, line.what, output, *cells, f"{line.nbytes / 2**20:.2f}" if line.nbytes else ""))
    _print_columns(rows, "<<<>>>")
    sums = totals(model, (h, w))
    print(f"\n{name}: {type(model).__doc__.splitlines()[0]}")
    print(f"paper       {type(model).paper}")
    print(
        f"image       {h} x {w} x {model.channels[-1]} -> {' x '.join(map(str, sums.output[1:]))}; {legal_sizes(model)}"
    )
    print(f"parameters  {sums.parameters:,} trained, {sums.frozen:,} frozen, {sums.statistics:,} running statistics")
    print(f"work        {sums.multiplied / 2e9:,.2f} GMAC in convolutions and products, {sums.flops / 1e9:,.2f} GFLOP")
    weights = 4 * (sums.parameters + sums.frozen + sums.statistics) / 2**20
    largest = max(found, key=lambda line: line.nbytes)
    print(
        f"memory      {weights:,.1f} MiB weights; {sum(line.nbytes for line in found) / 2**20:,.1f} MiB outputs of all"
        f" lines, the largest {largest.nbytes / 2**20:,.1f} MiB ({largest.name or name} {largest.what}); float32"
    )
    return 0


def take_in(file: Path, options: dict[str, Any]) -> int:
    """Fill a network from a file, say what went where, and write the checkpoint."""
    from minunet import checkpoint
    from minunet.interop import fill, match
    from minunet.models import shapes_only
    from minunet.weightfile import read_weights

    name = options["model"]
    out = Path(options.get("out", f"{name}.safetensors"))
    if out.exists() and "out" not in options:
        raise UserError(f"{out}: exists; name the file to write with --out")
    if out.exists() and file.exists() and out.samefile(file):
        raise UserError(f"--out {out}: is the file to read; name another one")
    arguments = {"seed": options["seed"], **_arguments(options)}
    with shapes_only():  # a file that does not fit is refused before 250 million weights are drawn
        shapes = _built(name, arguments)
    state, ordered = read_weights(file)
    try:
        found = match(shapes, state, options["encoder"], ordered)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    if not found.fits:
        cause = f"{found.misfits[0]}" if found.misfits else "none of its tensors has a place there"
        raise UserError(f"{file}: does not fit {name}: {cause}")
    model = _built(name, arguments)
    fill(model, found)
    report(file, found, state)
    imported = {"file": file.name, "matched": found.how, "kept": [*found.kept, *(m.ours for m in found.misfits)]}
    checkpoint.save(out, model, extra={"imported": imported}, keep_previous=False)
    print(f"{out}: written")
    return 0


def report(file: Path, found: Match, state: dict[str, Any]) -> None:
    """Print what was matched, and list what was not."""
    from minunet.torchpickle import printable

    numbers = sum(value.size for value in found.values.values())
    print(f"{file}: {len(found.source)} tensors with {numbers:,} numbers matched {found.how}")
    listed = {
        "does not fit, so left as it was": [str(m) for m in found.misfits],
        "bias that the file does not have, set to zero": found.zeros,
        "not in the file, left as it was": found.kept,
        "in the file, not used": [f"{printable(name)} {state[name].shape}" for name in found.unused],
    }
    for what, names in listed.items():
        for name in names[:LISTED]:
            print(f"  {what}: {name}")
        if len(names) > LISTED:
            print(f"  {what}: and {len(names) - LISTED} more")


def _print_columns(rows: list[tuple[str, ...]], sides: str) -> None:
    """Print rows under each other, each column as wide as it must be; `sides`: < or > for each column."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(sides))]
    for row in rows:
        print("  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths)).rstrip())


if __name__ == "__main__":
    sys.exit(cli.run(main))
