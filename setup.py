"""Only what pyproject.toml cannot say: `kernels/` at the top level is installed as `minunet.kernels`."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# Every folder of kernels/ is a package of its own: its files are data, found by their path beside the code.
FOLDERS = [ROOT / "kernels", *sorted(p for p in (ROOT / "kernels").rglob("*") if p.is_dir() and p.name[0] not in "_.")]
KERNELS = {".".join(("minunet", *p.relative_to(ROOT).parts)): p.relative_to(ROOT).as_posix() for p in FOLDERS}

setup(
    packages=[*find_packages(include=["minunet", "minunet.*"]), *KERNELS],
    package_dir=KERNELS,
    package_data={name: ["*.cu", "*.cuh", "*.h", "*.md"] for name in KERNELS},
)
