"""Reads components on a schedule and writes what they say to capture files, which sync then carries to the app."""
