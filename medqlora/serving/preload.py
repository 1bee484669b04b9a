"""What every inference process imports, so that a process that replaces a crashed one need not import it again."""

import torch  # noqa: F401
import transformers  # noqa: F401

import medqlora.serving.engines.local  # noqa: F401
