"""`sepconv explain`: what every layer of a network costs, must cost, and would cost otherwise."""
