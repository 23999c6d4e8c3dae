"""The machine's side of the app: configuration, link, logs and packages. It only ever dials out."""
