"""GGUF: a merged model, or an adapter, in the file format of llama.cpp and Ollama.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""
