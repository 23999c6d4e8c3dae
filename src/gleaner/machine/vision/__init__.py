"""What lies between a model's numbers and a vision service's answers; pure functions on arrays."""
