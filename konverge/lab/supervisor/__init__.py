"""Starts, watches and ends the processes of a lab.

Kept free of imports: the watchdog and the command line import parts of this package on their own.
"""
