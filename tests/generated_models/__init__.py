"""Random Keras models, each made from an integer, and what must hold for copies of them.

`draw` makes the choices, `menu` collects the layers of the modules named after kinds of tensors,
`graphs` wires them, `compiling` compiles, `cases` puts a model and its inputs together. `weights`
gives it numbers worth comparing, `checks` holds what sepconv makes of it against it, `refusals`
says which errors are promised.
"""
