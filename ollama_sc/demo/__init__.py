"""The main job on one screen: `python -m ollama_sc.demo`, or `make demo`.

Several chats at once, the end of all of them, many vectors. It stands on the public library, and
nothing else in this library may import it.
"""
