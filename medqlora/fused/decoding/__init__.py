"""Decoding with the fused engine: a key-value cache, one new token a row and pass, rows with different adapters."""

from medqlora.fused.decoding.adapters import AdapterBank
from medqlora.fused.decoding.cache import KeyValueCache
from medqlora.fused.decoding.decode_pass import DecodePass

__all__ = ["AdapterBank", "DecodePass", "KeyValueCache"]
