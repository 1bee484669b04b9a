"""The engines, a file each. They are built inside an inference process, and import what they need there."""

from medqlora.serving.engine import Engine, EngineSpec


def build_engine(spec: EngineSpec) -> Engine:
    """The engine that `spec` names, with its models loaded.

    Raises:
        InputError: a model can't be loaded, or a package is missing.
    """
    if spec.engine == "vllm":
        from medqlora.serving.engines.vllm import VLLMEngine

        return VLLMEngine.start(spec)
    if spec.engine == "llama.cpp":
        from medqlora.serving.engines.llama_cpp import LlamaCppEngine

        return LlamaCppEngine.start(spec)
    from medqlora.serving.engines.local import LocalEngine

    return LocalEngine.start(spec)
