"""Orders that wait for a device, and the processes that carry them out: what stands behind the web page.

An order is a folder; a runner is one process a device; a job is a process of its own. All they have in common is files, so that any of them may be killed.
"""

from darkroom.jobs.queue.devices import devices
from darkroom.jobs.queue.line import Line
from darkroom.jobs.queue.order import COMMANDS, Command, Draw, Order, OrderError, read_order

__all__ = ["COMMANDS", "Command", "Draw", "Line", "Order", "OrderError", "devices", "read_order"]
