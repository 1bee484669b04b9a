"""Safety: fixed replies to emergencies and harmful requests, and the note that every answer ends with."""

from medqlora.safety.note import NOTE, check_note
from medqlora.safety.screen import SafeReply, screen

__all__ = ["NOTE", "SafeReply", "check_note", "screen"]
