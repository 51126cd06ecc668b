"""Publishing: one event at a time, many that stand or fall together, from a method that returned, from blocking
code."""
