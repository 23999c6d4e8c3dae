"""Backbones that others have trained, as the start of a classifier. Needs the extra `pretrained`."""
