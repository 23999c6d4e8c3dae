"""Resources that live in another process: those of modules and of remotes."""
