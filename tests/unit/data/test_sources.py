"""Every source in the package registers itself, and has its class path in `medqlora.data`."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import medqlora.data
from medqlora.data import SOURCES, Source
from medqlora.data.sources import source


def below(kind: type[Source]) -> set[type[Source]]:
    """All subclasses."""
    return {each for one in kind.__subclasses__() for each in (one, *below(one))}


def test_every_source_of_the_package_is_registered_under_its_class_name() -> None:
    concrete = {
        kind.__name__: kind
        for kind in below(Source)
        if kind.__module__.startswith("medqlora.data.sources.") and not inspect.isabstract(kind)
    }
    assert SOURCES.built_in() == concrete
    for name, kind in concrete.items():
        assert getattr(medqlora.data, name) is kind
        assert name in medqlora.data.__all__


def test_type_checkers_see_the_sources_that_are_registered() -> None:
    tree = ast.parse(Path(str(medqlora.data.__file__)).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {name: kind.__module__ for name, kind in SOURCES.built_in().items()}


def test_each_source_file_opens_with_its_origin_and_one_row() -> None:
    for kind in SOURCES.built_in().values():
        opening = ast.get_docstring(ast.parse(Path(inspect.getfile(kind)).read_text("utf-8"))) or ""
        assert "Source: " in opening
        assert "    " in opening, f"{kind.__module__}: no example"


def test_the_data_package_needs_nothing_heavy() -> None:
    heavy = "'torch', 'lightning', 'transformers', 'datasets', 'numpy', 'scipy'"
    code = f"import sys, medqlora.data; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_class_paths_of_the_package_are_short_and_importable() -> None:
    names = source.source_names()
    assert {f"medqlora.data.{name}" for name in SOURCES.built_in()} <= set(names)
    for path in names:
        module, _, name = path.rpartition(".")
        assert inspect.isclass(getattr(sys.modules[module], name))
