"""Options that the module receives from others of the command; only a run's own `config.yaml` has them twice."""

from medqlora.config.files import ConfigFile
from medqlora.config.origin import Place
from medqlora.errors import InputError

#: what the module receives → the option that is given
LINKED = {"model.compare_base": "compare_base"}


def check_linked(config: ConfigFile) -> None:
    """Refuses a value that would be replaced by the option's own, and so do nothing.

    Raises:
        InputError: a configuration has it without the option itself.
    """
    entries = config.root.entries or {}
    for received, option in LINKED.items():
        group, name = received.split(".")
        parts = entries[group].entries if group in entries else None
        if parts and name in parts and option not in entries:
            place = Place(config.name).at(parts[name])
            raise InputError(
                f"{place.of(received)}: without effect there: write {option}: … at the top level, not under {group}"
            )
