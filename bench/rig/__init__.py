"""What several measurements share: a real app, the real sync process, lines that delay and break."""
