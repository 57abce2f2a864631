"""Arrows go one way: CLI -> models -> nn -> ops -> (tensor, backends) -> contract. Read from the import statements."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minunet
from minunet import backends

PACKAGE = Path(minunet.__file__).parent
EVERYONE = ("errors", "files", "jit")  # they import nothing of the package but one another
MAY_IMPORT = {  # part: what of the package it may import, besides itself
    "contract": (),
    "backends": ("contract",),
    "tensor.py": ("backends",),
    "ops": ("tensor", "backends.call", "backends.owner", "contract"),
    "nn": ("ops", "tensor", "backends"),
    "models": ("nn", "ops", "tensor", "backends"),
    "metrics": (),
}


def imports(source: str, module: str) -> set[str]:
    """Every dotted name that the source of `module` imports, wherever the statement stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            found.update(".".join(filter(None, (*base, node.module, alias.name))) for alias in node.names)
    return found


def within(name: str, parts: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of these parts of minunet, or lies in one."""
    return any(f"{name}.".startswith(f"minunet.{part}.") for part in parts)


def sources(part: str) -> list[Path]:
    path = PACKAGE / part
    return [path] if path.is_file() else sorted(p for p in path.rglob("*.py") if p.name != "__main__.py")  # no commands


def imports_of(part: str) -> set[tuple[str, str]]:
    """(file, dotted name) for each name of this package that a part imports."""
    assert sources(part), f"{part} is gone; correct the list"
    found = set()
    for path in sources(part):
        place = path.relative_to(PACKAGE).with_suffix("")
        names = imports(path.read_text(), ".".join(("minunet", *place.parts)))
        found.update((str(place), name) for name in names if name.split(".")[0] == "minunet")
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_arrows_go_one_way(part):
    allowed = (part.removesuffix(".py"), *MAY_IMPORT[part], *EVERYONE)
    assert [(file, name) for file, name in sorted(imports_of(part)) if not within(name, allowed)] == []


def test_the_judge_and_the_judged_share_no_code():
    others = tuple(f"backends.{name}" for name in backends.installed() if name != "reference")
    assert [found for found in sorted(imports_of("backends/reference")) if within(found[1], others)] == []
    for other in others:
        part = other.replace(".", "/")
        assert [found for found in sorted(imports_of(part)) if within(found[1], ("backends.reference",))] == []


def test_import_of_minunet_is_light():
    """No framework, and no Numba before a kernel is needed: `import minunet` stays quick."""
    code = "import sys, minunet; print(*[m for m in ('torch', 'cupy', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "source",
    [
        "import minunet.ops",
        "import minunet.ops.conv as c",
        "from minunet import ops",
        "from minunet.ops import conv2d",
        "def f():\n    from minunet.ops.conv import conv2d",
        "from ...ops import conv",
        "from ... import ops",
    ],
)
def test_the_import_reader_sees_every_form(source):
    names = imports(source, "minunet.backends.cpu.conv")
    assert any(within(name, ("ops",)) for name in names)
    assert not any(within(name, ("op", "ops.pool", "backends")) for name in names)
