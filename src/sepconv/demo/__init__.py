"""The demo: one network trained twice on real data, with Keras' own layers and with sepconv's.

`data` reads the pictures, `training` trains one network in a process of its own, `compare` runs the
two and shows them at work, `report` writes what came out as a page, `command` is the command
line's.
"""
