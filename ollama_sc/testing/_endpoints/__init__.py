"""The API's endpoints: from a recorded request and the state to a message.

`lookup` and `progress` serve the other modules, one module for each group of endpoints; `routes`
dispatches to them. Knows neither sockets nor connections.
"""
