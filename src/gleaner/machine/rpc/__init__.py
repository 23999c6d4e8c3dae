"""The robot API: viam-sdk's component and service handlers plus what viam-sdk has no server for."""
