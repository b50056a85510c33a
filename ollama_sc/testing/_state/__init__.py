"""What the server holds between requests: models, blobs, registry, account and cloud.

`blobs` and `names` first, then `store` (the models), then `loaded` (the models in memory),
`registry` and `cloud`; `state` puts them together. Knows no responses, no endpoints and no HTTP.
"""
