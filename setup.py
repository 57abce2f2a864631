"""Only what pyproject.toml cannot say: `kernels/` at the top level is installed as `minunet.kernels`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["minunet", "minunet.*"])],
)
