"""Models behind an address: an engine that asks servers (llama.cpp, vLLM, SGLang, TabbyAPI) over HTTP.

:mod:`.engine` is the engine; :mod:`.dialect` and a module for each kind of server say what is asked and how it is
answered, without a network; :mod:`.transport` carries it, :mod:`.routing` chooses where to, :mod:`.probing` finds out
what the servers are.
"""
