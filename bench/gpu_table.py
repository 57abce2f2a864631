"""results.json of `python -m bench gpu` as a readable text. What was not measured says so; no cell is made up."""

from __future__ import annotations

from typing import Any

from bench.layers import PASSES
from minunet.contract import ROWS

NOT = "not measured"


def text(results: dict[str, Any]) -> str:
    """All of it."""
    lines = ["minunet on a GPU", ""]
    lines += [f"{key}: {value}" for key, value in results["device"].items()]
    lines += [f"{key}: {value}" for key, value in results.items() if isinstance(value, str)]
    for name, entry in results["sections"].items():
        seconds = entry.get("seconds")
        lines += ["", f"== {name} ({seconds} s)" if seconds is not None else f"== {name}"]
        if "failed" in entry:
            lines.append(f"FAILED: {entry['failed']}")
        found = entry.get("result")
        if isinstance(found, dict) and not found.keys() & {"skipped", "left out"}:
            lines += SECTIONS.get(name, plain)(found)
        elif found is not None:
            lines += plain(found)
    return "\n".join(lines) + "\n"


def plain(found: Any) -> list[str]:
    if not isinstance(found, dict):
        return [str(found)]
    lines = []
    for key, value in found.items():
        if isinstance(value, dict) and "passed" not in found and key != "failed":
            inner = ", ".join(f"{k} {_short(v)}" for k, v in value.items())
            lines.append(f"{key}: {inner}")
        elif key == "failed":
            lines += [f"  FAILED {name}: {said}" for name, said in value.items()]
        else:
            lines.append(f"{key}: {_short(value)}")
    return lines


def _short(value: Any) -> str:
    if isinstance(value, dict) and "median_ms" in value:
        return f"{value['median_ms']:.3f} ms"
    if isinstance(value, dict):
        return "; ".join(f"{k} {_short(v)}" for k, v in value.items())
    return str(value)


def layers(found: dict[str, Any]) -> list[str]:
    """A line for each layer, pass and precision."""
    lines = [f"{key}: {value}" for key, value in found.items() if not key.startswith("batch ")]
    cells = [f"{'layer':10} {'pass':8} {'precision':9} {'step':17} {'error':>9} {'cuDNN err':>9}"]
    cells.append(f"{'ms':>9} {'+-':>5} {'cuDNN ms':>9} {'ratio':>7} {'TFLOP/s':>8} {'GB/s':>7} {'of limit':>8} limit")
    for batch, entries in found.items():
        if not batch.startswith("batch "):
            continue
        lines += ["", batch, " ".join(cells)]
        for name, row in entries.items():
            if isinstance(row, str):
                lines.append(f"{name:10} {row}")
                continue
            if "peer" in row:
                lines.append(f"{name:10} the peer was {row['peer']}")
            for what in PASSES:
                for precision, entry in row[what].items():
                    lines.append(_layer(name, what, precision, entry))
    return lines


def _layer(name: str, what: str, precision: str, entry: dict[str, Any]) -> str:
    start = f"{name:10} {what:8} {precision:9} {entry['step']:17} {entry['error']:9.1e}"
    if "wrong" in entry:
        return f"{start} {entry['wrong']}"
    theirs = f"{entry['peer_error']:9.1e}" if "peer_error" in entry else f"{'-':>9}"
    if not isinstance(entry.get("times"), dict):
        return f"{start} {theirs} {NOT}"
    times = entry["times"]
    peers = [t["median_ms"] for key, t in times.items() if key != "minunet"]
    best, ratio = (f"{min(peers):9.3f}", f"{entry['ratio']:7.2f}") if peers else (f"{'-':>9}", f"{'-':>7}")
    ours = f"{times['minunet']['median_ms']:9.3f} {_noise(times['minunet']):>5}"
    share = f"{entry['share_of_limit']:8.0%} {entry['limit']}" if "limit" in entry else f"{'-':>8}"
    return f"{start} {theirs} {ours} {best} {ratio} {entry['tflops']:8.1f} {entry['gbytes']:7.0f} {share}"


def _noise(times: dict[str, float]) -> str:
    """Half the distance of the quartiles, of the median."""
    return f"{(times['high_ms'] - times['low_ms']) / 2 / times['median_ms']:.0%}"


def memory(found: dict[str, Any]) -> list[str]:
    """A line for each row."""
    rows = {k: v for k, v in found.items() if k in ROWS}
    lines = plain({k: v for k, v in found.items() if k not in rows})
    head = ("ms", "+-", "GB/s", "of copy", "PyTorch ms", "ratio")
    lines += ["", f"{'row':28}" + "".join(f" {cell:>10}" for cell in head)]
    for name, entry in rows.items():
        if isinstance(entry, str) or not isinstance(entry.get("times"), dict):
            lines.append(f"{name:28} {entry if isinstance(entry, str) else entry.get('wrong', NOT)}")
            continue
        ours, theirs = entry["times"]["minunet"], entry["times"].get("PyTorch")
        cells = [f"{ours['median_ms']:.4f}", _noise(ours), f"{entry['gbytes']:.0f}"]
        cells.append(f"{entry['share_of_copy']:.0%}" if "share_of_copy" in entry else "-")
        cells += [f"{theirs['median_ms']:.4f}", f"{entry['ratio']:.2f}"] if theirs else ["-", "-"]
        lines.append(f"{name:28}" + "".join(f" {cell:>10}" for cell in cells))
    return lines


def resources(found: dict[str, Any]) -> list[str]:
    lines = ["computed from the compiler's report, not measured", ""]
    lines.append(
        f"{'step':18} {'tile':22} {'kernel':24} {'arch':8} {'regs':>5} {'spills':>6} {'shared':>7} {'occupancy':>9}"
    )
    for step, by_tile in found.items():
        if isinstance(by_tile, str):
            lines.append(f"{step}: {by_tile}")
            continue
        for tile, kernels in by_tile.items():
            for kernel, by_arch in kernels.items():
                for arch, e in by_arch.items():
                    if isinstance(e, str):
                        lines.append(f"{step:18} {tile:22} {arch:8} {kernel}: {e}")
                        continue
                    numbers = f"{e['registers']:5} {e['spills']:6} {e['shared']:7} {e['occupancy']:9.0%}"
                    lines.append(f"{step:18} {tile:22} {kernel:24} {arch:8} {numbers}")
    return lines


def numba(found: dict[str, Any]) -> list[str]:
    """Both times of each kind of kernel, a row an operation."""
    kinds = ("cuda", "numba", "PyTorch")
    rows = {k: v for k, v in found.items() if k in ROWS}
    lines = plain({k: v for k, v in found.items() if k not in rows and k != "conformance"})
    lines += plain(found["conformance"]) if "conformance" in found else []
    lines += ["", f"{'operation':28} {'error':>9}" + "".join(f" {k + ' us':>11} {k + ' ms':>11}" for k in kinds)]
    for name, entry in rows.items():
        if isinstance(entry, str) or "wrong" in entry:
            lines.append(f"{name:28} {entry if isinstance(entry, str) else entry['wrong']}")
            continue
        error = f"{entry['error']:9.1e}" if "error" in entry else f"{'-':>9}"
        if not isinstance(entry["times"], dict):
            lines.append(f"{name:28} {error} {NOT}")
            continue
        cells = (entry["times"].get(kind) for kind in kinds)
        both = (f" {t['launch_us']:11.1f} {t['kernel_ms']:11.4f}" if t else f" {'-':>11} {'-':>11}" for t in cells)
        lines.append(f"{name:28} {error}{''.join(both)}")
    return [*lines, "", "us: what the host spends on a call; ms: what the device does"]


SECTIONS = {"layers": layers, "cuDNN plans": layers, "memory-bound": memory, "resources": resources, "numba": numba}
