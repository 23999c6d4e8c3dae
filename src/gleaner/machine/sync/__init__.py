"""Carries capture files to the app in a process of its own, and deletes them when the app has them for good."""
