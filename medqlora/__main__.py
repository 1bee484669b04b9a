"""`python -m medqlora` is the `medqlora` command."""

from medqlora.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
