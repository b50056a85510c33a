"""Tools that a model has run: the loop of a model's requests and of its calls.

`methods` has those of a client, with their `fields`; `start` makes a run of checked arguments. A
run is one operation of its client: `run` asks the model, has the calls of its reply made by
`rounds`, and asks again with their results. `toolbox` knows the tools by name, and what is wrong
with a call before anything runs; `threads` runs what is not asynchronous. `results` are what comes
out of a run, and `messages` what goes in. Of a streamed one, `events` is the queue between its task
and the consumer, and `stream` the consumer's handle. `conversation` is a list of messages that
grows by those of runs.

What a model's request costs in places at the limiter, the run gives back before it runs any tool: a
tool can make requests of its own.

This room may know the API (`_api`) and what is below it, and no jobs. The loop is imported with the
first run: most programs have none.
"""
