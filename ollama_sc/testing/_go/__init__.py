"""What comes of a server written in Go: how it reads and writes values.

JSON, times and durations (`gojson`), the types of the requests' fields with the errors of Go's
decoder (`structs`), and typed access to a request's fields (`fields`), in this order. Knows no
models, no endpoints and no HTTP.
"""
