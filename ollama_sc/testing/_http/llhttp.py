"""llhttp's parser, or what to say where there is none."""

try:
    import httptools
except ImportError as error:
    raise ImportError(
        "the fake server (ollama_sc.testing, the fixture fake_ollama) listens on a socket, and "
        "reads requests with httptools, which is not here. A browser has neither: run "
        "`python -m ollama_sc.testing` outside of it, and give its URL to the client"
    ) from error

__all__ = ["httptools"]
