"""The simulated language model: what it generates, and in which objects.

`synthetic` makes tokens and vectors, `completion` selects the tokens of a request, `responses`
puts them into the objects of a response. Knows no endpoints and no HTTP.
"""
