"""Decoder families of the fused engine, one file each; a file registers its family in `FAMILIES`.

Families outside this package register through the entry-point group "medqlora.fused_families", or through a module
named in `MEDQLORA_PLUGINS`.
"""

from importlib import import_module
from pkgutil import iter_modules

from medqlora.fused.families.base import FAMILIES, Family, layer_windows

__all__ = ["FAMILIES", "Family", "layer_windows"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
