"""Modules: programs with models of their own, run beside the machine and spoken to over Viam's module protocol."""
