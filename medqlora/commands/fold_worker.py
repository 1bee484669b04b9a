"""`python -m medqlora.commands.fold_worker GROUP FOLD OPTIONS…`: one fold of a cross-validation in its own process."""

import sys

if __name__ == "__main__":
    from medqlora.commands.fold_training import worker

    sys.exit(worker(sys.argv[1:]))
