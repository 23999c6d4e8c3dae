"""Live machines: the link they keep to the app, calls over it, camera frames to viewers and driving."""
