"""The public interface: `Workspace` with one method for each verb, and its typed results.

Use cases log to `logging.getLogger("circinus.api...")`; without a handler of the application nothing is printed.
"""

import logging

logging.getLogger("circinus").addHandler(logging.NullHandler())
