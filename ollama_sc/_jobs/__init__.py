"""Many texts into vectors: one job of many requests, on one server or several.

`methods` are those of a client; `start` checks the arguments (`settings`, `fields`, `plan`) and
makes a job. `job` is its work: it reads the texts in batches (`batcher`), sends each to one of the
`servers` at one of two `endpoints`, with `retries`, and delivers (`delivery`) their `vectors` to
the consumer's handle (`batches`), counted by `progress`. `tuner` finds the best number of requests
in flight at a server.

How a job runs:

* It is one operation of its client (of each of its clients): one call, whose task reads the texts
  and starts the requests; each request is a child of that call. Aborting or closing any of its
  clients ends it.
* It warms each server up first, with one request for one text. That loads the model, and tells how
  long vectors are and whether the server knows the faster of the two endpoints. A server is
  *available* once that has succeeded. It becomes *unavailable* when a connection to it breaks, or,
  where there are other servers, when it is too busy or too slow; then it is left alone for as long
  as it asks for, and warmed up again.
* The job's task reads a batch of texts, waits until the consumer is near enough, acquires a slot at
  an available server, and starts a task for the batch; then it reads the next. So it holds one more
  batch than those that are in flight or wait for the consumer, which are at most twice the requests
  in flight.
* A batch's request is retried, at whichever server has a free slot, while its error is transient:
  broken connections, full queues, timeouts. Where the server refuses the texts themselves, the
  batch is halved until single texts are left. A text that is refused alone fails if the server
  still embeds the text of the warm-up, and then refuses it again; otherwise the job fails. Such
  texts are tried one at a time, for one that takes the runner down takes others with it.
* A server's model can be replaced while a job runs. Its digest is compared (`served_model`) where
  there are several servers or the digest is known: at the beginning, after an absence, every two
  minutes and at the end. On one server a job takes it down after two minutes.
* The first error in any of its tasks cancels all of them; the consumer gets it after the batches
  that were ready before.

What can go wrong, and where that is handled: the texts, in `batcher`; a reply, in `endpoints` and
`odd_vectors`; a server, in `servers`; a request, in `retries`; a text, in `job`; the consumer, in
`delivery`.

This package may know the API (`_api`) and what is below it; it starts no threads and opens no
client. Importing it imports nothing: most programs have no jobs.
"""
