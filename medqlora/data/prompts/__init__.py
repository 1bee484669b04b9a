"""Prompts: how a record is put to a model. A file here with one registered subclass of `Prompt` adds one."""

from medqlora.data.prompts.by_name import lookup, prompt_names
from medqlora.data.prompts.prompt import PROMPTS, Frame, Prompt
from medqlora.data.prompts.template import TemplatePrompt

__all__ = ["PROMPTS", "Frame", "Prompt", "TemplatePrompt", "lookup", "prompt_names"]
