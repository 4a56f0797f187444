"""For all tests."""

from hypothesis import settings

# How long an example takes depends on the machine and on what else it does. Half as many as usual are enough for every
# day; `pytest --hypothesis-profile=thorough` takes many.
settings.register_profile("circinus", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile("circinus")
