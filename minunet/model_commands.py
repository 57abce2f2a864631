"""`minunet models info` and `minunet models export`: what a checkpoint holds, and the same for other programs."""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from minunet import checkpoint, models, record
from minunet.errors import UsageError, UserError
from minunet.listing import legal_sizes, parameters

LOGGED = ("step", "seconds", "learning_rate", "loss")  # of a log's row; the rest are scores


def info(path: str) -> int:
    """Print what a checkpoint holds; nothing is loaded into a network. Raises UserError as `checkpoint.load` does."""
    ours, tensors = checkpoint.read(path)
    file = Path(path)
    config, extra = dict(ours["config"]), ours["extra"]
    with models.shapes_only():
        try:
            network = models.build(config.pop("model"), **config)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            wrote = f"minunet {ours['minunet']}, which wrote it"
            raise UserError(f"{path}: its network is not known here ({error}); use {wrote}") from error
    try:
        training = _training(extra)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its record of the training cannot be read ({error!r}); it can predict") from error
    trained, frozen, statistics = parameters(network)
    rows = {
        "network": network.config["model"],
        "paper": network.paper,
        "arguments": _words(config),
        "parameters": f"{trained:,} trained, {frozen:,} frozen, {statistics:,} running statistics",
        "sizes": f"heights and widths: {legal_sizes(network)}; channels: {' or '.join(map(str, network.channels))}",
        **training,
        "optimiser": "kept: the run can be resumed" if _resumable(extra, tensors) else "not kept: for prediction only",
        "written by": _words({"minunet": ours["minunet"], **_mapping(extra.get("versions"))}),
        "written at": datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "file": f"{file.stat().st_size:,} bytes, {len(tensors)} tensors; whole: its checksum holds",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    kept = checkpoint.previous(path)
    if kept.is_file():
        rows["previous"] = f"{kept}{'' if checkpoint.is_whole(kept) else ', which is damaged'}"
    for title, text in rows.items():
        print(textwrap.fill(f"{title:11} {text}", 110, subsequent_indent=" " * 12, break_on_hyphens=False))
    return 0


def _training(extra: Mapping[str, Any]) -> dict[str, str]:
    """What the checkpoint says of its data, its run and its scores; only what is there."""
    rows, data, state = {}, _mapping(extra.get("data")), _mapping(extra.get("state"))
    if data:
        source = str(data.get("source", data.get("name", "unknown")))
        made_up = "SYNTHETIC: " if extra.get("synthetic") and "SYNTHETIC" not in source else ""
        rows["data"] = _safe(f"{made_up}{source}")
    if classes := extra.get("classes"):
        rows["classes"] = ", ".join(f"{k} {_safe(str(name))}" for k, name in enumerate(classes))
    if table := extra.get("labels"):
        from minunet.data.masks import describe

        rows["labels"] = _safe(", ".join(line.strip() for line in describe(table)))
    if "normalise" in extra:
        how = extra["normalise"]
        rows["normalised"] = "each image by itself" if how == "section" else _words(how) if _mapping(how) else str(how)
    if extra.get("displaced"):
        down, right = extra["displaced"]
        rows["images moved"] = f"{-down:+.2f} px down, {-right:+.2f} px to the right: to where the masks lay"
    if extra.get("size"):
        rows["brought to"] = " x ".join(map(str, extra["size"]))
    if "step" in state:
        rows["training"] = f"step {state['step']:,}, {float(state.get('seconds', 0)) / 60:.1f} minutes"
    rows |= _scores(state.get("log") or [])
    if settings := _mapping(extra.get("config")):
        rows["settings"] = _words({k: v for k, v in settings.items() if v not in (None, "", {}, [])})
    if imported := _mapping(extra.get("imported")):
        rows["imported"] = _safe(f"from {imported.get('file')}, matched {imported.get('matched')}")
    return rows


def _scores(log: list[dict[str, Any]]) -> dict[str, str]:
    """The last loss and the last validation."""
    rows = {}
    losses = [row for row in log if "loss" in row]
    if losses:
        rows["loss"] = f"{losses[-1]['loss']:.4f} at step {losses[-1]['step']:,}"
    scored = [(row, {k: v for k, v in row.items() if k not in LOGGED}) for row in log]
    scored = [(row, scores) for row, scores in scored if scores]
    if scored:
        row, scores = scored[-1]
        rows["scores"] = f"{_words(scores)} at step {row['step']:,}"
    return rows


def _resumable(extra: Mapping[str, Any], tensors: Mapping[str, Any]) -> bool:
    return bool(_mapping(extra.get("state"))) and any(name.startswith("optimizer/") for name in tensors)


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _words(values: Mapping[str, Any]) -> str:
    """key value, key value, ...; numbers short."""

    def short(value: Any) -> str:
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(short, value)) + "]"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return _safe(", ".join(f"{key} {short(value)}" for key, value in values.items()))


def _safe(text: str) -> str:
    """A stranger's text without what would move the cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def export(options: Mapping[str, Any]) -> int:
    """Write the ONNX file, the safetensors file or both, and say what is in them."""
    path = options["checkpoint"]
    outs = {kind: Path(options[kind]) for kind in ("onnx", "safetensors") if kind in options}
    if not outs:
        raise UsageError("models export: what to write? Give --onnx FILE, --safetensors FILE, or both")
    for option in "size", "channels":
        if option in options and "onnx" not in outs:
            raise UsageError(f"--{option}: is for --onnx; weights have none")
    for kind, out in outs.items():
        if out.exists() and Path(path).exists() and out.samefile(path):
            raise UsageError(f"--{kind} {out}: is the checkpoint to read; name another file")
    if len(outs) == 2 and len({out.resolve() for out in outs.values()}) == 1:
        raise UsageError(f"--safetensors {options['safetensors']}: is the file of --onnx too; name another one")
    saved = checkpoint.load(path)
    record.check(path, saved.extra, saved.model)
    for kind, write in ("onnx", _onnx), ("safetensors", _safetensors):
        if kind in outs:
            print(f"{outs[kind]}: written; {write(saved, outs[kind], options)}")
    return 0


def _onnx(saved: checkpoint.Checkpoint, out: Path, options: Mapping[str, Any]) -> str:
    from minunet.export import INPUT, OUTPUT, export_onnx

    model, extra = saved.model, saved.extra
    about = {
        key: extra[key] for key in ("classes", "normalise", "displaced", "size", "synthetic", "data") if key in extra
    }
    channels = options.get("channels")
    try:
        h, w = export_onnx(model, out, options.get("size") or _trained_size(saved), channels, about)
    except UserError:
        raise
    except ValueError as error:
        given = " ".join(f"--{key} {_plain(options[key])}" for key in ("size", "channels") if key in options)
        raise UsageError(f"{given}: {error}; legal heights and widths: {legal_sizes(model)}") from error
    oh, ow = model.output_size(h, w)
    c, k = channels or model.channels[-1], model.config["n_classes"]
    return f"{INPUT} (N, {c}, {h}, {w}) -> {OUTPUT} (N, {k}, {oh}, {ow}), float32"


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _trained_size(saved: checkpoint.Checkpoint) -> tuple[int, int] | None:
    """The size of the images in training, where the checkpoint says so and the network takes it."""
    tile = _mapping(saved.extra.get("config")).get("tile")
    size = saved.extra.get("size") or ([tile, tile] if record.whole(tile, 1) else None)
    legal = size is not None and all(saved.model.trace(n) is not None for n in size)
    return tuple(size) if legal else None


def _safetensors(saved: checkpoint.Checkpoint, out: Path, options: Mapping[str, Any]) -> str:
    import safetensors.numpy

    from minunet.files import atomic_write
    from minunet.interop import to_torch

    whose, state = to_torch(saved.model)
    about = {"format": "pt", "names": whose, "network": json.dumps(saved.model.config)}
    data = safetensors.numpy.save(state, metadata=about)
    with atomic_write(out) as temporary:
        temporary.write_bytes(data)
    return f"{len(state)} tensors in PyTorch's layouts, with the names of {whose}"
