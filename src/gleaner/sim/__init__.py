"""A simulated arena with signs on its walls and a rover that drives and looks around in it.

`world` is what runs, `render` what a camera sees. `truth` and `views` are for tests and benchmarks only.
"""
