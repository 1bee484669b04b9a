"""`medqlora index eval` and `medqlora index bench`."""


def run_eval(words: list[str]) -> int:
    raise NotImplementedError


def run_bench(words: list[str]) -> int:
    raise NotImplementedError
