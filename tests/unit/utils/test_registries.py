"""Registries take entries from this package, from entry points and from modules named in the environment."""

from pathlib import Path

import pytest

from medqlora.errors import InputError
from medqlora.utils.registry import PLUGINS, Registry


def test_entries_keep_their_order_and_an_unknown_name_gives_none() -> None:
    registry: Registry[int] = Registry("number", "medqlora.tests")
    registry.add("two", 2)
    registry.add("one", 1)
    assert registry.names() == ("two", "one")
    assert (registry.get("one"), registry.get("three")) == (1, None)


def test_a_name_that_is_taken_is_refused_and_the_same_entry_is_not() -> None:
    registry: Registry[str] = Registry("word", "medqlora.tests")
    registry.add("a", "b")
    registry.add("a", "b")
    with pytest.raises(ValueError, match="word 'a' is registered twice"):
        registry.add("a", "c")


def test_a_module_named_in_the_environment_registers_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "registry_plugin.py").write_text(
        "from registry_host import REGISTRY\nREGISTRY.add('toy', 7)\n"
    )
    (tmp_path / "registry_host.py").write_text(
        "from medqlora.utils.registry import Registry\nREGISTRY = Registry('number', 'medqlora.tests')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(PLUGINS, "registry_plugin")
    from registry_host import REGISTRY  # type: ignore[import-not-found]

    assert REGISTRY.get("toy") == 7


def test_a_plugin_that_is_not_there_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLUGINS, "no_such_plugin")
    with pytest.raises(InputError, match=r"MEDQLORA_PLUGINS=no_such_plugin: it can't be imported"):
        Registry("number", "medqlora.tests").names()


def test_the_modules_of_a_registrys_own_package_register_themselves_without_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "registry_room"
    (package / "nested").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "nested" / "__init__.py").write_text("1 / 0\n")
    (package / "base.py").write_text(
        "from medqlora.utils.registry import Registry\n"
        "REGISTRY = Registry('number', 'medqlora.tests', __package__)\n"
    )
    for name, value in (("b_two", 2), ("a_one", 1)):
        (package / f"{name}.py").write_text(f"from .base import REGISTRY\nREGISTRY.add('{name}', {value})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(PLUGINS, raising=False)
    from registry_room.base import REGISTRY  # type: ignore[import-not-found]

    assert REGISTRY.built_in() == {"a_one": 1, "b_two": 2}
    assert REGISTRY.names() == ("a_one", "b_two")
