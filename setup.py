"""Adds `configs/`, which stands beside the package, to the wheel as `medqlora/configs`.

pyproject.toml can't say it: setuptools takes either `packages.find` or a list with mapped folders, not both.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["medqlora*"]), "medqlora.configs"],
    package_dir={"medqlora.configs": "configs"},
)
