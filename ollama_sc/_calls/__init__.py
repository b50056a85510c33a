"""The life of a request.

`call` is one request: a task with a cancel scope, a phase and an outcome. `group` is the registry
of all that are active, what can be done to all of them, and the tree of groups; `limiter` says how
many may run at once. `observing` is the one place where others are told how calls proceed, the log
and telemetry; `outcome` says in a word how a call ended.

A caller makes a `Call`, a `CallGroup` starts its task, the task runs the work that it was given,
and the caller waits for the outcome.

This room knows neither HTTP nor the API, nor bytes: not `_http`, not `_api`, not `_replies`.
"""
