"""Jobs for callers without an event loop: each embedder has one in a thread.

`embedder` is what users call. It takes the texts out of `columns`, and passes them to `thread`,
whose event loop and clients stay open from one call to the next; so does the state of the servers
(`shared_servers`). `pickling` keeps one copy of each embedder that is unpickled in a process. The
thread itself, how it ends, and what a fork does to it is in `ollama_sc._worker`, for blocking
clients as well.
"""
