"""Bytes into typed objects, and no I/O.

`ndjson` decodes one reply, or the lines of a stream; what its decoders refuse `lenient` reads field
by field; `open_types` has the types that notice and keep unknown keys; `join` puts the parts of a
stream together; `errors` makes exceptions of what servers answer where something is wrong.

This room knows neither calls nor HTTP: not `_calls`, not `_http`.
"""
