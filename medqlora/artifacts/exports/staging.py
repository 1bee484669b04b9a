"""The output of an export while it is made: a hidden folder that is renamed at the end, or removed."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from medqlora.artifacts.output import check_output
from medqlora.config.exports import REPORT_FILE, REPORT_PAGE
from medqlora.utils.files import write_text


class Staging:
    """A hidden folder beside the output.

    Args:
        out: file that ends with `suffix`, or a folder; it does not exist, or is an empty folder.
        suffix: ending of an output that is a file; None where the output is always a folder.

    Attributes:
        folder: the hidden folder.

    Raises:
        InputError: the output exists.
    """

    def __init__(self, out: Path, suffix: str | None = ".gguf") -> None:
        self.out = out
        self.is_file = suffix is not None and out.suffix == suffix
        check_output(out, suffix)
        self.folder = out.with_name(f".{out.name}.exporting")

    def begin(self) -> None:
        """Makes the hidden folder; what a killed process left in it is removed."""
        self.discard()
        self.folder.mkdir(parents=True)

    @property
    def gguf(self) -> Path:
        """The GGUF file in the hidden folder."""
        return self.folder / (self.out.name if self.is_file else "model.gguf")

    def finish(self, report: Mapping[str, object], page: str) -> Path:
        """Writes the report and its page, and puts the output in its place; the page's path.

        Args:
            report: as JSON values.
            page: the report as HTML.
        """
        write_text(self.folder / REPORT_FILE, json.dumps(report, indent=2) + "\n")
        write_text(self.folder / REPORT_PAGE, page)
        if not self.is_file:
            if self.out.exists():
                self.out.rmdir()
            self.folder.rename(self.out)
            return self.out / REPORT_PAGE
        for name in (REPORT_FILE, REPORT_PAGE):
            (self.folder / name).replace(self.out.with_name(f"{self.out.stem}.{name}"))
        for beside in self.folder.glob("mmproj-*.gguf"):
            beside.replace(self.out.with_name(beside.name))
        self.gguf.replace(self.out)
        self.discard()
        return self.out.with_name(f"{self.out.stem}.{REPORT_PAGE}")

    def discard(self) -> None:
        """Removes the hidden folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
