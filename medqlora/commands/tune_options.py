"""What a search is, as plain values."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from medqlora.config.space import Dimension
from medqlora.config.words import CONFIG_OPTIONS, CommandLine

STUDY, PAGE, BEST = "study.db", "report.html", "best.yaml"


@dataclass(frozen=True)
class Search:
    """A search for options of a fit.

    Attributes:
        words: options of each fit.
        space: option → values to try.
        trials: fits in all.
        metric: the validation score.
        out: folder of the search.
        prune: whether a trial that falls behind ends early.
        seed: of the drawn values.
    """

    words: tuple[str, ...]
    space: Mapping[str, Dimension]
    trials: int
    metric: str
    out: Path
    prune: Literal["median", "none"] = "median"
    seed: int = 0

    def definition(self) -> dict[str, str]:
        """What makes two searches the same: their trials can be compared."""
        line = CommandLine.parse(self.words)
        configs = [hashlib.sha256(Path(name).expanduser().read_bytes()).hexdigest() for name in line.configs]
        others = line.without("config", "c").words
        space = {name: [type(one).__name__, asdict(one)] for name, one in sorted(self.space.items())}
        return {
            "--metric": self.metric,
            "--space": json.dumps(space),
            "the options of the fit": json.dumps([*configs, *others]),
        }

    def next_fit(self) -> str:
        """The command that fits with the best options, and the search's other ones."""
        line = CommandLine.parse(self.words)
        configs = [word for name in (*line.configs, str(self.out / BEST)) for word in ("--config", name)]
        return shlex.join(["medqlora", "fit", *configs, *line.without(*CONFIG_OPTIONS, *self.space).words])

    def folder(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.out / "trials" / f"{number:04d}"
