"""What a capture directory holds, read without a machine, without an app and without changing anything in it."""
