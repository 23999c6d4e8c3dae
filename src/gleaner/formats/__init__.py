"""Data sets in the forms other programs use: readers and writers over a stream of pictures.

A writer turns an iterator of `Picture` into an iterator of `Entry` (the files of the export, in order); a reader turns a
`Source` (a folder or a zip) into an iterator of `Picture` and `Problem`. Neither holds more than one picture at a time,
and what has to be known before it can be written (COCO's annotations) waits in a temporary file. Knows nothing of the app.
"""
