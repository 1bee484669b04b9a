"""`medqlora doctor`: the installed packages, what works on this machine, and whether a fit would start."""

import argparse
import contextlib
import io
import json

from medqlora.commands.arguments import Parser
from medqlora.commands.diagnosis.finding import Finding, first_line
from medqlora.commands.diagnosis.folders import folders
from medqlora.commands.diagnosis.hardware import devices
from medqlora.commands.diagnosis.hub import hub
from medqlora.commands.diagnosis.selftests import attention, bitsandbytes
from medqlora.commands.diagnosis.trial import Trial
from medqlora.commands.diagnosis.versions import malicious, versions
from medqlora.commands.registry import Command
from medqlora.compat.argparse import option_names
from medqlora.config.words import config_files, with_config
from medqlora.utils.progress import phase

COMMAND = Command(
    "doctor", "what is installed, what works here, and whether a fit would start", also=("check",), rank=90
)

_EXAMPLES = """examples:
  medqlora doctor                                      would the demo start here?
  medqlora doctor --config configs/qlora.yaml          would the experiment?
  medqlora doctor --hub                                is the Hub reachable, too?
  medqlora doctor --json > doctor.json                 to send with a question

Each line is ok, a note (nothing that keeps a fit from starting), or wrong, and then says the fix. The exit
code is 0 when a fit with this configuration would start, and 1 when it would not.

Options, model, tokenizer and questions are read as `medqlora fit` reads them, without the weights. So what the
configuration names on the Hub is asked there, and questions that aren't in the cache are fetched; otherwise
no network is used. No run's folder is made, and the demo's base isn't built.
"""


def parser() -> argparse.ArgumentParser:
    """The command's own options; it takes all of `fit`'s too."""
    made = Parser(
        "doctor",
        "Looks at versions, GPU, driver, attention, bitsandbytes, folders and the configuration, and says\n"
        "what is wrong and the fix. Every option of `medqlora fit` may follow.",
        _EXAMPLES,
    )
    made.add_argument(
        "--config", action="append", metavar="FILE", help="a fit's configuration (default: the demo's)"
    )
    made.add_argument("--hub", action="store_true", help="ask the Hub whether it answers, for 3 s at most")
    made.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    return made


def run(command: str, words: list[str]) -> int:
    """Raises InputError for a mistyped option, or a configuration that isn't there."""
    options, rest = parser().parse_known_args(words)
    rest = [*(f"--config={name}" for name in options.config or ()), *rest]
    with contextlib.redirect_stdout(io.StringIO()):  # it announces the demo, and nothing is run
        rest = with_config(rest)
    with phase("Checking this machine and the fit"):
        found = diagnosed(rest, ask_hub=options.hub)
    starts = all(finding.state != "wrong" for finding in found)
    configs = config_files(rest)
    if options.json:
        report = {"starts": starts, "configs": configs, "findings": [finding._asdict() for finding in found]}
        print(json.dumps(report), flush=True)
    else:
        print("\n".join([*_lines(found), "", _verdict(found, configs)]), flush=True)
    return 0 if starts else 1


def diagnosed(words: list[str], *, ask_hub: bool = False) -> list[Finding]:
    """The findings on this machine and on a fit with `words`.

    Args:
        words: a fit's options.
        ask_hub: also ask the Hub where the configuration doesn't need it.

    Raises:
        InputError: `words` has a mistyped option.
    """
    if (bad := malicious()) is not None:  # its import alone may do harm
        what = "not looked at: a malicious release is installed"
        return [*versions(), Finding("fit", "configuration", "wrong", what, f"remove {bad} first")]
    trial = Trial(option_names(parser()))
    trial.run(words)  # first: Unsloth has to be imported before what the checks import
    found = versions(trial.needs)
    try:
        import torch
    except Exception as error:  # a library of its own is missing: an ImportError, or the loader's OSError
        fix = "install torch again (https://pytorch.org/get-started/locally)"
        found.append(Finding("device", "torch", "wrong", f"it can't be imported ({first_line(error)})", fix))
    else:
        own = trial.device or torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        found += devices(needed=own.type == "cuda")
        # a GPU that this configuration doesn't use is checked too
        seen = torch.device("cuda", 0) if own.type == "cpu" and torch.cuda.is_available() else own
        try:
            found += attention(seen, trial.attention, needed=seen == own)
        except Exception as error:  # the engine imports Triton where it is installed, which may be broken
            fix = "install torch and triton again, of versions that belong together"
            found.append(Finding("attention", "engine", "wrong", first_line(error), fix))
        found += bitsandbytes(own)
        if seen != own:
            found += bitsandbytes(seen, needed=False)
    found += folders(trial)
    if trial.hub is not None:
        found.append(trial.hub)
    elif ask_hub:
        found.append(hub(needed=False))
    else:
        found.append(Finding("Hub", "Hub", "note", "not asked (--hub asks it)"))
    return found + trial.findings


# ---- what is printed ---------------------------------------------------------------------------------


def _lines(found: list[Finding]) -> list[str]:
    """The findings with a heading a group, in aligned columns."""
    width = max(len(finding.name) for finding in found)
    lines: list[str] = []
    for group in dict.fromkeys(finding.group for finding in found):
        lines += ["", group]
        for finding in found:
            if finding.group == group:
                lines.append(f"  {finding.state:<5}  {finding.name:<{width}}  {finding.found}")
                if finding.fix is not None:
                    lines.append(f"  {'':<5}  {'':<{width}}  fix: {finding.fix}")
    return lines[1:]


def _verdict(found: list[Finding], configs: list[str]) -> str:
    fit = " ".join(["medqlora fit", *(f"--config {name}" for name in configs)])
    wrong = [finding.name for finding in found if finding.state == "wrong"]
    if not wrong:
        return f"`{fit}` would start."
    return f"`{fit}` would not start. Wrong: {', '.join(dict.fromkeys(wrong))}."
