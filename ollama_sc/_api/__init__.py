"""What can be asked of a server: a file for each family of endpoints.

`generation`, `models` and `server` hold the methods. Each takes its fields (`fields`), has them
checked (`arguments`) and encoded (`body`, with `files` for what is read from disk), and hands the
request to `base`: that starts one call for it and gives back the decoded reply, or a `Stream`
(`stream`), which shares a queue with the call's task (`stream_call`).

This room may know everything below it (`_http`, `_replies`, `_calls`); it knows no jobs and no
client: how requests get a task group is not its subject.
"""
