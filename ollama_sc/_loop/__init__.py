"""What both event loops need done differently, and what anyio's own costs too much for.

`primitives` has events and shielded scopes made of the loop's own means, `trio_event` those of
trio, `task_group` the loop's own task group, `shielding` the waits that a cancellation around them
does not end, `holder` a task that holds something open between two places of a program. `signals`
hears the process's signals beside whoever handles them, `threads` is for what blocks, `webloop` for
the deadlines of Pyodide's event loop.

This room knows nothing of requests.
"""
