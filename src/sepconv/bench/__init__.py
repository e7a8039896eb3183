"""The benchmark (`sepconv bench`), and networks to measure training steps with.

`workloads` says what is measured, `cases` makes the numbers and the right answers, `peers` says
with whom, `worker` is the process that one of them lives in, `measure` lets them take turns,
`roofline` knows the machine's limits, `report` and `plot` tell what came out, `benchmark` does all
of it in one run, and `command` is the command line's. `models` are whole networks, built from
Keras' own layers and with sepconv's in their place.
"""
