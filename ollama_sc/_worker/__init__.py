"""An event loop in a thread, for callers that have none: blocking clients and embedders.

`thread` has the thread, and how calls get into its event loop and back; `owner` what has such a
thread: it starts with the first call, and ends by `close`, when its owner is collected, or when the
program ends; `processes` what becomes of all of them in a forked process and at a process's exit.

This room knows nothing of requests. Threads are started here and nowhere else (but for files, which
anyio reads in threads, and name lookups).
"""
