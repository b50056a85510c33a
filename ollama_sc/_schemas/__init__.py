"""Python's types as JSON schemas, and JSON as values of these types; no I/O.

`forms` makes schemas of types and values of JSON, with `models` for those of pydantic. `narrow`
cuts a schema to what the server keeps of it: of a tool's, and of an output's. `functions` reads a
function's signature, with `descriptions` for what its text says of each parameter; `callees` are
what can be called, and what brings its own schema. `unsafe` keeps from msgspec what it cannot bear.

This room knows nothing of requests, nor of messages. Most programs have no use for it, so nothing
here is imported before it is needed.
"""
