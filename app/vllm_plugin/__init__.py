"""A plugin for `vllm serve`: the guard inside a deployment of vLLM's own server."""
