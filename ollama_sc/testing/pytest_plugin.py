"""The fixture's plugin under a longer name: ``-p ollama_sc.testing.pytest_plugin``."""

from ollama_sc_pytest import fake_ollama

__all__ = ["fake_ollama"]
