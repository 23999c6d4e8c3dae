"""Object detection: the network, how it learns, how it is judged and exported. `run.py` puts them together."""
