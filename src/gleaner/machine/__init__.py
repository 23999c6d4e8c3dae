"""A machine: resources built from its configuration, the robot API over them, and the connection to its app.

`config_source` (file or app) → `graph` (resources, rebuilt as the configuration changes) → `rpc` (gRPC) and `cloud`
(configuration, link, logs, packages). `capture` and `sync` are resources' business: the data manager owns them.
"""
