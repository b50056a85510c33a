"""What requests cost the client, beside its peers, in one run: `make bench`.

A run starts one server (`server`), which all contenders share. For each piece of work (`works`) and
each round, every contender runs in a fresh process (`worker`, `node/worker.mjs`), the contenders in
turn, so that a machine that slows down slows all of them (`rounds`). The medians go into a table
(`report`) and a chart (`chart`). `limits` measures what is no comparison of contenders.
"""
