"""The measured work: what the broker does in a second, beside bare PostgreSQL in the same run.

`make bench` runs every measure several times, in turns, on engines of its own, and takes medians. Rates depend on the
machine and the minute: believe the ratios of one run. Load comes from processes of its own, over loopback.
"""
